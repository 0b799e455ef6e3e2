import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irstd_edge.edge import files
from irstd_edge.edge.types import IrstdError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("data", "raw"), [("é\n", b"\xc3\xa9\n"), (b"\0\xff", b"\0\xff")])
def test_write_atomic_writes_text_and_bytes_into_a_new_folder(
    tmp_path: Path, data: bytes | str, raw: bytes
) -> None:
    target = tmp_path / "a" / "b.bin"
    files.write_atomic(target, data)
    assert target.read_bytes() == raw
    assert names_in(target.parent) == ["b.bin"]


def test_write_atomic_keeps_the_old_file_when_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")

    def interrupt(source: Path, to: Path) -> None:
        assert source.read_bytes() == b"new"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == ["model.bin"]


def test_open_atomic_shows_a_file_when_all_of_it_is_there(tmp_path: Path) -> None:
    target = tmp_path / "found.jsonl"
    with files.open_atomic(target) as file:
        file.write(b"first\n")
        assert not target.exists()
        file.write(b"second\n")
    assert target.read_bytes() == b"first\nsecond\n"
    with pytest.raises(ValueError, match="midway"), files.open_atomic(target) as file:
        file.write(b"third\n")
        raise ValueError("midway")
    assert target.read_bytes() == b"first\nsecond\n"
    assert names_in(tmp_path) == ["found.jsonl"]


def test_open_atomic_refuses_a_folder_before_the_work_is_done(tmp_path: Path) -> None:
    with (
        pytest.raises(IrstdError, match=f"^{tmp_path}: cannot be written"),
        files.open_atomic(tmp_path),
    ):
        pytest.fail("opened")


def test_write_atomic_respects_the_umask_and_follows_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    before = os.umask(0o027)
    try:
        files.write_atomic(link, "new")
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640


def test_write_atomic_leaves_a_pipe_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_atomic(pipe, "result")
    assert os.read(reader, 64) == b"result"
    os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize("place", ["folder", "file/below"])
def test_write_atomic_names_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(IrstdError, match=rf"{place}: cannot be written \(.+\): check path, rights"):
        files.write_atomic(tmp_path / place, "x")
    assert names_in(tmp_path) == ["file", "folder"]


def make_bundle(path: Path, content: str) -> None:
    with files.new_folder(path) as folder:
        (folder / "golden").mkdir()
        (folder / "golden" / "a.txt").write_text(content)
        (folder / "manifest.json").write_text("{}")


@pytest.mark.parametrize("system_swaps", [True, False])
def test_new_folder_appears_and_replaces_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system_swaps: bool
) -> None:
    if not system_swaps:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    bundle = tmp_path / "runs" / "bundle"
    for content in ("first", "second"):
        make_bundle(bundle, content)
        assert (bundle / "golden" / "a.txt").read_text() == content
        assert names_in(bundle) == ["golden", "manifest.json"]
        assert names_in(bundle.parent) == ["bundle"]


def test_new_folder_fills_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    make_bundle(tmp_path / "bundle", "x")
    assert names_in(tmp_path / "bundle") == ["golden", "manifest.json"]


@pytest.mark.parametrize("inner", [".", "inner"])
def test_new_folder_never_takes_the_place_of_the_one_it_is_called_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    bundle = tmp_path / "bundle"
    make_bundle(bundle, "x")
    (bundle / inner).mkdir(exist_ok=True)
    monkeypatch.chdir(bundle / inner)
    with pytest.raises(IrstdError, match="is the folder you are in: choose another"):
        make_bundle(bundle, "y")
    assert (bundle / "golden" / "a.txt").read_text() == "x"


def test_new_folder_keeps_the_old_one_on_an_error(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", "old")
    with pytest.raises(KeyboardInterrupt), files.new_folder(tmp_path / "bundle") as folder:
        (folder / "half").write_text("")
        raise KeyboardInterrupt
    assert (tmp_path / "bundle" / "golden" / "a.txt").read_text() == "old"
    assert names_in(tmp_path) == ["bundle"]


def test_new_folder_says_when_the_disk_is_full(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(IrstdError, match=r"bundle: cannot be written \(No space left on device\)"):
        with files.new_folder(tmp_path / "bundle"):
            raise full
    assert names_in(tmp_path) == []


def test_new_folder_never_removes_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(IrstdError, match=r"the folder is not empty: remove it or choose"):
        make_bundle(tmp_path, "x")
    with pytest.raises(IrstdError, match=r"thesis\.tex: is a file where a folder is to be made"):
        make_bundle(tmp_path / "thesis.tex", "x")
    make_bundle(tmp_path / "bundle", "x")
    strict = files.new_folder(tmp_path / "bundle", replaces=None)
    with pytest.raises(IrstdError, match="not empty"), strict:
        pass
    assert names_in(tmp_path) == ["bundle", "thesis.tex"]


REPLACE_FOREVER = """
import sys
from pathlib import Path
from irstd_edge.edge.files import new_folder
turn = 0
while True:
    turn += 1
    with new_folder(Path(sys.argv[1])) as folder:
        for name in ("manifest.json", "a", "b"):
            (folder / name).write_text(str(turn))
    print(turn, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps folders in one step")
def test_a_kill_leaves_a_whole_folder(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    for delay_s in (0.0, 0.003, 0.011):
        command = [sys.executable, "-c", REPLACE_FOREVER, str(bundle)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
        assert len({(bundle / name).read_text() for name in ("manifest.json", "a", "b")}) == 1


def test_sha256_of_is_the_digest_of_the_contents(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    raw = bytes(range(256)) * 8200  # two chunks and a rest
    path.write_bytes(raw)
    assert files.sha256_of(path) == hashlib.sha256(raw).hexdigest()
    with pytest.raises(IrstdError, match=r"gone: cannot be read \(No such file or directory\)"):
        files.sha256_of(tmp_path / "gone")


def test_an_output_never_takes_the_place_of_an_input(tmp_path: Path) -> None:
    film, folder, link = tmp_path / "film.avi", tmp_path / "folder", tmp_path / "link"
    film.touch()
    folder.mkdir()
    link.symlink_to(folder)
    null = Path("/dev/null")
    files.refuse_clash([("--json", null), ("--junit", null), ("--out", link)], [film])
    files.refuse_clash([("--out", tmp_path / "film.mp4")], [film, folder])
    for place, words in (
        (folder / ".." / "film.avi", "film.avi is an input: choose another place"),
        (link / "new" / "x.onnx", f"x.onnx lies in {folder}, which is an input: choose"),
    ):
        with pytest.raises(IrstdError, match=f"--out: .*{words}"):
            files.refuse_clash([("--out", place)], [film, folder])
    with pytest.raises(IrstdError, match="--b: .*x is that of --a: choose another place"):
        files.refuse_clash([("--a", tmp_path / "x"), ("--b", link / ".." / "x")], [])


def test_no_output_takes_the_place_of_what_is_made_beside_it(tmp_path: Path) -> None:
    bundle, weights = tmp_path / "bundle", tmp_path / "run" / "w"
    files.refuse_clash([("--json", tmp_path / "run" / "own.json")], [], [bundle, weights])
    for place, words in (
        (bundle, "bundle is made by this command: choose another place"),
        (bundle / "new.json", f"new.json lies in {bundle}, which is made by this command"),
        (weights, "w is made by this command"),
        (tmp_path / "run", f"run is the folder of {weights}: choose another place"),
    ):
        with pytest.raises(IrstdError, match=f"--json: .*{words}"):
            files.refuse_clash([("--json", place)], [], [bundle, weights])
