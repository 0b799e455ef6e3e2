"""Data sets on disk: folders, lists, splits, labels.

DIR/images/NAME.png                      the frames (PNG, BMP, JPEG, TIFF)
DIR/masks/NAME.png, NAME_pixels0.png     the labels
DIR/trainval.txt, DIR/test.txt           a name a line (IRSTD-1k), or
DIR/img_idx/train_*.txt, test_*.txt      the same (NUDT-SIRST, NUAA-SIRST)
DIR/points.json                          optional: {"NAME": [[row, col], ...]}
DIR/dataset.json                         optional: {"bit_depth": 14}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from irstd_edge.edge.counts import checked_bit_depth
from irstd_edge.edge.errors import UnusableError
from irstd_edge.edge.frames import (
    EXTENSIONS,
    points_of_mask,
    read_frame,
    read_mask,
    resize_bilinear,
    resize_nearest,
)
from irstd_edge.edge.json_files import read_json
from irstd_edge.edge.lists import list_of_split, names_of_list, names_of_split
from irstd_edge.edge.policy import is_printable
from irstd_edge.edge.types import FloatArray, Frame, IrstdError, Sample, Skip

PROTOCOLS = ("native", "paper256")
PAPER_SIZE = (256, 256)
PLACES = (
    "images",
    "masks",
    "img_idx",
    "trainval.txt",
    "test.txt",
    "points.json",
    "dataset.json",
    "targets.json",
)
"""Folders and files of a data set that may be read; the last is the truth of `synth`."""


@dataclass(frozen=True)
class DataSet:
    """The names of one split and where their files are; nothing is decoded before `samples`."""

    root: Path
    split: str
    names: tuple[str, ...]
    """In the order of the list."""
    images: Mapping[str, Path]
    """Name -> frame."""
    masks: Mapping[str, Path]
    """Name -> mask; empty where only points are known."""
    points: Mapping[str, FloatArray] | None = None
    """Name -> (M, 2) row, col of points.json; None without that file."""
    bit_depth: int | None = None
    """Of the sensor, from dataset.json; None for that of the files."""

    def samples(self, strict: bool = False, protocol: str = "native") -> Iterator[Sample | Skip]:
        """Read the split frame by frame.

        A frame whose label does not fit it (a mask of another size, no points) becomes a Skip,
        or an IrstdError when strict. A file that is missing or broken is always an IrstdError.
        """
        for name in self.names:
            yield self._sample_or_skip(name, strict, protocol)

    def sample(self, name: str, protocol: str = "native") -> Sample:
        """Read one frame with its label, as it is or squashed to 256x256 (paper256).

        paper256 is the reference code's: frame bilinear, mask nearest, points from that mask.
        """
        check_protocol(protocol)
        sample = self._native(name)
        return sample if protocol == "native" else self._squashed(sample)

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of its frames, each once, the most common first."""
        shapes = Counter(self.frame(name).shape for name in self.names)
        return [shape for shape, _ in shapes.most_common()]

    def files(self) -> list[Path]:
        """The frames and masks of the split, as they are read: no link out of a folder."""
        frames = [_file(self.images, name, self.root / "images") for name in self.names]
        labelled = [name for name in self.names if name in self.masks]
        return frames + [_file(self.masks, name, self.root / "masks") for name in labelled]

    def frame(self, name: str, protocol: str = "native") -> Frame:
        """Read one frame without its label, brought to the size of the protocol."""
        frame = read_frame(_file(self.images, name, self.root / "images"), self.bit_depth)
        return frame if protocol == "native" else _squashed(frame)

    def _sample_or_skip(self, name: str, strict: bool, protocol: str) -> Sample | Skip:
        try:
            return self.sample(name, protocol)
        except UnusableError as error:
            if strict:
                raise
            return Skip(name, str(error).removeprefix(f"{self.root}/"))

    def _native(self, name: str) -> Sample:
        frame = self.frame(name)
        if self.points is not None and not self.masks:
            return Sample(frame, None, self._listed_points(name, frame))
        path = _file(self.masks, name, self.root / "masks")
        mask = read_mask(path)
        if mask.shape != frame.shape:
            raise UnusableError(
                f"{path}: the mask has {mask.shape[0]}x{mask.shape[1]} pixels, its frame "
                f"{frame.shape[0]}x{frame.shape[1]}: correct the mask, or take {name} off the list"
            )
        points = points_of_mask(mask) if self.points is None else self._listed_points(name, frame)
        return Sample(frame, mask, points)

    def _listed_points(self, name: str, frame: Frame) -> FloatArray:
        file = self.root / "points.json"
        points = (self.points or {}).get(name)
        if points is None:
            raise UnusableError(f"{file}: no points for {name}: add them, [] for no target")
        if ((points < -0.5) | (points > np.array(frame.shape) - 0.5)).any():
            raise UnusableError(
                f"{file}: {name} has a point outside of its {frame.shape[0]}x{frame.shape[1]} "
                "pixels: give [row, col]"
            )
        return points

    def _squashed(self, sample: Sample) -> Sample:
        small = _squashed(sample.frame)
        mask = None if sample.mask is None else resize_nearest(sample.mask, PAPER_SIZE)
        if mask is not None and self.points is None:
            return Sample(small, mask, points_of_mask(mask))
        scale = np.array(PAPER_SIZE) / np.array(sample.frame.shape)
        points = (sample.points + 0.5) * scale - 0.5
        return Sample(small, mask, points.astype(np.float32))


