"""A detector of one rule: what is brighter than so many counts."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

from irstd_edge.benchmarks.fault_eval import NONE, Detector, example_of, faults_of, sheet_of
from irstd_edge.benchmarks.faults import FAULTS
from irstd_edge.benchmarks.table import print_faults
from irstd_edge.edge.frames import points_of_mask
from irstd_edge.edge.types import Detection, Frame, Prediction, Sample, Skip

SHAPE = (64, 64)


def brighter_than(counts: int) -> Callable[[Frame], Prediction]:
    def predict(frame: Frame) -> Prediction:
        mask = frame.counts > counts
        found = tuple(Detection(float(r), float(c), 0.9, 4.0) for r, c in points_of_mask(mask))
        return Prediction(found, mask.astype(np.float32), 1, mask)

    return predict


def sample(name: str, *values: int) -> Sample:
    """8 bit, 50 counts with noise, and 2x2 targets of these values on the diagonal."""
    random = np.random.default_rng(len(name))
    counts = np.rint(random.normal(50, 2, SHAPE)).astype(np.uint8)
    mask = np.zeros(SHAPE, bool)
    for at, value in enumerate(values, start=1):
        counts[10 * at : 10 * at + 2, 10 * at : 10 * at + 2] = value
        mask[10 * at : 10 * at + 2, 10 * at : 10 * at + 2] = True
    return Sample(Frame(name, counts, 8), mask, points_of_mask(mask))


SAMPLES = [Skip("broken", "no mask"), sample("empty"), sample("two", 200, 150), sample("one", 220)]


@pytest.fixture(scope="module")
def records() -> dict[str, dict]:
    """INT8 is deaf to the target of 150 counts, and both to half of the gain."""
    detector = Detector("int8", brighter_than(160), "onnxruntime", ("fp32", brighter_than(140)))
    steps = []
    found = faults_of(lambda: SAMPLES, detector, "native", lambda *step: steps.append(step))
    assert [record["fault"] for record in found] == [NONE, *FAULTS]
    assert steps[-1] == ("faults", 9, 9)
    return {record["fault"]: record for record in found}


def test_undisturbed_frames_come_first(records: dict[str, dict]) -> None:
    none = records[NONE]
    assert (none["images"], none["targets"]) == (3, 3)
    assert none["pd"] == pytest.approx(2 / 3) and none["f1_3px"] == pytest.approx(0.8)
    assert none["iou"] == pytest.approx(2 / 3)
    assert none["reference"] == {
        "variant": "fp32", "f1_3px": 1.0, "iou": 1.0, "pd": 1.0, "fa_per_mpx": 0.0
    }  # fmt: skip
    assert none["drift"]["iou"] == pytest.approx(-1 / 3)
    assert (none["drift"]["targets_lost"], none["drift"]["targets_gained"]) == (1, 0)
    assert none["drift"]["f1_3px"] == pytest.approx(-0.2)
    (lost,) = none["drift"]["flipped"]
    assert (lost["image"], lost["row"], lost["flip"]) == ("two", 20.5, "lost")


def test_each_fault_does_to_the_rule_what_it_should(records: dict[str, dict]) -> None:
    assert records["gain-change"]["pd"] == 0
    assert records["gain-change"]["reference"]["pd"] == 0
    assert records["gain-change"]["drift"]["targets_lost"] == 0
    assert records["hot-pixels"]["fa_per_mpx"] > 0 == records["dead-pixels"]["fa_per_mpx"]
    assert records["saturation"]["fa_per_mpx"] > records["hot-pixels"]["fa_per_mpx"]


def test_behind_a_shutter_only_false_alarms_count(records: dict[str, dict]) -> None:
    shutter = records["shutter"]
    assert (shutter["targets"], shutter["f1_3px"], shutter["pd"]) == (0, None, None)
    assert shutter["fa_per_mpx"] == 0 and shutter["drift"]["targets_lost"] == 0
    noisy = Detector("fp32", brighter_than(50), "torch")
    alarms = {r["fault"]: r for r in faults_of(lambda: SAMPLES, noisy, "native")}["shutter"]
    assert alarms["fa_per_mpx"] > 1000 and alarms["f1_3px"] is None
    assert alarms["reference"] is None and alarms["drift"] is None


def test_the_table_has_a_line_for_each(records: dict[str, dict]) -> None:
    console = Console(width=100, file=io.StringIO())
    print_faults(list(records.values()), console)
    lines = console.file.getvalue().splitlines()
    undisturbed = next(line.split() for line in lines if line.split()[:1] == [NONE])
    figures = ["80.00", "66.67", "66.67", "0.00", "100.00", "100.00", "0.00", "−1", "+0"]
    assert undisturbed == [NONE, *figures]
    for name in FAULTS:
        assert any(line.split()[:1] == [name] for line in lines)


def test_the_sheet_shows_one_frame_under_each_fault() -> None:
    predict = brighter_than(210)
    example = example_of(SAMPLES, predict)
    assert example is not None and example.frame.name == "one"  # where something is found
    sheet = sheet_of(example, predict)
    assert sheet.shape == (3 * (512 + 28), 3 * 512, 3)
    green = (sheet == (60, 220, 60)).all(axis=2)
    assert green[:540, :512].any()  # as it is: found
    assert not green[1080:, 512:1024].any()  # half of the gain: not found
    assert example_of([SAMPLES[0]], predict) is None
