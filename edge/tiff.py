"""What the pages of a TIFF declare, before a decoder gives memory to them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from irstd_edge.edge.counts import refuse_size
from irstd_edge.edge.policy import MAX_PIXEL_BITS, MAX_TIFF_ENTRIES
from irstd_edge.edge.types import IrstdError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT, BITS, SAMPLES, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 277, 322, 323
SHORT = 3
MAX_PAGE_ENTRIES = 4096
"""libtiff refuses a page with more."""


@dataclass(frozen=True)
class Page:
    """One directory of the chain."""

    tags: dict[int, int]
    """Tag -> its first value, or the default of the format."""
    entries: int
    """How many tags were looked at."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.tags[HEIGHT], self.tags[WIDTH]


def pages_of(path: Path, data: bytes) -> Iterator[Page]:
    """The pages in the order of their chain; none of other files.

    Raises IrstdError where the chain leads out of the file: a decoder would take what comes before
    for the whole.
    """
    if data.startswith(SIGNATURES):
        try:
            yield from _pages(data)
        except struct.error as error:
            raise IrstdError(f"{path}: the TIFF is truncated: copy it again") from error


def refuse_pages(path: Path, data: bytes) -> list[int]:
    """The pixels of each page of a TIFF.

    Raises IrstdError for too many pages, one too large to decode, and counts that OpenCV would
    return as multiples of what they are.
    """
    sizes_px: list[int] = []
    entries = 0
    for page in pages_of(path, data):
        entries += page.entries + 1
        if entries > MAX_TIFF_ENTRIES:
            raise IrstdError(f"{path}: has more than {len(sizes_px)} pages: split it")
        sizes_px.append(page.size[0] * page.size[1])
        refuse_size(path, *page.size)
        refuse_size(path, page.tags[TILE_HEIGHT], page.tags[TILE_WIDTH])
        if page.tags[BITS] * page.tags[SAMPLES] > MAX_PIXEL_BITS:
            raise IrstdError(
                f"{path}: a pixel has {page.tags[SAMPLES]} numbers of {page.tags[BITS]} bits: save "
                "the sensor's counts as 8 or 16 bit"
            )
        if 8 < page.tags[BITS] < 16:
            raise IrstdError(
                f"{path}: packs each count into {page.tags[BITS]} bits: save the sensor's counts "
                "as 16 bit"
            )
    return sizes_px


def _pages(data: bytes) -> Iterator[Page]:
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
        last = first + min(entries, MAX_PAGE_ENTRIES) * entry
        tags = {WIDTH: 1, HEIGHT: 1, BITS: 1, SAMPLES: 1, TILE_WIDTH: 1, TILE_HEIGHT: 1}
        for at in range(first, min(last, len(data)), entry):
            tag, kind = struct.unpack_from(order + "HH", data, at)
            if tag in tags:
                tags[tag] = _value(data, at, kind, order, word)
        yield Page(tags, min(entries, MAX_PAGE_ENTRIES))
        (page,) = struct.unpack_from(word, data, first + entries * entry)


def _value(data: bytes, at: int, kind: int, order: str, word: str) -> int:
    """The first value of an entry, which stands elsewhere where all do not fit into a word."""
    (count,) = struct.unpack_from(word, data, at + 4)
    size = struct.calcsize(word)
    value = at + 4 + size
    if kind == SHORT and count * 2 > size:
        (value,) = struct.unpack_from(word, data, value)
    (found,) = struct.unpack_from(order + ("H" if kind == SHORT else "I"), data, value)
    return int(found)