def fingerprint(frame: Frame) -> tuple[str, str]:
    """The frame's name, and the sha256 of its counts, row by row, as little-endian integers."""
    little = frame.counts.astype(frame.counts.dtype.newbyteorder("<"))
    return frame.name, sha256(little.tobytes()).hexdigest()


def digest_of(samples: Iterable[Sample]) -> str:
    """The sha256 of the frames and of what is true of them."""
    digest = sha256()
    for sample in samples:
        name, counts = fingerprint(sample.frame)
        mask = b"" if sample.mask is None else sample.mask.tobytes()
        texts = (name.encode(), counts.encode(), str(sample.frame.bit_depth).encode())
        for part in (*texts, sample.points.tobytes(), mask):
            digest.update(sha256(part).digest())
    return digest.hexdigest()


def places_of(roots: Iterable[Path]) -> list[Path]:
    """The `PLACES` of data sets, there or not."""
    return [root / name for root in roots for name in PLACES]


def sets_around(files: Iterable[Path]) -> list[Path]:
    """The data sets in whose images/ these files lie."""
    folders = {file.parent.absolute() for file in files}
    roots = [folder.parent for folder in folders if folder.name == "images"]
    return [root for root in roots if any((root / name).exists() for name in PLACES[1:])]


def check_protocol(name: str) -> None:
    """Raise IrstdError unless it is one of `PROTOCOLS`."""
    if name not in PROTOCOLS:
        raise IrstdError(f"--protocol: {name!r} is not one of {', '.join(PROTOCOLS)}")


def _squashed(frame: Frame) -> Frame:
    return Frame(frame.name, resize_bilinear(frame.counts, PAPER_SIZE), frame.bit_depth)


def open_dataset(root: Path, split: str | None = "test") -> DataSet:
    """Find the frames, labels and names of a split.

    val is the tenth of trainval that `lists.held_out` chooses by a hash, train the rest; None is
    every frame, listed or not. Raises IrstdError for a folder that is no data set, an empty list, a
    name that is a path.
    """
    images = _index(root / "images")
    if not images:
        raise IrstdError(_no_frames(root))
    names = tuple(sorted(images)) if split is None else _listed(root, split, images)
    points = _read_points(root / "points.json")
    masks = _index(root / "masks", "_pixels0")
    if not masks and points is None:
        raise IrstdError(f"{root}: neither masks/ nor points.json: add the labels")
    frames, labels = (_one_of_each(files, names) for files in (images, masks))
    return DataSet(root, split or "all", names, frames, labels, points, read_bit_depth(root))


def open_datasets(roots: Sequence[Path], split: str) -> list[DataSet]:
    """Open a split of each. Raises IrstdError as `open_dataset`, and for a set that is given twice.

    Its frames would count twice.
    """
    for index, root in enumerate(roots):
        if root.resolve() in [other.resolve() for other in roots[:index]]:
            raise IrstdError(f"--data: {root} is given twice: give each data set once")
    return [open_dataset(root, split) for root in roots]


