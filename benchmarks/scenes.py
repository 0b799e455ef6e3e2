"""Seeded synthetic infrared scenes, with targets of known place, size and contrast.

Optics blur the scenery, a target is the optics' Gaussian spread of a small hot body, and the sensor
adds noise and its column pattern. Brightness and contrast follow the frames of NUDT-SIRST.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.scenery import KINDS, Scenery, Size
from irstd_edge.edge.files import new_folder
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.json_files import write_json
from irstd_edge.edge.policy import MAX_SIDE_PX
from irstd_edge.edge.types import BoolArray, FloatArray, Frame, IrstdError

BITS = (8, 14, 16)
MIN_SIDE_PX = 32
MARGIN_PX, APART_PX = 4, 24  # of a target from the border, of two targets from each other
CLUTTER_PX = 10  # the clutter of a target is that within so many rows and columns of it
COUNT_ODDS = (0.05, 0.55, 0.3, 0.1)  # of 0, 1, 2, 3 targets in a frame


@dataclass(frozen=True)
class Target:
    """One target as it was put into the scene."""

    row: float
    col: float
    sigma_px: float
    """Of the optics' Gaussian point spread."""
    length_px: float
    """Of the body, 0 for a point; the frame shows it spread by the optics."""
    width_px: float
    scr: float
    """Mean rise over the target's mask, over the deviation of the clutter around it."""
    kind: str
    """Of the scene around it: a key of KINDS."""


@dataclass(frozen=True)
class Scene:
    """A synthetic frame with the truth about it."""

    frame: Frame
    mask: BoolArray
    """(H, W): above half of a target's peak, and the pixel that holds its centre."""
    targets: tuple[Target, ...]

    @property
    def points(self) -> FloatArray:
        """(M, 2) row, col of the targets, sub-pixel."""
        places = [(target.row, target.col) for target in self.targets]
        return np.array(places, np.float32).reshape(-1, 2)


def scene(
    rng: np.random.Generator,
    size: Size = (256, 256),
    bits: int = 8,
    kind: str = "sky",
    name: str = "scene",
) -> Scene:
    """Draw one scene of a kind; the same state of the generator gives the same scene.

    Raises IrstdError for a size, bit depth or kind that is not offered.
    """
    _check(size, bits, kind)
    view = _background(rng, size, kind)
    mask = np.zeros(size, np.bool_)
    targets = []
    for place in _places(rng, size):
        target, rise, covered = _target(rng, view, place, kind)
        view = view + rise
        mask |= covered
        targets.append(target)
    counts = np.rint(np.clip(view, 0, 1) * (2**bits - 1))
    counts = counts.astype(np.uint8 if bits == 8 else np.uint16)
    return Scene(Frame(name, counts, bits), mask, tuple(targets))


