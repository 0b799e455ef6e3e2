import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irstd_edge.edge import frames
from irstd_edge.edge.errors import UnusableError
from irstd_edge.edge.headers import PNG_SIGNATURE
from irstd_edge.edge.types import Frame, InputSpec, IrstdError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
RNG = np.random.default_rng(7)


def written(path: Path, pixels: np.ndarray) -> Path:
    done, data = cv2.imencode(path.suffix, pixels)
    assert done
    path.write_bytes(data.tobytes())
    return path


def pillow_png(image: Any, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_read_frame_keeps_8_bit_counts(tmp_path: Path, suffix: str) -> None:
    frame = frames.read_frame(written(tmp_path / f"night{suffix}", GREY))
    assert (frame.name, frame.bit_depth, frame.shape) == ("night", 8, (6, 8))
    np.testing.assert_array_equal(frame.counts, GREY)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_read_frame_reads_jpeg(tmp_path: Path, suffix: str) -> None:
    frame = frames.read_frame(written(tmp_path / f"night{suffix}", np.full((16, 16), 90, np.uint8)))
    np.testing.assert_allclose(frame.counts, 90, atol=1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_read_frame_keeps_16_bit_counts(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"raw{suffix}", GREY.astype(np.uint16) * 60)
    frame = frames.read_frame(path)
    assert (frame.bit_depth, frame.counts.dtype) == (16, np.uint16)
    assert frames.read_frame(path, bit_depth=14).bit_depth == 14
    np.testing.assert_array_equal(frame.counts, GREY.astype(np.uint16) * 60)


def test_read_frame_refuses_more_counts_than_the_bits_hold(tmp_path: Path) -> None:
    path = written(tmp_path / "raw.png", np.full((4, 4), 4096, np.uint16))
    assert frames.read_frame(path, bit_depth=14).counts.max() == 4096
    with pytest.raises(
        IrstdError, match=r"raw\.png: a pixel of 4096 counts does not fit 12 bits: correct --bits"
    ):
        frames.read_frame(path, bit_depth=12)


def every_png_mode() -> dict[str, Callable[[Any], bytes]]:
    """Grey written in each mode that a PNG has: every one must read as the same counts."""
    alpha = 255 - GREY
    stack = np.dstack
    return {
        "L": lambda pil: pillow_png(pil.fromarray(GREY)),
        "L with tRNS": lambda pil: pillow_png(pil.fromarray(GREY), transparency=5),
        "LA": lambda pil: pillow_png(pil.fromarray(stack([GREY, alpha]))),
        "RGB": lambda pil: pillow_png(pil.fromarray(stack([GREY] * 3))),
        "RGB with tRNS": lambda pil: pillow_png(
            pil.fromarray(stack([GREY] * 3)), transparency=(5, 5, 5)
        ),
        "RGBA": lambda pil: pillow_png(pil.fromarray(stack([GREY, GREY, GREY, alpha]))),
        "P": lambda pil: pillow_png(pil.fromarray(stack([GREY] * 3)).quantize(256)),
        "P with tRNS": lambda pil: pillow_png(
            pil.fromarray(stack([GREY] * 3)).quantize(256), transparency=3
        ),
    }


@pytest.mark.parametrize("mode", every_png_mode())
def test_read_frame_reads_every_png_mode_alike(tmp_path: Path, mode: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the modes OpenCV does not")
    path = tmp_path / "frame.png"
    path.write_bytes(every_png_mode()[mode](image))
    np.testing.assert_array_equal(frames.read_frame(path).counts, GREY)


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    # 0.299 R + 0.587 G + 0.114 B: red, green, blue, white, and (10, 20, 30)
    rgb = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 20, 30]]
    path = written(tmp_path / "c.png", np.array([rgb], np.uint8)[..., ::-1])
    assert frames.read_frame(path).counts.tolist() == [[76, 150, 29, 255, 18]]
    deep = written(tmp_path / "d.png", np.array([rgb], np.uint16)[..., ::-1] * 257)
    assert frames.read_frame(deep).counts.tolist() == [[19595, 38469, 7471, 65535, 4665]]


def test_colour_equals_pillow(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is the reference here")
    rgb = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    path = written(tmp_path / "c.png", rgb[..., ::-1])
    expected = np.asarray(image.fromarray(rgb).convert("L"))
    np.testing.assert_array_equal(frames.read_frame(path).counts, expected)


def noise(path: Path) -> bytes:
    return written(path, RNG.integers(0, 256, (40, 40), np.uint8)).read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_truncated_file_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, share: float
) -> None:
    path = tmp_path / f"cut{suffix}"
    raw = noise(path)
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(IrstdError) as caught:
        frames.read_frame(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cut", [1, 4, 12, 13])
def test_a_png_that_lacks_its_last_bytes_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(noise(path)[:-cut])
    with pytest.raises(IrstdError, match=r"cut\.png: the PNG is truncated: copy it again"):
        frames.read_frame(path)


def test_a_damaged_png_is_refused_silently(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.png"
    raw = bytearray(noise(path))
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(IrstdError, match=r"bad\.png: the PNG is damaged \(checksum of b'IDAT'\)"):
        frames.read_frame(path)
    assert capfd.readouterr() == ("", "")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 50_000, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(IrstdError, match=r"bomb\.png: 50000x60000 pixels, and 8192 is the longest"):
        frames.read_frame(path)


def test_a_frame_over_the_size_limit_is_refused_in_any_format(tmp_path: Path) -> None:
    path = written(tmp_path / "wide.bmp", np.zeros((1, 8193), np.uint8))
    with pytest.raises(IrstdError, match="1x8193 pixels, and 8192 is the longest side"):
        frames.read_frame(path)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "the file is empty: copy it again"),
        (b"not an image", "cannot be decoded: is it a whole PNG, TIFF, BMP or JPEG?"),
        (PNG_SIGNATURE, "the PNG is truncated: copy it again"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, raw: bytes, why: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(raw)
    with pytest.raises(IrstdError) as caught:
        frames.read_frame(path)
    assert str(caught.value) == f"{path}: {why}"


@pytest.mark.parametrize("kind", ["float32", "int16", "int8"])
def test_numbers_that_are_no_counts_are_refused(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "f.tif", GREY.astype(kind))
    with pytest.raises(IrstdError, match=f"holds {kind} numbers: save the sensor's counts as 8 or"):
        frames.read_frame(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(IrstdError, match="cannot be read"):
            frames.read_frame(path)


def test_read_pages_names_each_page(tmp_path: Path) -> None:
    pages = [GREY, GREY + 1, GREY + 2]
    path = tmp_path / "flight.tif"
    assert cv2.imwritemulti(str(path), pages)
    found = list(frames.read_pages(path))
    assert [frame.name for frame in found] == ["flight#0", "flight#1", "flight#2"]
    for frame, counts in zip(found, pages, strict=True):
        np.testing.assert_array_equal(frame.counts, counts)
    with pytest.raises(IrstdError, match=r"flight\.tif: holds 3 frames where one belongs: split"):
        frames.read_frame(path)
    (single,) = frames.read_pages(written(tmp_path / "one.png", GREY))
    assert single.name == "one"


def test_read_mask_splits_above_half_of_full_scale(tmp_path: Path) -> None:
    path = written(tmp_path / "m.png", np.array([[0, 1, 127, 128, 255]], np.uint8))
    assert frames.read_mask(path).tolist() == [[False, False, False, True, True]]
    path = written(tmp_path / "m.png", np.array([[0, 32767, 32768, 65535]], np.uint16))
    assert frames.read_mask(path).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(
    ("most", "dtype", "kind", "words"),
    [
        (1, np.uint8, IrstdError, "holds 0 to 1 where a mask of 8 bits holds 0 and 255: write 255"),
        (127, np.uint8, UnusableError, "holds 0 to 127 where a mask of 8 bits"),
        (255, np.uint16, IrstdError, "holds 0 to 255 where a mask of 16 bits holds 0 and 65535"),
        (4000, np.uint16, UnusableError, "holds 0 to 4000 where a mask of 16 bits"),
    ],
)
def test_read_mask_refuses_targets_that_would_be_none(
    tmp_path: Path, most: int, dtype: type, kind: type, words: str
) -> None:
    path = written(tmp_path / "m.png", np.array([[0, most]], dtype))
    with pytest.raises(kind, match=rf"m\.png: {words}") as error:
        frames.read_mask(path)
    assert type(error.value) is kind
    empty = written(tmp_path / "m.png", np.zeros((1, 2), dtype))
    assert not frames.read_mask(empty).any()


@pytest.mark.parametrize("counts", [GREY, GREY.astype(np.uint16) * 250, GREY > 100])
def test_png_of_keeps_what_it_is_given(tmp_path: Path, counts: np.ndarray) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(frames.png_of(counts))
    read = frames.read_mask(path) if counts.dtype == bool else frames.read_frame(path).counts
    np.testing.assert_array_equal(read, counts)


@pytest.mark.parametrize("bit_depth", [8, 10, 12, 14, 16])
def test_normalise_takes_the_frames_own_full_scale(bit_depth: int) -> None:
    kind = np.uint8 if bit_depth == 8 else np.uint16
    full = 2**bit_depth - 1
    image = frames.normalise(Frame("x", np.array([[0, full // 5, full]], kind), bit_depth), SPEC)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, [[0, full // 5 / full, 1]], rtol=1e-6)


SPEC = InputSpec(stride=16)


def test_normalise_names_a_normalisation_it_does_not_know() -> None:
    with pytest.raises(IrstdError, match="normalisation: 'z-score' is not known"):
        frames.normalise(Frame("x", GREY, 8), InputSpec(stride=2, normalisation="z-score"))


def test_pad_to_stride_repeats_the_last_row_and_column() -> None:
    image = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    expected = [[1, 2, 3, 3], [4, 5, 6, 6], [4, 5, 6, 6], [4, 5, 6, 6]]
    assert frames.pad_to_stride(image, 4).tolist() == expected
    fits = np.zeros((4, 8), np.float32)
    assert frames.pad_to_stride(fits, 4) is fits


def test_points_of_mask_are_centroids_of_8_connected_components() -> None:
    mask = np.zeros((6, 7), bool)
    mask[0, 0] = mask[1, 1] = True  # touches at a corner: one component
    mask[3:5, 4:7] = True
    assert frames.points_of_mask(mask).tolist() == [[0.5, 0.5], [3.5, 5.0]]
    empty = frames.points_of_mask(np.zeros((3, 3), bool))
    assert (empty.shape, empty.dtype) == ((0, 2), np.float32)


SIZES = [(1, 1), (9, 7), (96, 220), (256, 256), (217, 300), (456, 349)]


@pytest.mark.parametrize("old", SIZES)
@pytest.mark.parametrize("new", [(256, 256), (64, 100), (301, 200), (1, 1)])
def test_resize_bilinear_equals_pillow(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is the reference here")
    counts = RNG.integers(0, 256, old, np.uint8)
    ours = frames.resize_bilinear(counts, new)
    # An axis at a time, since the order within one call differs between Pillow's versions.
    columns = image.fromarray(counts).resize((new[1], old[0]), image.BILINEAR)
    both = columns.resize((new[1], new[0]), image.BILINEAR)
    np.testing.assert_array_equal(ours, np.asarray(both))
    at_once = np.asarray(image.fromarray(counts).resize((new[1], new[0]), image.BILINEAR))
    assert np.abs(at_once.astype(int) - ours).max() <= 1


@pytest.mark.parametrize("old", SIZES)
@pytest.mark.parametrize("new", [(256, 256), (64, 100), (301, 200), (1, 1)])
def test_resize_nearest_equals_pillow(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is the reference here")
    counts = RNG.integers(0, 256, old, np.uint8)
    expected = image.fromarray(counts).resize((new[1], new[0]), image.NEAREST)
    np.testing.assert_array_equal(frames.resize_nearest(counts, new), np.asarray(expected))
    mask = counts > 128
    np.testing.assert_array_equal(frames.resize_nearest(mask, new), np.asarray(expected) > 128)


def test_resize_bilinear_by_hand() -> None:
    image = np.array([[0.0, 1.0]], np.float32)
    wide = frames.resize_bilinear(image, (1, 4))
    assert wide.dtype == np.float32
    np.testing.assert_allclose(wide, [[0, 0.25, 0.75, 1]], atol=1e-6)
    deep = frames.resize_bilinear(np.array([[0, 65535]], np.uint16), (1, 4))
    assert deep.tolist() == [[0, 16384, 49151, 65535]]