def samples_of(sets: Sequence[DataSet]) -> Iterator[tuple[int, Sample | Skip]]:
    """Read several splits, one after the other: (which of them, what is read).

    A Skip is told with its set's folder where there are several: two may have one name.
    """
    for index, data in enumerate(sets):
        folder = f"{data.root.resolve().name}/" if len(sets) > 1 else ""
        for sample in data.samples():
            if isinstance(sample, Skip):
                sample = replace(sample, name=f"{folder}{sample.name}")
            yield index, sample


def _listed(root: Path, split: str, images: Collection[str]) -> tuple[str, ...]:
    listing = list_of_split(root, split)
    listed = names_of_list(listing)
    if not any(name in images for name in listed):
        raise IrstdError(f"{listing}: none of its names is in {root / 'images'}: check both")
    names = names_of_split(listed, split)
    if not names:
        raise IrstdError(f"{listing}: too few names to hold one out as val: list at least two")
    return names


def _index(folder: Path, ending: str = "") -> dict[str, list[Path]]:
    """Name -> files of every image in a folder: their stems, without an ending of such names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
            found.setdefault(path.stem.removesuffix(ending), []).append(path)
    return found


def _one_of_each(files: Mapping[str, Sequence[Path]], names: Iterable[str]) -> dict[str, Path]:
    """Name -> file. Raises IrstdError for a name of these with two: a frame, and its preview."""
    for name in names:
        if len(found := files.get(name, ())) > 1:
            raise IrstdError(f"{found[0]}: {found[1].name} beside it has the same name: leave one")
    return {name: found[0] for name, found in files.items()}


def _no_frames(root: Path) -> str:
    if not root.is_dir():
        return f"{root}: no such folder: give the folder that holds images/ and masks/"
    inner = sorted(path.parent for path in root.glob("*/images"))
    hint = f"did you mean {inner[0]}?" if inner else "give the folder that holds images/ and masks/"
    return f"{root}: no frames in images/: {hint}"


def _file(files: Mapping[str, Path], name: str, folder: Path) -> Path:
    if name not in files:
        raise IrstdError(f"{folder / name}.png: no such file: add it, or take {name} off the list")
    path = files[name]
    # What is read may go into a bundle. The folder itself may be a link.
    if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
        raise IrstdError(f"{path}: is a link out of its folder: copy the file, or link the folder")
    return path


def _read_points(path: Path) -> dict[str, FloatArray] | None:
    if not path.is_file():
        return None
    value = read_json(path, "points: {NAME: [[row, col], ...]}")
    if not isinstance(value, dict):
        raise IrstdError(f"{path}: not an object: write {{NAME: [[row, col], ...]}}")
    for name in value:
        if not is_printable(name):
            raise IrstdError(f"{path}: the name {name!r:.60} cannot be printed: rename it")
    return {name: _points(path, name, rows) for name, rows in value.items()}


def _points(path: Path, name: str, rows: Any) -> FloatArray:
    try:
        with np.errstate(over="ignore"):  # infinite, and so refused
            points = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        points = np.full(1, np.nan, np.float32)
    if points.size == 0:
        return np.zeros((0, 2), np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise IrstdError(
            f"{path}: the points of {name} are not a list of [row, col]: write them so"
        )
    return points


def bit_depths_of(files: Collection[Path]) -> dict[Path, int | None]:
    """File -> bits of the sensor: where it lies in images/ of a data set, those of dataset.json."""
    known: dict[Path, int | None] = {}
    for folder in {file.parent for file in files}:
        place = folder.absolute()
        known[folder] = read_bit_depth(place.parent) if place.name == "images" else None
    return {file: known[file.parent] for file in files}


def read_bit_depth(root: Path) -> int | None:
    """Of the sensor, by dataset.json; None without that file. Raises IrstdError."""
    path = root / "dataset.json"
    if not path.is_file():
        return None
    value = read_json(path, 'a data set: {"bit_depth": 14}')
    depth = value.get("bit_depth") if isinstance(value, dict) else None
    return checked_bit_depth(f"{path}: bit_depth", depth)
