"""What an image file declares, looked at before a decoder gives memory to it.

Decoders let a broken file pass in part (OpenCV 4 returns half of one that was cut off), and take
gigabytes for a few bytes that declare a large size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from irstd_edge.edge.counts import refuse_size
from irstd_edge.edge.policy import MAX_JPEG_SCANS
from irstd_edge.edge.tiff import SIGNATURES, refuse_pages
from irstd_edge.edge.types import IrstdError

PNG_SIGNATURE, BMP_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"BM"
JPEG_SIGNATURE, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segments that hold the size."""


def refuse_broken(path: Path, data: bytes) -> list[int]:
    """Raise IrstdError for what is empty, cut off, damaged, or declares too large a size.

    So is anything but PNG, TIFF, BMP and JPEG: a decoder may know more, and their headers are not
    looked at here. Returns the pixels of each page of a TIFF, else one number.
    """
    if not data:
        raise IrstdError(f"{path}: the file is empty: copy it again")
    if data.startswith(PNG_SIGNATURE):
        _refuse_broken_png(path, data)
    elif data.startswith(JPEG_SIGNATURE):
        _refuse_broken_jpeg(path, data)
    elif not data.startswith((BMP_SIGNATURE, *SIGNATURES)):
        raise IrstdError(f"{path}: cannot be decoded: is it a whole PNG, TIFF, BMP or JPEG?")
    sizes_px = refuse_pages(path, data)
    for height, width in declared_sizes(data):
        refuse_size(path, height, width)
    return sizes_px or [1]


def declared_sizes(data: bytes) -> list[tuple[int, int]]:
    """(height, width) of a JPEG or BMP, as far as the header can be read; none of other files."""
    found: list[tuple[int, int]] = []
    try:
        if data.startswith(JPEG_SIGNATURE):
            found += _jpeg_sizes(data)
        elif data.startswith(BMP_SIGNATURE):
            found.append(_bmp_size(data))
    except struct.error:
        pass  # it ends within the header: the decoder refuses it
    return found


def _jpeg_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    at = 2
    while True:
        start, marker, length = struct.unpack_from(">BBH", data, at)
        if start != 0xFF or marker == JPEG_SCAN[1]:
            return
        if marker in JPEG_FRAMES:
            yield struct.unpack_from(">HH", data, at + 5)
        at += 1 if marker == 0xFF else 2 + length  # 0xFF may fill up


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(height), width  # a negative height counts from the top


def _refuse_broken_jpeg(path: Path, data: bytes) -> None:
    if data.rfind(JPEG_END) < data.rfind(JPEG_SCAN):
        raise IrstdError(f"{path}: the JPEG is truncated: copy it again")
    if data.count(JPEG_SCAN) > MAX_JPEG_SCANS:
        raise IrstdError(
            f"{path}: the JPEG has more than {MAX_JPEG_SCANS} scans, which takes as many times as "
            "long: save it again"
        )


def _refuse_broken_png(path: Path, data: bytes) -> None:
    """Walk the chunks: the size before anything is decoded, every checksum, the end."""
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at) if at + 8 <= len(data) else (0, b"")
        end = at + 12 + length
        if not kind or end > len(data):
            raise IrstdError(f"{path}: the PNG is truncated: copy it again")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise IrstdError(f"{path}: the PNG is damaged (checksum of {kind!r}): copy it again")
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data, at + 8)
            refuse_size(path, height, width)
        at = end
