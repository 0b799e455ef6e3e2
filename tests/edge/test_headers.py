import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from irstd_edge.edge.frames import read_frame, read_pages
from irstd_edge.edge.headers import declared_sizes
from irstd_edge.edge.tiff import pages_of
from irstd_edge.edge.types import IrstdError


def encoded(suffix: str, shape: tuple[int, int] = (6, 9), kind: type = np.uint8) -> bytes:
    return cv2.imencode(suffix, np.zeros(shape, kind))[1].tobytes()


def tiff(order: str, sizes: list[tuple[int, int]], large: bool = False) -> bytes:
    """Pages of width and height alone; `order` is < or >."""
    number, word = ("Q", "Q") if large else ("H", "I")
    mark = b"II" if order == "<" else b"MM"
    out = mark + struct.pack(order + "H", 43 if large else 42)
    out += struct.pack(order + "HHQ", 8, 0, 16) if large else struct.pack(order + "I", 8)
    for index, (height, width) in enumerate(sizes):
        page = struct.pack(order + number, 2)
        for tag, value in ((256, width), (257, height)):
            page += struct.pack(order + "HH" + word + word, tag, 4, 1, 0)[: -8 if large else -4]
            page += struct.pack(order + "I", value) + b"\0" * (4 if large else 0)
        following = len(out) + len(page) + struct.calcsize(word)
        out += page + struct.pack(order + word, following if index + 1 < len(sizes) else 0)
    return out


def pages(data: bytes) -> list[tuple[int, int]]:
    return [page.size for page in pages_of(Path("f.tif"), data)]


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tif"])
def test_the_size_in_a_header_is_that_of_the_picture(suffix: str) -> None:
    sizes = pages if suffix == ".tif" else declared_sizes
    assert sizes(encoded(suffix)) == [(6, 9)]
    assert sizes(encoded(suffix, (300, 1))) == [(300, 1)]


def test_every_page_declares_its_own(tmp_path: Path) -> None:
    path = tmp_path / "f.tif"
    cv2.imwritemulti(str(path), [np.zeros((5, 7), np.uint16), np.zeros((6, 8), np.uint16)])
    assert pages(path.read_bytes()) == [(5, 7), (6, 8)]
    assert len(list(read_pages(path))) == 2


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_recording_that_was_cut_off_is_no_shorter_one(tmp_path: Path, share: float) -> None:
    path = tmp_path / "f.tif"
    noise = np.random.default_rng(0).integers(0, 2**14, (5, 40, 50), np.uint16)
    cv2.imwritemulti(str(path), list(noise))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(IrstdError, match=r"f\.tif: the TIFF is truncated: copy it again"):
        list(read_pages(path))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_counts_that_are_packed_are_refused(tmp_path: Path, bits: int) -> None:
    """OpenCV decodes them, to multiples of what they are."""
    path = tmp_path / "f.tif"
    data = bytearray(encoded(".tif", kind=np.uint16))
    at = data.index(struct.pack("<HHI", 258, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", bits)
    path.write_bytes(bytes(data))
    with pytest.raises(IrstdError, match=f"packs each count into {bits} bits: save the sensor's"):
        read_frame(path)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_either_order_and_offset(order: str, large: bool) -> None:
    assert pages(tiff(order, [(5, 7), (60_000, 8)], large)) == [(5, 7), (60_000, 8)]


def test_pages_that_point_at_each_other_end() -> None:
    data = bytearray(tiff("<", [(5, 7)]))
    data[-4:] = struct.pack("<I", 8)
    assert pages(bytes(data)) == [(5, 7)]


def bombs() -> dict[str, bytes]:
    bmp = bytearray(encoded(".bmp"))
    bmp[18:26] = struct.pack("<ii", 50_000, -60_000)
    jpeg = bytearray(encoded(".jpg"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60_000, 50_000)
    return {".bmp": bytes(bmp), ".jpg": bytes(jpeg), ".tif": tiff("<", [(60_000, 50_000)])}


@pytest.mark.parametrize("suffix", bombs())
def test_a_large_size_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(bombs()[suffix])
    for name in ("imdecode", "imdecodemulti"):
        monkeypatch.setattr(cv2, name, lambda *_: pytest.fail("decoded"))
    for read in (read_frame, read_pages):
        with pytest.raises(IrstdError, match="60000x50000 pixels, and 8192 is the longest side"):
            read(path)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_a_header_cut_anywhere_gives_what_it_still_declares(suffix: str) -> None:
    data = encoded(suffix)
    for end in range(len(data)):
        assert declared_sizes(data[:end]) in ([], [(6, 9)])


def test_other_files_declare_nothing() -> None:
    assert declared_sizes(b"") == declared_sizes(b"GIF89a") == declared_sizes(b"BM") == []
