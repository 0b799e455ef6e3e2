"""Pictures of what a cheaper variant lost, gained, misses and invents, made again from the bundle.

Each picture is one row: the frame around the place, and what both variants say there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.accuracy import Predict
from irstd_edge.benchmarks.comparison import fixed
from irstd_edge.benchmarks.report_pictures import Picture
from irstd_edge.edge.bundle import Bundle
from irstd_edge.edge.dataset import DataSet
from irstd_edge.edge.frames import points_of_mask
from irstd_edge.edge.runners import installed_runtimes, open_runner
from irstd_edge.edge.tensorrt_runtime import TENSORRT_RUNTIMES, engines_of, is_ready
from irstd_edge.edge.types import FloatArray, IrstdError, MachineError, Prediction

MOST = {"lost": 100, "gained": 50, "missed": 8, "false alarm": 8}
"""Pictures of each kind; the page says how many of them did not fit."""
FLIPS, OTHERS = ("lost", "gained"), ("missed", "false alarm")
HALF_PX, ZOOM, GAP_PX = 24, 4, 4
"""Half of what is shown around a place, the size of a pixel, and the room between panels."""

SAME_PLACE_PX = 0.1
"""A bench's places are rounded."""

Bgr = npt.NDArray[np.uint8]
Side = tuple[str, str]
"""(variant, runtime)."""


@dataclass(frozen=True)
class Place:
    """Something worth a look."""

    kind: str
    """A key of `MOST`."""
    image: str
    row: float
    col: float
    words: str


def places_of(drift: Mapping[str, Any]) -> list[Place]:
    """Every flip, the clearest targets that the candidate misses, its surest false alarms."""
    targets = drift["targets"]
    missed = [t for t in targets if t["flip"] is None and t.get("matched_candidate") is False]
    by_kind = {
        "lost": [t for t in targets if t["flip"] == "lost"],
        "gained": [t for t in targets if t["flip"] == "gained"],
        "missed": sorted(missed, key=lambda t: -(t["scr"] or 0.0)),
        "false alarm": list(drift.get("false_alarms") or ()),
    }
    return [
        Place(kind, each["image"], each["row"], each["col"], _words(each))
        for kind, found in by_kind.items()
        for each in found[: MOST[kind]]
    ]


def _words(each: Mapping[str, Any]) -> str:
    parts = [f"{each['image']} at {each['row']:.1f}, {each['col']:.1f}"]
    if each["area_px"] is not None:
        parts.append(f"{each['area_px']:.0f} px")
    if each.get("scr") is not None:
        parts.append(f"SCR {each['scr']:.1f}")
    if "score" in each:
        return ", ".join([*parts, f"score {each['score']:.2f}"])
    before, after = (fixed(each[f"score_{side}"], 2) for side in ("reference", "candidate"))
    return ", ".join([*parts, f"score {before} before, {after} after"])


def pictures_of(
    bench: Mapping[str, Any], bundle: Bundle, data: DataSet, threads: int | None = None
) -> list[Picture]:
    """Pictures of a bundle that the bench holds, of the candidates that can be run here.

    First what any of them lost or gained, the fastest one's before the others'; then the misses and
    false alarms of the fastest.

    Raises:
        IrstdError: it holds no drift of this bundle, or the data are not those it scored.
        MachineError: no candidate's runtime is here.
    """
    of_bundle = [each for each in bench["results"] if each.get("bundle") == bundle.sha256]
    if not of_bundle:
        raise IrstdError(f"--bundle: {bundle.path} is not in the bench; give the one it measured")
    result = next((each for each in of_bundle if each["drift"]), None)
    if result is None:
        raise IrstdError("--data: the bench has no drift to show; bench with --data")
    fps = {(v["name"], v["runtime"]): v["fps"] or 0.0 for v in result["variants"]}
    drifts = [
        drift
        for drift in result["drift"]
        if all(_runs_here(bundle, *side) for side in _sides_of(drift))
    ]
    if not drifts:
        sides = [side for drift in result["drift"] for side in _sides_of(drift)]
        lacking = ", ".join(sorted({runtime for _, runtime in sides}))
        raise MachineError(f"--bundle: pictures need {lacking} here; leave --bundle and --data out")
    drifts.sort(key=lambda d: -fps.get((d["candidate"], d["runtime"]), 0.0))
    return [
        *(each for drift in drifts for each in _rows(result, drift, FLIPS, bundle, data, threads)),
        *_rows(result, drifts[0], OTHERS, bundle, data, threads),
    ]


def _sides_of(drift: Mapping[str, Any]) -> tuple[Side, Side]:
    """The reference and the candidate."""
    beside = drift.get("reference_runtime") or drift["runtime"]
    return (drift["reference"], beside), (drift["candidate"], drift["runtime"])


def _runs_here(bundle: Bundle, variant: str, runtime: str) -> bool:
    """Whether the runtime is here, and of TensorRT an engine too."""
    if runtime not in TENSORRT_RUNTIMES:
        return runtime in installed_runtimes()
    return is_ready() and bool(engines_of(bundle.graph(variant, runtime), backend=runtime))


