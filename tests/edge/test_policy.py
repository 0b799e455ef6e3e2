import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.files import open_to_read, read_bytes, refuse_unwritable
from irstd_edge.edge.frames import png_of, read_frame
from irstd_edge.edge.json_files import read_json
from irstd_edge.edge.lists import names_of_list
from irstd_edge.edge.policy import is_printable, printable
from irstd_edge.edge.sequences import frames_in, frames_of
from irstd_edge.edge.types import IrstdError

np = pytest.importorskip("numpy")
READERS = [read_bytes, read_frame, lambda p: read_json(p, "x"), lambda p: list(frames_of(p))]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["pipe.png", "pipe.npy", "pipe.avi"])
def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path, read, name) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(IrstdError, match="is a pipe, a device or the like, not a file: give a"):
        read(tmp_path / name)


@pytest.mark.parametrize("read", READERS[:3])
def test_a_device_that_never_ends_is_refused(read) -> None:
    with pytest.raises(IrstdError, match="/dev/zero: is a pipe, a device or the like"):
        read(Path("/dev/zero"))


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.touch()
    os.truncate(path, 2**40)  # takes no space
    with pytest.raises(IrstdError, match=r"bench\.json: holds 1099511627776 bytes, more than the"):
        read_json(path, "a bench")
    with open_to_read(path) as file:
        assert file.read(1) == b"\0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b é", "a b é"),
        ("a\n", r"a\n"),
        ("\x1b[2J", r"\x1b[2J"),
        ("x\u202ey", r"x\u202ey"),
        ("x\uffff", r"x\uffff"),  # XML has no place for it
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert is_printable(text) == (text == shown)


@pytest.mark.parametrize("name", ["\x1b[2J.png", "a\nb.png", "x\udcff.png"])
def test_a_frame_whose_name_cannot_be_printed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for paths in ([tmp_path], [tmp_path / name]):
        with pytest.raises(IrstdError, match="its name holds characters that cannot be printed"):
            frames_in(paths)


@pytest.mark.parametrize("line", ["\x1b]0;x\x07", "a\x00b", "x" * 201])
def test_a_listed_name_that_cannot_be_printed(tmp_path: Path, line: str) -> None:
    (tmp_path / "test.txt").write_text(f"a\n{line}\n")
    with pytest.raises(
        IrstdError, match=r"test\.txt: .* is too long, begins with a dot or cannot be printed"
    ):
        names_of_list(tmp_path / "test.txt")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ('{"a": 1e999}', "1e999 is more than a float holds"),
        ('{"a": 1234567890123456789}', "is a number of 19 digits"),
    ],
)
def test_json_that_readers_could_take_in_two_ways(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(IrstdError, match=why):
        read_json(tmp_path / "x.json", "x")


def test_a_frame_may_not_be_a_link_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "private.png").write_bytes(png_of(np.zeros((8, 8), np.uint8)))
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.png").symlink_to(tmp_path / "private.png")
    (root / "test.txt").write_text("a\n")
    (root / "points.json").write_text('{"a": []}')
    with pytest.raises(IrstdError, match=r"a\.png: is a link out of its folder: copy the file"):
        list(open_dataset(root).samples())
    (root / "images" / "a.png").rename(root / "images" / "old.png")
    (root / "images" / "old.png").unlink()
    (root / "images" / "b.png").write_bytes(png_of(np.zeros((8, 8), np.uint8)))
    (root / "images" / "a.png").symlink_to("b.png")
    assert len(list(open_dataset(root).samples())) == 1


def test_a_place_that_cannot_be_written_is_named_before_the_work(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "new" / "folder" / "found.json")
    assert list(tmp_path.iterdir()) == []
    refuse_unwritable(Path("/dev/null"))
    for place in (tmp_path, Path("/proc/none/found.json")):
        with pytest.raises(IrstdError, match="cannot be written"):
            refuse_unwritable(place)


def test_a_process_takes_no_more_than_the_machine_has() -> None:
    code = (
        "import resource; from irstd_edge.edge.policy import limit_memory; limit_memory();"
        "print(resource.getrlimit(resource.RLIMIT_DATA)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    swap = [s for s in Path("/proc/meminfo").read_text().splitlines() if "SwapTotal" in s]
    most = total + sum(int(s.split()[1]) * 1024 for s in swap)
    assert done.stdout.strip() != str(resource.RLIM_INFINITY)
    assert 0 < int(done.stdout) <= most + 2**21
