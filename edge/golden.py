"""Golden frames: a device proves on them that it sees what the quantizer saw, before it serves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from irstd_edge.edge.bundle import Bundle
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.frames import png_of, read_frame
from irstd_edge.edge.json_files import read_json
from irstd_edge.edge.manifest import GOLDEN, JsonObject, object_of
from irstd_edge.edge.runtimes import RUNTIMES
from irstd_edge.edge.types import BIT_DEPTHS, Detection, Frame, IrstdError

if TYPE_CHECKING:
    from irstd_edge.edge.runners import Runner

EXPECTATIONS = f"{GOLDEN}/golden.json"
POSITION_TOLERANCE_PX = 0.5
SCORE_TOLERANCE = 0.05
"""Between runtimes, not between variants: each graph is held against itself."""
AREA_TOLERANCE, AREA_TOLERANCE_PX = 0.3, 3.0
"""Of a mask's blobs, whichever is more: scores of masks are near 1 however the mask has shrunk."""


def golden_files(
    frames: Sequence[Frame], expected: Mapping[str, Sequence[Sequence[Detection]]]
) -> dict[str, bytes]:
    """The golden part of `write_bundle`'s files: a lossless PNG per frame, and golden.json.

    expected: graph, by `expected_of` -> for each frame the detections at the manifest's threshold.
    Take frames with clear targets: a graph that should see nothing is not put to a test.
    """
    names = [frame.name for frame in frames]
    value = {
        "tolerance": {
            "position_px": POSITION_TOLERANCE_PX,
            "score": SCORE_TOLERANCE,
            "area": AREA_TOLERANCE,
            "area_px": AREA_TOLERANCE_PX,
        },
        "frames": [{"name": frame.name, "bit_depth": frame.bit_depth} for frame in frames],
        "expected": {
            graph: {
                name: [asdict(detection) for detection in detections]
                for name, detections in zip(names, per_frame, strict=True)
            }
            for graph, per_frame in expected.items()
        },
    }
    text = json.dumps(value, indent=2, allow_nan=False)
    pictures = {f"{GOLDEN}/{frame.name}.png": png_of(frame.counts) for frame in frames}
    return {**pictures, EXPECTATIONS: text.encode()}


def expected_of(graph: str, runtime: str) -> str:
    """The name of what a graph's file gives on a runtime, in golden.json.

    OpenVINO rounds more finely than int8.onnx is written, so it has an entry of its own.
    """
    return f"{graph} on {runtime}" if runtime == "openvino" else graph


def self_test(run: Runner, bundle: Bundle) -> None:
    """Run the golden frames through a runner of this bundle.

    Position, score and number of the detections must be those expected of its graph, and of masks
    the areas; one whose score is within tolerance of the threshold may come or go. Raises
    IrstdError otherwise.
    """
    root = _read(bundle)
    graph, by_graph = bundle.graph(run.variant, run.runtime).name, root.child("expected")
    own = expected_of(graph, run.runtime)
    # Bundles made where OpenVINO was not installed expect of it what the graph gives as written.
    expected = by_graph.child(own if own in by_graph.value else graph)
    decode = bundle.manifest.model.decode
    tolerance = _tolerance(root.child("tolerance"), decode.kind)
    for entry in root.children("frames"):
        frame = _frame(bundle, entry)
        try:
            found = run.detect(frame)
        except IrstdError as error:
            raise type(error)(
                f"golden frame {frame.name}, one of those a bundle is tried on before it serves: "
                f"{error}"
            ) from error
        wrong = _difference(
            [_detection(item) for item in expected.children(frame.name)],
            found,
            tolerance,
            decode.threshold,
        )
        if wrong:
            raise IrstdError(
                f"{bundle.path}: {run.variant} on {run.runtime} runs, but does not see what it "
                f"should: in golden frame {frame.name} {wrong}: {_remedy(run, bundle)}"
            )


def _remedy(run: Runner, bundle: Bundle) -> str:
    other = "choose another runtime or variant"
    reduced = bundle.manifest.quantization.recipe.get("reduced_range", False)
    on_cpu = run.variant.startswith("int8") and run.runtime in RUNTIMES
    if on_cpu and not reduced and this_machine().saturates:
        return (
            "this processor has no VNNI and clips the sums of INT8: `quantize --reduced-range`, "
            f"or {other}"
        )
    return other


def golden_sizes(bundle: Bundle) -> tuple[tuple[int, int], ...]:
    """(height, width) of the golden frames, each once: an engine that takes none cannot serve."""
    frames = (_frame(bundle, entry) for entry in _read(bundle).children("frames"))
    return tuple(dict.fromkeys(frame.shape for frame in frames))


def _read(bundle: Bundle) -> JsonObject:
    file = bundle.path / EXPECTATIONS
    if EXPECTATIONS not in bundle.manifest.files:
        raise IrstdError(f"{file}: not in the bundle: quantize again")
    return object_of(read_json(file, "a bundle's golden frames"), f"{file}: ")


def _frame(bundle: Bundle, entry: JsonObject) -> Frame:
    name = entry.get("name", str)
    picture = f"{GOLDEN}/{name}.png"
    if picture not in bundle.manifest.files:
        raise entry.wrong("name", f"is {name!r:.60}, which the manifest does not list")
    frame = read_frame(bundle.path / picture, entry.choice("bit_depth", BIT_DEPTHS))
    return Frame(name, frame.counts, frame.bit_depth)


@dataclass(frozen=True)
class _Tolerance:
    """How far a detection may be from what is expected."""

    position_px: float
    score: float
    area: float
    """Share of the expected area."""
    area_px: float

    def takes_area(self, found: float, expected: float) -> bool:
        """Whether an area may pass for another."""
        return abs(found - expected) <= max(self.area_px, self.area * expected)


def _tolerance(item: JsonObject, kind: str) -> _Tolerance:
    """As the bundle has it; any area is right for points, and in a bundle that does not say."""
    position, score = item.get("position_px", float), item.get("score", float)
    if kind != "mask" or "area" not in item.value:
        return _Tolerance(position, score, math.inf, math.inf)
    return _Tolerance(position, score, item.get("area", float), item.get("area_px", float))


def _detection(item: JsonObject) -> Detection:
    return Detection(*(item.get(key, float) for key in ("row", "col", "score", "area_px")))


def _difference(
    expected: Sequence[Detection],
    found: Sequence[Detection],
    tolerance: _Tolerance,
    threshold: float,
) -> str | None:
    """What the first difference is, in words; None where they agree."""
    left = list(found)
    for target in expected:
        near = min(left, key=lambda d: _distance_px(d, target), default=None)
        if near is None or _distance_px(near, target) > tolerance.position_px:
            if target.score > threshold + tolerance.score:
                return f"nothing is found at {_place(target)}"
        elif abs(near.score - target.score) > tolerance.score:
            return f"the score at {_place(target)} is {near.score:.3f}, not {target.score:.3f}"
        elif not tolerance.takes_area(near.area_px, target.area_px):
            areas = f"{near.area_px:g} px, not {target.area_px:g}"
            return f"the area at {_place(target)} is {areas}"
        else:
            left.remove(near)
    extra = [each for each in left if each.score > threshold + tolerance.score]
    return f"nothing is expected at {_place(extra[0])}" if extra else None


def _distance_px(a: Detection, b: Detection) -> float:
    return math.hypot(a.row - b.row, a.col - b.col)


def _place(detection: Detection) -> str:
    return f"row {detection.row:.1f}, col {detection.col:.1f}"
