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
from irstd_edge.edge.types import IrstdError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segments that hold the size."""
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_WIDTH, TIFF_HEIGHT, TIFF_SHORT = 256, 257, 3


def refuse_broken(path: Path, data: bytes) -> None:
    """Raise IrstdError for what is empty, cut off, damaged, or declares too large a size."""
    if not data:
        raise IrstdError(f"{path}: the file is empty: copy it again")
    if data.startswith(PNG_SIGNATURE):
        _refuse_broken_png(path, data)
    elif data.startswith(JPEG_SIGNATURE) and data.rfind(JPEG_END) < data.rfind(JPEG_SCAN):
        raise IrstdError(f"{path}: the JPEG is truncated: copy it again")
    for height, width in declared_sizes(data):
        refuse_size(path, height, width)


def declared_sizes(data: bytes) -> list[tuple[int, int]]:
    """(height, width) of every page of a JPEG, BMP or TIFF, as far as the header can be read."""
    found: list[tuple[int, int]] = []
    try:
        if data.startswith(JPEG_SIGNATURE):
            found += _jpeg_sizes(data)
        elif data.startswith(b"BM"):
            found.append(_bmp_size(data))
        elif data.startswith(TIFF_SIGNATURES):
            found.extend(_tiff_sizes(data))  # one by one: those before a broken page count
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


def _tiff_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    order = "<" if data.startswith(b"II") else ">"
    large = b"+" in data[:4]
    number, word, entry = (
        (order + "Q", order + "Q", 20) if large else (order + "H", order + "I", 12)
    )
    seen: set[int] = set()
    (page,) = struct.unpack_from(word, data, 8 if large else 4)
    while page and page not in seen:
        seen.add(page)
        (entries,) = struct.unpack_from(number, data, page)
        first = page + struct.calcsize(number)
        sides = {TIFF_WIDTH: 1, TIFF_HEIGHT: 1}
        for at in range(first, min(first + entries * entry, len(data)), entry):
            tag, kind = struct.unpack_from(order + "HH", data, at)
            if tag in sides:
                value = order + ("H" if kind == TIFF_SHORT else "I")
                (sides[tag],) = struct.unpack_from(value, data, at + (12 if large else 8))
        yield sides[TIFF_HEIGHT], sides[TIFF_WIDTH]
        (page,) = struct.unpack_from(word, data, first + entries * entry)


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