def write_dataset(
    root: Path,
    frames: int = 200,
    size: Size = (256, 256),
    bits: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a labelled data set whose folder appears whole or not at all.

    images/, masks/, trainval.txt and test.txt (half and half), dataset.json with the bit depth, and
    targets.json: NAME -> the fields of each `Target`. The same arguments give the same bytes.
    `progress` is called with the frames done and their number. Raises IrstdError for arguments
    that are not offered and for a folder that is not empty.
    """
    _check(size, bits, "sky")
    if frames < 2:
        raise IrstdError(f"--frames: {frames} is too few to part, ask for 2 or more")
    if seed < 0:
        raise IrstdError(f"--seed: {seed} is negative, give 0 or more")
    with new_folder(root, replaces=None) as folder:
        for part in ("images", "masks"):
            (folder / part).mkdir()
        truth = {}
        for index in range(frames):
            drawn = _numbered(index, size, bits, seed)
            _write(folder, drawn)
            truth[drawn.frame.name] = [asdict(target) for target in drawn.targets]
            if progress:
                progress(index + 1, frames)
        names = list(truth)
        half = (frames + 1) // 2
        (folder / "trainval.txt").write_text("\n".join(names[:half]) + "\n")
        (folder / "test.txt").write_text("\n".join(names[half:]) + "\n")
        write_json(folder / "dataset.json", {"bit_depth": bits})
        write_json(folder / "targets.json", truth)


def _numbered(index: int, size: Size, bits: int, seed: int) -> Scene:
    """A scene of a data set; each has its own generator, so more frames leave the first as is."""
    kind = list(KINDS)[index % len(KINDS)]
    return scene(np.random.default_rng([seed, index]), size, bits, kind, f"{index:05d}_{kind}")


def _write(folder: Path, drawn: Scene) -> None:
    file = f"{drawn.frame.name}.png"
    (folder / "images" / file).write_bytes(png_of(drawn.frame.counts))
    (folder / "masks" / file).write_bytes(png_of(drawn.mask))


def _check(size: Size, bits: int, kind: str) -> None:
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in size):
        raise IrstdError(
            f"--size: {size[0]}x{size[1]} is not within {MIN_SIDE_PX}..{MAX_SIDE_PX} pixels a side"
        )
    if bits not in BITS:
        raise IrstdError(f"--bits: {bits} is not one of {', '.join(map(str, BITS))}")
    if kind not in KINDS:
        raise IrstdError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")


def _background(rng: np.random.Generator, size: Size, kind: str) -> Scenery:
    """Scenery at a brightness and contrast, blurred by the optics, read by the sensor; 0..1."""
    import cv2

    paint, lowest, highest = KINDS[kind]
    view = paint(rng, size)
    view = (view - view.mean()) / view.std()
    contrast = rng.uniform(lowest, highest)
    brightness = rng.uniform(0.15, 0.65)
    view = np.clip(brightness + contrast * view, 0.02, 0.85)
    view = np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.6, 1.4)), np.float64)
    noise = np.exp(rng.uniform(np.log(0.003), np.log(0.012)))
    columns = rng.normal(0, noise * rng.uniform(0.1, 0.6), size[1])
    return view + rng.normal(0, noise, size) + columns


def _places(rng: np.random.Generator, size: Size) -> list[npt.NDArray[np.float64]]:
    """Sub-pixel places of 0 to 3 targets; fewer where a small frame has no room for them."""
    wanted = rng.choice(len(COUNT_ODDS), p=COUNT_ODDS)
    places: list[npt.NDArray[np.float64]] = []
    for place in rng.uniform(MARGIN_PX, np.array(size) - 1 - MARGIN_PX, (8 * int(wanted), 2)):
        if len(places) < wanted and all(np.hypot(*(place - p)) > APART_PX for p in places):
            places.append(place)
    return places


def _target(
    rng: np.random.Generator, view: Scenery, place: npt.NDArray[np.float64], kind: str
) -> tuple[Target, Scenery, BoolArray]:
    """A target, what it adds to the view (H, W), and its mask (H, W)."""
    sigma = rng.uniform(0.5, 1.2)
    length = rng.uniform(3, 9) if rng.random() < 0.6 else 0.0
    width = length * rng.uniform(0.5, 1.0)
    stamp = _stamp(view.shape, place, sigma, (length, width), rng.uniform(0, np.pi))
    row, col = (round(float(x)) for x in place)
    mask = stamp > 0.5
    mask[row, col] = True
    top, left = max(row - CLUTTER_PX, 0), max(col - CLUTTER_PX, 0)
    clutter = view[top : row + CLUTTER_PX + 1, left : col + CLUTTER_PX + 1].std()
    mean = stamp[mask].mean()
    # Mostly plain to see, now and then lost in the clutter, never beyond the sensor's full scale.
    peak = min(rng.triangular(1.5, 6.5, 8.0) * clutter / mean, 1 - view[mask].max())
    scr = float(peak * mean / clutter)
    target = Target(float(place[0]), float(place[1]), sigma, length, width, scr, kind)
    return target, peak * stamp, mask


def _stamp(
    size: tuple[int, ...],
    place: npt.NDArray[np.float64],
    sigma: float,
    body: tuple[float, float],
    angle: float,
) -> Scenery:
    """Spread of an elliptic body, peak 1; a uniform ellipse has the deviation axis / 4."""
    rows, cols = np.ogrid[: size[0], : size[1]]
    down, right = rows - place[0], cols - place[1]
    along = np.cos(angle) * right + np.sin(angle) * down
    across = np.cos(angle) * down - np.sin(angle) * right
    # A pixel collects over its own width, which adds the variance of a unit square.
    spread = [sigma**2 + 1 / 12 + (axis / 4) ** 2 for axis in body]
    stamp = np.exp(-(along**2 / spread[0] + across**2 / spread[1]) / 2)
    return np.asarray(stamp / stamp.max(), np.float64)
