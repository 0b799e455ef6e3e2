import html
import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from irstd_edge.benchmarks.accuracy import METRICS
from irstd_edge.benchmarks.comparison import layer_headings, layer_rows
from irstd_edge.benchmarks.report import report_html
from irstd_edge.benchmarks.schema import check_bench
from irstd_edge.benchmarks.table import (
    print_accuracy,
    print_layers,
    print_table,
    print_verdict,
)
from irstd_edge.benchmarks.verdict import Check, Verdict
from irstd_edge.edge.types import IrstdError


def printed(bench: dict[str, Any], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(bench, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


MODELS = ("mshnet", "p2p")


@pytest.mark.parametrize("width", [80, 160])
def test_every_variant_with_its_numbers(bench_json: dict[str, Any], width: int) -> None:
    text = printed(bench_json, width)

    assert max(map(len, text.splitlines())) <= width
    for words in ("p2p", "onnxruntime", "openvino", "94.21", "99.47", "1.25", "−2 +1"):
        assert words in text
    for words in ("~20.0", "50.0", "45.5", "2.50×", "310 kB", "1.04 MB"):
        assert words in text
    for words in ("F1 3px", "IoU", "Pd", "Fa", "p50", "FPS", "end to end", "size"):
        assert words in text
    assert "vs FP32" in text
    assert "same runtime" in text
    assert "1.530 GMACs = 3.060 GFLOPs (2 per MAC)" in text
    assert "…" not in text


def test_a_wide_terminal_has_a_row_per_variant(bench_json: dict[str, Any]) -> None:
    (line,) = [line for line in printed(bench_json, 160).splitlines() if "~20.0" in line]
    assert line.split() == [
        *("int8", "openvino", "94.21", "–", "99.47", "1.25", "−2", "+1"),
        *("~20.0", "50.0", "45.5", "2.50×", "310", "kB"),
    ]


def test_false_alarms_of_masks_are_pixels(make_bench: Any) -> None:
    masks, points = (" ".join(printed(make_bench(model), 160).split()) for model in MODELS)
    assert "Fa px /Mpx" in masks and "Fa /Mpx" not in masks
    assert "Fa /Mpx" in points and "Fa px" not in points


def test_what_loading_takes_is_said_where_it_was_measured(bench_json: dict[str, Any]) -> None:
    assert "peak memory" not in printed(bench_json, 80)
    bench_json["results"][0]["variants"][1]["load_ms"] = 412.3
    text = " ".join(printed(bench_json, 80).split())
    assert "peak memory: int8 onnxruntime 412 ms, 182 MB" in text


def test_weak_numbers_and_missing_ones_are_explained(bench_json: dict[str, Any]) -> None:
    bench_json["results"][0]["variants"][3]["not_measured"] = "no INA3221 on this board"
    text = " ".join(printed(bench_json, 80).split())
    assert "spreads over 13% of p50 (int8 openvino)" in text
    assert "p99 of 4 samples, 100 are needed (fp32 onnxruntime, int8 onnxruntime," in text
    assert "int8 openvino: no INA3221 on this board" in text


def test_a_sentence_says_whether_the_threshold_moved_or_information_is_lost(
    make: SimpleNamespace, bench_json: dict[str, Any]
) -> None:
    assert "At the false alarms" not in printed(bench_json, 80)
    first, second = bench_json["results"][0]["drift"]
    first["pd_at_fa"] = [make.equal_fa()]
    second["pd_at_fa"] = [make.equal_fa(-0.02, ci95=[-0.03, -0.01])]
    text = " ".join(printed(bench_json, 80).split())
    assert (
        "onnxruntime: At the false alarms of fp32, 1.25 per Mpx: fp32 finds 99.47 % (threshold "
        "0.500), int8 finds 99.47 % (threshold 0.450): the threshold moved, the information is "
        "there." in text
    )
    assert "the information is lost, −2.00 points that no threshold brings back." in text


def test_a_step_is_told_in_counts_of_the_sensor(bench_json: dict[str, Any]) -> None:
    assert "counts per INT8 step" not in printed(bench_json, 80)
    step = {"bit_depth": 14, "normalisation": "full-scale", "tensor": "act"}
    step |= {"counts_per_unit": 16383.0, "int8_input": 129.0, "first_activation": 77.66}
    bench_json["results"][0]["variants"][1]["sensor_step"] = step
    words = (
        "int8 onnxruntime: counts per INT8 step: 77.7 of 14 bits, one pixel's rise, at the first "
        "rounded activation; an INT8 input would have 129 (full-scale; the input stays float)"
    )
    assert words in " ".join(printed(check_bench(bench_json), 80).split())
    assert words in html.unescape(report_html([bench_json]))
    step["first_activation"] = None
    with pytest.raises(IrstdError, match="first_activation: None is not a number"):
        check_bench(bench_json)


def test_power_stands_below_where_it_was_measured(bench_json: dict[str, Any]) -> None:
    measured = {"power_w": 8.04, "joule_per_frame": 0.1608}
    variants = bench_json["results"][0]["variants"]
    for variant in variants:
        variant |= dict.fromkeys(measured)
    assert "whole module" not in printed(bench_json, 160)
    variants[1] |= measured
    lines = printed(bench_json, 160).splitlines()
    (line,) = [line for line in lines if "whole module" in line]
    assert line.strip().endswith(": 8.0 W, 160.8 mJ per frame, the whole module")


def test_what_comes_too_late_at_the_sensors_rate_has_a_table(bench_json: dict[str, Any]) -> None:
    assert "missed" not in printed(bench_json, 80)
    counts = {"arrived": 120, "detected": 100, "missed": 7, "dropped": 20, "queued": 31}
    ages = {"age_ms": {"p50": 24.04, "p99": 41.5}, "ages_ms": [24.04]}
    bench_json["results"][0]["variants"][1]["pace"] = {"rate_hz": 50, **counts, **ages}
    text = printed(bench_json, 80)
    rows = [line.split() for line in text.splitlines()]
    assert ["int8", "onnxruntime", "120", "7", "20", "31", "24.0", "41.5"] in rows, text
    words = " ".join(text.split())
    assert "frames at 50 Hz: missed, detections after the next frame; dropped" in words


def test_what_noise_does_stands_below_drift(bench_json: dict[str, Any], noise: Any) -> None:
    assert "for scale" not in printed(bench_json, 160)
    bench_json["results"][0]["noise"] = noise
    words = " ".join(printed(bench_json, 160).split())
    assert "for scale: noise of 0.5 counts in the frames makes fp32 on onnxruntime lose 1" in words


def test_a_reference_on_another_runtime_is_named(
    bench_json: dict[str, Any], make: SimpleNamespace
) -> None:
    note = "int8 openvino: lost and gained against fp32 on onnxruntime"
    assert note not in printed(bench_json, 160)
    drift = bench_json["results"][0]["drift"][1]
    drift |= {"reference_runtime": "onnxruntime", "pd_at_fa": [make.equal_fa()]}
    text = printed(bench_json, 160)
    assert note in text
    assert "At the false alarms of fp32 on onnxruntime" in text
    page = report_html([bench_json])
    assert "int8 against fp32 on onnxruntime, openvino" in page
    assert "int8 against fp32, onnxruntime" in page


def test_a_bench_without_data_has_no_accuracy(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    result["drift"] = []
    for variant in result["variants"]:
        variant["accuracy"] = None
    assert "94" not in printed(bench_json, 80)


def test_markup_in_a_name_is_text(bench_json: dict[str, Any]) -> None:
    bench_json["results"][0]["model"] = "[red]p2p[/red][/nothing]"
    assert "[red]p2p[/red][/nothing]" in printed(bench_json, 80)


def test_a_projection_says_so_before_anything_else(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    note = "projected from fp32.onnx"
    place = {"measured": False, "not_measured": note, "device": "agx-orin-64gb", "accuracy": None}
    projected = {**result["variants"][0], **place, "range_ms": [4.0, 8.0]}
    result |= {"variants": [projected], "drift": [], "timed_on": None}
    lines = printed(bench_json, 80).splitlines()

    assert lines[0] == "p2p: projection, not measured"
    (row,) = [line.split() for line in lines if "agx-orin-64gb" in line]
    assert row == ["agx-orin-64gb", "fp32", "onnxruntime", *"4.0 to 8.0 125.0 to 250.0".split()]
    text = " ".join(" ".join(lines).split())
    assert note in text and "fitted in two ways to 20 published YOLO11 figures" in text


def test_a_projection_is_dim_and_italic(bench_json: dict[str, Any]) -> None:
    for variant in bench_json["results"][0]["variants"]:
        variant |= {"measured": False, "device": "xavier-nx", "range_ms": [1.0, 2.0]}
    console = Console(file=io.StringIO(), width=80, color_system="standard", force_terminal=True)
    print_table(bench_json, console)
    assert isinstance(console.file, io.StringIO)
    rows = [line for line in console.file.getvalue().splitlines() if "xavier-nx" in line]
    assert len(rows) == 4 and all("\x1b[2;3m" in row for row in rows)


RANGES = {
    "by_area": [
        {"above": 0, "up_to": 9, "targets": 4, "found": 3, "pd": 0.75},
        {"above": 9, "up_to": None, "targets": 0, "found": 0, "pd": None},
    ],
    "by_scr": [{"above": 0, "up_to": 1.5, "targets": 1, "found": 1, "pd": 1.0}],
}


def accuracy_printed(found: dict[str, Any], width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    run = {"model": "p2p", "variant": "int8", "runtime": "openvino", "threshold": 0.45}
    print_accuracy({**run, **RANGES, **found}, console)
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_accuracy_of_points(make: SimpleNamespace) -> None:
    lines = accuracy_printed(make.accuracy(position_px=None, undefined=["position_px"]))
    assert lines[0] == "p2p int8 on openvino: 4 frames, 4 targets, native, threshold 0.45"
    for line in ("Pd 99.47 %", "precision at 3 px 90.00 %", "F1 at 3 px 94.42 %"):
        assert line in lines
    assert "Fa per Mpx 1.25" in lines  # no share
    for line in ("0 to 9 3 4 75.00", "over 9 0 0 –", "0 to 1.5 1 1 100.00"):
        assert line in lines
    assert lines[-2:] == [
        "mean position error, px: undefined on these frames",
        "skipped Misc_111: mask of another size",
    ]
    assert not any("IoU" in line or "published" in line for line in lines)  # masks have those


def test_the_accuracy_of_masks(make: SimpleNamespace) -> None:
    masks = make.accuracy(iou=0.6321, niou=0.7, fa_legacy_per_mpx=3.0, skipped=[])
    lines = accuracy_printed(masks)
    assert "IoU 63.21 %" in lines
    assert "nIoU (frames with truth or prediction) 70.00 %" in lines
    assert "Fa per Mpx as published (by area value) 3.00" in lines
    assert "mean position error, px 0.40" in lines
    assert not any(line.startswith("skipped") for line in lines)


def test_every_metric_has_words(make: SimpleNamespace) -> None:
    lines = accuracy_printed(make.accuracy(**dict.fromkeys(METRICS), undefined=list(METRICS)))
    assert sum("undefined on these frames" in line for line in lines) == len(METRICS)


def verdict_printed(verdict: Verdict, on_terminal: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=80, color_system=None, force_terminal=on_terminal)
    print_verdict(verdict, ["p2p: do not ship it"], console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_verdict_names_what_did_not_simply_pass() -> None:
    verdict = Verdict(
        (
            Check("drift.iou", "p2p", "int8", "openvino", True, "fine"),
            Check("drift.f1_3px", "p2p", "int8", "openvino", False, "-0.1, lowest allowed -0.005"),
            Check("baseline.fps_ratio", "p2p", "int8", "openvino", True, "skipped: other machine"),
            Check("gate.baseline", None, None, None, False, "give --baseline [OLD]"),
        )
    )
    assert verdict_printed(verdict) == [
        "FAILED (1 passed, 2 FAILED, 1 skipped)",
        "p2p: do not ship it",
        "FAILED drift.f1_3px p2p int8 openvino: -0.1, lowest allowed -0.005",
        "skipped baseline.fps_ratio p2p int8 openvino: other machine",
        "FAILED gate.baseline: give --baseline [OLD]",
    ]


def test_a_check_is_one_line_however_long_but_on_a_terminal() -> None:
    why = "no fp32 was measured to compare it with: compile BUNDLE --variant fp32, then bench again"
    verdict = Verdict((Check("drift.entry", "p2p", "int8-fp16", "tensorrt", False, why),))
    line = f"FAILED drift.entry p2p int8-fp16 tensorrt: {why}"
    assert verdict_printed(verdict)[-1] == line
    wrapped = verdict_printed(verdict, on_terminal=True)[2:]
    assert len(wrapped) > 1 and max(map(len, wrapped)) <= 80
    assert " ".join(" ".join(wrapped).split()) == line


def test_a_strict_verdict_says_that_a_failure_was_skipped() -> None:
    check = Check("baseline.entry", "p2p", None, None, False, "skipped: it is in the baseline")
    assert verdict_printed(Verdict((check,)))[-1] == (
        "FAILED baseline.entry p2p: skipped: it is in the baseline"
    )


def test_a_verdict_that_passed_is_short() -> None:
    check = Check("drift.iou", "p2p", "int8", "openvino", True, "fine")
    assert verdict_printed(Verdict((check,))) == ["PASSED (1 passed)", "p2p: do not ship it"]


def test_layers_come_worst_first() -> None:
    figures = {"targets_lost": 1, "targets_gained": 0, "pd_at_fa": None, "sqnr_db": 31.26}
    layers = [
        {"layer": "high1.conv1", "macs": 1, "score_error": 0.001, **figures},
        {"layer": "enhance", "macs": 3, "score_error": 0.02, **figures},
    ]
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_layers(layers, console)
    assert isinstance(console.file, io.StringIO)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    rows = [line for line in lines if line.startswith(("enhance", "high1"))]
    assert rows == [
        "enhance 75.00 31.3 0.0200 1 0 –",
        "high1.conv1 25.00 31.3 0.0010 1 0 –",
    ]


def test_layers_of_a_segmentation_net_come_by_what_they_do_to_masks() -> None:
    figures = {"targets_lost": 0, "targets_gained": 0, "pd_at_fa": None, "sqnr_db": 31.26}
    layers = [
        {"layer": "first", "macs": 1, "score_error": 0.0, "mask_error": 0.001, **figures},
        {"layer": "last", "macs": 3, "score_error": 0.0, "mask_error": 0.02, **figures},
    ]
    assert [row[0] for row in layer_rows(layers)] == ["last", "first"]
    assert layer_headings(layers)[3] == "mask moves"
    assert [row[3] for row in layer_rows(layers)] == ["0.0200", "0.0010"]
