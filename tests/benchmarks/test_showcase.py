import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from irstd_edge.benchmarks import showcase
from irstd_edge.benchmarks.showcase import GAP_PX, HALF_PX, MOST, ZOOM, pictures_of, places_of
from irstd_edge.edge.bundle import Bundle, write_bundle
from irstd_edge.edge.dataset import DataSet, open_dataset
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.runners import Runner, open_runner
from irstd_edge.edge.types import (
    DecodeSpec,
    InputSpec,
    IrstdError,
    MachineError,
    Manifest,
    ModelSpec,
    Quantization,
)

pytest.importorskip("onnx", reason="the tiny graphs are written with the train extra")

SIDE = 2 * HALF_PX * ZOOM
"""Pixels of a panel."""
ALARM = {"image": "frame9", "row": 3.0, "col": 4.0, "area_px": 5.0, "score": 0.83}


@pytest.fixture
def bundle(tmp_path: Path, threshold_net: Callable[[float], bytes]) -> Bundle:
    """FP32 finds what is over 60 counts, INT8 what is over 160."""
    spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    graphs = {"fp32.onnx": threshold_net(60), "int8.cpu.onnx": threshold_net(160)}
    golden = golden_files([], dict.fromkeys(graphs, ()))
    return write_bundle(tmp_path / "bundle", manifest, {**graphs, **golden})


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """One frame with a target of 120 counts at 30, 40."""
    root = tmp_path / "data"
    counts, mask = np.full((64, 80), 20, np.uint8), np.zeros((64, 80), bool)
    counts[30:32, 40:42], mask[30:32, 40:42] = 120, True
    for folder, picture in (("images", counts), ("masks", mask)):
        (root / folder).mkdir(parents=True)
        (root / folder / "frame1.png").write_bytes(png_of(picture))
    (root / "test.txt").write_text("frame1")
    return open_dataset(root)


def lost(make: SimpleNamespace, bundle: Bundle) -> dict[str, Any]:
    where = {"image": "frame1", "row": 30.5, "col": 40.5, "area_px": 4, "scr": 1.44}
    target = make.target(1, "lost", **where, score_reference=0.71, score_candidate=0.02)
    variants = [make.variant("fp32"), make.variant("int8")]
    bench: dict[str, Any] = make.bench("tiny", variants, [make.drift([target])])
    bench["results"][0]["bundle"] = bundle.sha256
    return bench


def test_flips_come_first_then_clear_misses_and_sure_alarms(make: SimpleNamespace) -> None:
    targets = [make.target(k, matched_candidate=False) for k in range(12)]
    targets += [make.target(20, "gained"), make.target(21, "lost")]
    places = places_of(make.drift(targets, false_alarms=[ALARM]))
    assert [place.kind for place in places] == [
        *("lost", "gained"),
        *["missed"] * MOST["missed"],
        "false alarm",
    ]
    assert [place.image for place in places[2:4]] == ["frame11", "frame10"], "by SCR"
    assert places[-1].words == "frame9 at 3.0, 4.0, 5 px, score 0.83"
    assert (
        places[1].words == "frame20 at 30.0, 20.5, 81 px, SCR 16.0, score 0.40 before, 0.90 after"
    )


def test_a_lost_target_is_bright_before_and_dark_after(
    make: SimpleNamespace, bundle: Bundle, data: DataSet
) -> None:
    ((caption, png),) = pictures_of(lost(make, bundle), bundle, data, threads=1)
    assert caption == (
        "lost, tiny int8 on onnxruntime: frame1 at 30.5, 40.5, 4 px, SCR 1.4, "
        "score 0.71 before, 0.02 after"
    )
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (SIDE, 3 * SIDE + 2 * GAP_PX, 3)
    middle = HALF_PX * ZOOM + ZOOM // 2
    frame, before, after = (picture[middle, k * (SIDE + GAP_PX) + middle] for k in range(3))
    assert frame.tolist() == [255, 255, 255]
    assert before.sum() > 400 > 40 > after.sum()


