import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from irstd_edge.edge import arrays
from irstd_edge.edge.frames import read_frame, read_mask, read_pages
from irstd_edge.edge.types import IrstdError

COUNTS = (np.arange(3 * 6 * 8).reshape(3, 6, 8) * 100).astype(np.uint16)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2"])
def test_npy_holds_one_frame_or_a_stack(tmp_path: Path, kind: str) -> None:
    counts = (COUNTS // 100).astype(kind)
    frame = read_frame(saved(tmp_path / "one.npy", counts[0]))
    assert (frame.name, frame.bit_depth) == ("one", 8 if kind == "u1" else 16)
    np.testing.assert_array_equal(frame.counts, counts[0])
    assert frame.counts.dtype.isnative
    found = list(read_pages(saved(tmp_path / "many.npy", counts)))
    assert [f.name for f in found] == ["many#0", "many#1", "many#2"]
    np.testing.assert_array_equal(np.stack([f.counts for f in found]), counts)
    assert [f.name for f in read_pages(tmp_path / "one.npy")] == ["one"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_holds_arrays_in_their_order(tmp_path: Path, save) -> None:
    path = tmp_path / "flight.npz"
    save(path, later=COUNTS[2], stack=COUNTS[:2])
    found = list(read_pages(path, 14))
    assert [(f.name, f.bit_depth) for f in found] == [(f"flight#{i}", 14) for i in range(3)]
    np.testing.assert_array_equal(np.stack([f.counts for f in found]), COUNTS[[2, 0, 1]])
    with pytest.raises(IrstdError, match=r"flight\.npz: holds 3 frames where one belongs: split"):
        read_frame(path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_a_refused_file_is_closed_while_its_error_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.float32([[1]]))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(IrstdError):
        read_frame(path)
    try:
        read_frame(path)
    except IrstdError as error:
        assert error.__traceback__ is not None
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_mask_may_be_an_array(tmp_path: Path) -> None:
    mask = read_mask(saved(tmp_path / "m.npy", np.uint8([[0, 255]])))
    assert mask.tolist() == [[False, True]]


REFUSED = {
    "float32": (np.full((4, 4), np.nan, np.float32), "holds float32 numbers: save the sensor's"),
    "float64": (np.full((4, 4), np.inf), "holds float64 numbers"),
    "int32": (np.zeros((4, 4), np.int32), "holds int32 numbers"),
    "bool": (np.zeros((4, 4), bool), "holds bool numbers"),
    "colour": (np.zeros((4, 9, 3), np.uint8), r"has the shape \(4, 9, 3\): save one channel"),
    "line": (np.zeros(9, np.uint8), r"has the shape \(9,\)"),
    "number": (np.array(9, np.uint8), r"has the shape \(\)"),
    "batch": (np.zeros((2, 1, 4, 9), np.uint8), r"has the shape \(2, 1, 4, 9\)"),
    "empty": (np.zeros((0, 9), np.uint8), "declares 0x9 pixels, so it holds no frame"),
    "none": (np.zeros((0, 4, 9), np.uint8), "holds no frame"),
    "wide": (np.zeros((1, 8193), np.uint8), "1x8193 pixels, and 8192 is the longest side"),
    "fortran": (np.asfortranarray(np.zeros((4, 9), np.uint8)), "is in Fortran order: save numpy"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_no_frame_is_refused_in_one_line(tmp_path: Path, name: str, suffix: str) -> None:
    array, message = REFUSED[name]
    path = tmp_path / f"{name}{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, array)
    with pytest.raises(IrstdError, match=message) as caught:
        read_frame(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *_: pytest.fail("unpickled"))
    path = tmp_path / "code.npy"
    np.save(path, np.array([[{"a": 1}]], object), allow_pickle=True)
    with pytest.raises(IrstdError, match="holds object numbers"):
        read_frame(path)
    path.write_bytes(b"\x80\x04}.")
    with pytest.raises(IrstdError, match="cannot be read as NPY"):
        read_frame(path)


def test_a_declared_size_takes_no_memory_until_it_is_read(tmp_path: Path) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 8192, 8192)}
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, header)
    path = tmp_path / "bomb.npy"
    path.write_bytes(raw.getvalue() + b"\0" * 99)
    assert arrays.count_arrays(path) == 10**9
    with pytest.raises(IrstdError, match=r"bomb\.npy: the file is truncated: copy it again"):
        next(read_pages(path))


@pytest.mark.parametrize("cut", [1, 40, 100, 120])
def test_a_truncated_stack_gives_the_frames_before_and_then_says_so(
    tmp_path: Path, cut: int
) -> None:
    path = saved(tmp_path / "cut.npy", COUNTS)
    path.write_bytes(path.read_bytes()[:-cut])
    found = []
    with pytest.raises(IrstdError, match=r"cut\.npy: the file is truncated: copy it again"):
        found.extend(iter(read_pages(path)))
    assert len(found) == 2 - (cut > 96)


@pytest.mark.parametrize(
    "raw", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x09"]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_damaged_file_is_refused(tmp_path: Path, raw: bytes, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(raw)
    with pytest.raises(IrstdError, match=f"cannot be read as {suffix[1:].upper()} "):
        read_frame(path)


def test_an_archive_with_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, a=COUNTS)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(IrstdError, match=r"bad\.npz: cannot be read as NPZ \(Bad CRC-32"):
        list(read_pages(path))
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    for read in (read_frame, lambda path: list(read_pages(path))):
        with pytest.raises(IrstdError, match=r"none\.npz: holds no frame"):
            read(tmp_path / "none.npz")
