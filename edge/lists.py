"""The lists of a data set: which names are in which split."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from irstd_edge.edge.files import read_bytes
from irstd_edge.edge.frames import EXTENSIONS
from irstd_edge.edge.policy import MAX_NAME_LENGTH, MAX_TEXT_BYTES, is_printable
from irstd_edge.edge.types import IrstdError

SPLITS = ("test", "trainval", "train", "val")


def list_of_split(root: Path, split: str) -> Path:
    """The file that lists a split: trainval.txt or test.txt, else the lists of img_idx/.

    train and val are parts of trainval. Raises IrstdError where there is none or a choice.
    """
    if split not in SPLITS:
        raise IrstdError(f"--split: {split!r} is not one of {', '.join(SPLITS)}")
    part = "test" if split == "test" else "trainval"
    if (root / "trainval.txt").is_file() or (root / "test.txt").is_file():
        return _existing(root, [root / f"{part}.txt"])
    pattern = "test*.txt" if part == "test" else "train*.txt"
    found = sorted((root / "img_idx").glob(pattern))
    if len(found) > 1:
        raise IrstdError(f"{root / 'img_idx'}: several {pattern}: leave one, or write {part}.txt")
    return _existing(root, found or [root / f"{part}.txt"])


def names_of_list(listing: Path) -> tuple[str, ...]:
    """The names, a line each, in their order. Raises IrstdError for an empty list, a name
    that is there twice, and paths.
    """
    try:
        lines = read_bytes(listing, MAX_TEXT_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise IrstdError(f"{listing}: not UTF-8 text: write a name a line") from error
    names = tuple(_name(listing, line.strip()) for line in lines if line.strip())
    if not names:
        raise IrstdError(f"{listing}: the list is empty: write a name a line")
    if len(set(names)) < len(names):
        ((twice, _),) = Counter(names).most_common(1)
        raise IrstdError(f"{listing}: {twice} is listed twice: remove one")
    return names


def names_of_split(names: tuple[str, ...], split: str) -> tuple[str, ...]:
    """The names of a list that belong to the split: val is what is held out, train the rest."""
    if split not in ("train", "val"):
        return names
    held = held_out(names)
    return tuple(name for name in names if (name in held) == (split == "val"))


def held_out(names: tuple[str, ...]) -> frozenset[str]:
    """The names that are held out of training: those whose hash is a multiple of ten.

    It depends on the names alone, so that every command of every run holds out the same. Where
    that would be none or all of two names or more, it is the one name with the smallest hash.
    """
    held = frozenset(name for name in names if _hash(name) % 10 == 0)
    if len(names) > 1 and len(held) in (0, len(names)):
        return frozenset({min(names, key=_hash)})
    return held if len(names) > 1 else frozenset()


def _existing(root: Path, found: list[Path]) -> Path:
    if not found[0].is_file():
        raise IrstdError(f"{root}: no list {found[0].name}: write the frames' names, one a line")
    return found[0]


def _name(listing: Path, line: str) -> str:
    if "/" in line or "\\" in line or ".." in line:
        raise IrstdError(f"{listing}: {line!r} is a path: write the frame's name alone")
    if not is_printable(line) or len(line) > MAX_NAME_LENGTH or line.startswith("."):
        raise IrstdError(
            f"{listing}: {line!r:.60} is too long, begins with a dot or cannot be printed: rename "
            "the frame"
        )
    stem, dot, suffix = line.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in EXTENSIONS else line


def _hash(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