def test_the_reference_is_run_where_it_was_measured(
    make: SimpleNamespace, bundle: Bundle, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def spy(of: Bundle, name: str, runtime: str, threads: int | None) -> Runner:
        opened.append((name, runtime))
        return open_runner(of, name, "onnxruntime", threads)

    monkeypatch.setattr(showcase, "open_runner", spy)
    bench = lost(make, bundle)
    here = copy.deepcopy(bench["results"][0]["drift"][0])
    bench["results"][0]["drift"].append(here)
    bench["results"][0]["drift"][0] |= {"runtime": "tensorrt", "reference_runtime": "openvino"}
    here = {"onnxruntime", "openvino", "tensorrt"}
    monkeypatch.setattr(showcase, "_runs_here", lambda of, variant, runtime: runtime in here)
    (first, second) = pictures_of(bench, bundle, data, threads=1)
    assert "int8 on onnxruntime" in first[0] and "int8 on tensorrt" in second[0]
    assert opened[2:4] == [("fp32", "openvino"), ("int8", "tensorrt")]
    here.remove("tensorrt")
    ((caption, _),) = pictures_of(bench, bundle, data, threads=1)
    assert "int8 on onnxruntime" in caption, "of those that can be run here"
    del bench["results"][0]["drift"][1]
    with pytest.raises(MachineError, match="pictures need openvino, tensorrt here"):
        pictures_of(bench, bundle, data, threads=1)


def test_tensorrt_is_here_where_the_bundle_has_an_engine(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = {"fp32.onnx"}
    monkeypatch.setattr(showcase, "is_ready", lambda: True)
    monkeypatch.setattr(showcase, "engines_of", lambda graph, backend: graph.name in built)
    assert showcase._runs_here(bundle, "fp32", "tensorrt")
    built.clear()
    assert not showcase._runs_here(bundle, "fp32", "tensorrt")
    assert showcase._runs_here(bundle, "fp32", "onnxruntime")


def test_a_bundle_that_was_not_measured_and_a_bench_without_data_are_refused(
    make: SimpleNamespace, bundle: Bundle, data: DataSet
) -> None:
    bench = lost(make, bundle)
    bench["results"][0]["drift"] = []
    with pytest.raises(IrstdError, match="--data: the bench has no drift to show"):
        pictures_of(bench, bundle, data)
    bench["results"][0]["bundle"] = "0" * 64
    with pytest.raises(IrstdError, match=r"--bundle: .*bundle is not in the bench"):
        pictures_of(bench, bundle, data)


def test_of_two_benches_of_a_bundle_the_one_with_a_drift_is_shown(
    make: SimpleNamespace, bundle: Bundle, data: DataSet
) -> None:
    bench = lost(make, bundle)
    bench["results"].insert(0, {**bench["results"][0], "drift": []})
    assert len(pictures_of(bench, bundle, data)) == 1


def test_a_score_that_no_file_tells_is_a_dash(make: SimpleNamespace) -> None:
    target = make.target(1, "lost", score_reference=None)
    (place,) = places_of(make.drift([target]))
    assert place.words.endswith("score – before, 0.30 after")


def test_a_false_alarm_outside_of_its_frame_is_refused(
    make: SimpleNamespace, bundle: Bundle, data: DataSet
) -> None:
    bench = lost(make, bundle)
    alarm = {**ALARM, "image": "frame1"}
    bench["results"][0]["drift"][0]["false_alarms"] = [alarm]
    assert len(pictures_of(bench, bundle, data)) == 2
    alarm["col"] = 80.0
    with pytest.raises(IrstdError, match="--data: the targets of frame1 in .* give its data set"):
        pictures_of(bench, bundle, data)


def test_data_that_the_bench_did_not_score_are_refused(
    make: SimpleNamespace, bundle: Bundle, data: DataSet
) -> None:
    bench = lost(make, bundle)
    target = bench["results"][0]["drift"][0]["targets"][0]
    with pytest.raises(IrstdError, match="--data: the targets of frame1 in .* give its data set"):
        target["row"] = 33.0
        pictures_of(bench, bundle, data)
    bench["results"][0]["drift"][0]["targets"] *= 2
    with pytest.raises(IrstdError, match="--data: the targets of frame1"):
        target["row"] = 30.5
        pictures_of(bench, bundle, data)
    target["image"] = "frame2"
    with pytest.raises(IrstdError, match=r"--data: .*data has no frame2, which the bench scored"):
        pictures_of(bench, bundle, data)