def _rows(
    result: Mapping[str, Any],
    drift: Mapping[str, Any],
    kinds: Sequence[str],
    bundle: Bundle,
    data: DataSet,
    threads: int | None,
) -> list[Picture]:
    places = [place for place in places_of(drift) if place.kind in kinds]
    protocol = _protocol(result, drift)
    _refuse_other_data(drift, places, data, protocol)
    with ExitStack() as stack:
        predicts = [
            stack.enter_context(open_runner(bundle, *side, threads)).predict
            for side in _sides_of(drift)
        ]
        model = f"{result['model']} {drift['candidate']} on {drift['runtime']}"
        return [
            (f"{place.kind}, {model}: {place.words}", _picture(place, data, protocol, predicts))
            for place in places
        ]


def _refuse_other_data(
    drift: Mapping[str, Any], places: Sequence[Place], data: DataSet, protocol: str
) -> None:
    """Raise IrstdError where a frame to be shown is absent, or its targets are elsewhere."""
    for name in sorted({place.image for place in places}):
        if name not in data.names:
            raise IrstdError(
                f"--data: {data.root} has no {name}, which the bench scored; give its data set"
            )
        scored = [(t["row"], t["col"]) for t in drift["targets"] if t["image"] == name]
        sample = data.sample(name, protocol)
        shown = np.array([(place.row, place.col) for place in places if place.image == name])
        outside = (shown < -0.5) | (shown > np.array(sample.frame.shape) - 0.5)
        # Masks are scored by their blobs' centroids, whatever points.json lists.
        here = [sample.points, *([] if sample.mask is None else [points_of_mask(sample.mask)])]
        found = any(_are_the_same(np.array(scored).reshape(-1, 2), points) for points in here)
        if not found or outside.any():
            raise IrstdError(
                f"--data: the targets of {name} in {data.root} are not those that the bench "
                "scored; give its data set"
            )


def _are_the_same(scored: npt.NDArray[np.float64], here: FloatArray) -> bool:
    """Whether each of (M, 2) places has one of as many others near it."""
    if len(scored) != len(here):
        return False
    apart = np.abs(scored[:, None] - here[None]).max(2)
    return bool((apart.min(1, initial=np.inf) < SAME_PLACE_PX).all())


def _protocol(result: Mapping[str, Any], drift: Mapping[str, Any]) -> str:
    accuracies = (
        v["accuracy"]
        for v in result["variants"]
        if (v["name"], v["runtime"]) == (drift["candidate"], drift["runtime"]) and v["accuracy"]
    )
    return str(next(accuracies, {"protocol": "native"})["protocol"])


def _picture(place: Place, data: DataSet, protocol: str, predicts: Sequence[Predict]) -> bytes:
    """PNG: frame, reference, candidate."""
    sample = data.sample(place.image, protocol)
    centre = (round(place.row), round(place.col))
    panels = [_grey(_cut(sample.frame.counts, centre))]
    panels += [_heat(_cut(_at_frame_size(predict(sample.frame)), centre)) for predict in predicts]
    room = np.full((2 * HALF_PX * ZOOM, GAP_PX, 3), 128, np.uint8)
    row = np.hstack([part for panel in panels for part in (_marked(panel), room)][:-1])
    return bytes(cv2.imencode(".png", row, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def _at_frame_size(prediction: Prediction) -> FloatArray:
    """(H', W') with one value a pixel: each cell covers `stride` of them."""
    cells = np.ones((prediction.stride, prediction.stride), np.float32)
    return np.asarray(np.kron(prediction.probability, cells), np.float32)


def _cut(values: npt.NDArray[Any], centre: tuple[int, int]) -> npt.NDArray[Any]:
    """(2 HALF_PX, 2 HALF_PX) around a place; what lies beyond the border is 0."""
    padded = np.pad(values, HALF_PX)
    row, col = centre
    return padded[row : row + 2 * HALF_PX, col : col + 2 * HALF_PX]


def _grey(counts: npt.NDArray[Any]) -> Bgr:
    """Stretched to what is there: a faint target shall be seen."""
    low, high = np.percentile(counts[counts > 0] if counts.any() else counts, (1, 99.8))
    grey = (counts.astype(np.float32) - low) * (255 / max(1.0, high - low))
    return np.asarray(
        cv2.cvtColor(grey.clip(0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR), np.uint8
    )


def _heat(probability: FloatArray) -> Bgr:
    """0 is black, 1 the brightest yellow, in every picture alike."""
    levels = (probability * 255).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), np.uint8)


def _marked(panel: Bgr) -> Bgr:
    """Enlarged, with four ticks that point at the place and cover nothing of it."""
    large = cv2.resize(panel, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST)
    middle, near, far = HALF_PX * ZOOM + ZOOM // 2, 8 * ZOOM, 11 * ZOOM
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        ends = [(middle + right * d, middle + down * d) for d in (near, far)]
        cv2.line(large, ends[0], ends[1], (80, 220, 255), 1)
    return np.asarray(large, np.uint8)
