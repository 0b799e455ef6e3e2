from typing import Any

import pytest

from irstd_edge.benchmarks.comparison import (
    COLUMNS,
    cost_of,
    fixed,
    percent,
    rows_of,
    signed,
    size_of,
)


def test_a_variant_is_compared_with_fp32_on_its_own_runtime(bench_json: dict[str, Any]) -> None:
    rows = rows_of(bench_json["results"][0])
    assert [row.label for row in rows] == [
        "fp32 onnxruntime",
        "int8 onnxruntime",
        "fp32 openvino",
        "int8 openvino",
    ]
    assert [row.speed_up for row in rows] == [1.0, 1.5, 1.0, 2.5]
    assert [row.flips() for row in rows] == ["–", "−2 +1", "–", "−2 +1"]
    bench_json["results"][0]["drift"][1] |= {"targets_lost": 0, "targets_gained": 0}
    assert rows[3].flips() == "none"


def test_without_fp32_or_times_there_is_no_speed_up(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    result["variants"] = [
        result["variants"][1],
        {**result["variants"][2], "latency_ms": None},
        result["variants"][3],
    ]
    assert [row.speed_up for row in rows_of(result)] == [None, None, None]


def test_masks_are_masks_where_their_iou_is_undefined(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    result["variants"][0]["accuracy"] |= {"iou": None, "undefined": ["iou"], "fa_per_mpx": 0.0}
    result["variants"][1]["accuracy"] |= {"iou": None, "undefined": [], "fa_per_mpx": 1.5}
    cells = [[COLUMNS[name].text(row) for name in ("fa", "fa_px")] for row in rows_of(result)[:2]]
    assert cells == [["–", "0.00"], ["1.50", "–"]]


@pytest.mark.parametrize(("rate_hz", "text"), [(50.0, "50"), (0.5, "0.5"), (None, "–")])
def test_a_slow_rate_is_no_rate_of_zero(
    bench_json: dict[str, Any], rate_hz: float | None, text: str
) -> None:
    result = bench_json["results"][0]
    result["variants"][0]["pace"] = None if rate_hz is None else {"rate_hz": rate_hz}
    assert COLUMNS["rate"].text(rows_of(result)[0]) == text


def test_a_projection_never_passes_for_a_measurement(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    result["variants"][1] |= {"measured": False, "device": "orin-nano-8gb"}
    row = rows_of(result)[1]
    assert row.where == "onnxruntime, orin-nano-8gb, projected"
    assert row.reference is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fixed(1234.56, 1), "1,234.6"),
        (fixed(None, 1), "–"),
        (percent(0.94421), "94.42"),
        (percent(None), "–"),
        (signed(-0.214, 2), "−0.21"),
        (signed(0.5, 2), "+0.50"),
        (signed(-0.0001, 2), "+0.00"),
        (signed(None, 2), "–"),
        (size_of(1_040_000), "1.04 MB"),
        (size_of(310_400), "310 kB"),
        (size_of(None), "–"),
    ],
)
def test_numbers_are_written_for_people(text: str, expected: str) -> None:
    assert text == expected


def test_the_cost_states_its_convention(bench_json: dict[str, Any]) -> None:
    cost = bench_json["results"][0]["cost"]
    assert cost_of(cost) == (
        "240,366 parameters, 1.530 GMACs = 3.060 GFLOPs (2 per MAC) at 1×1×256×256"
    )
    assert "(2 per MAC), 12.50 MB of activations written at 1×1" in cost_of(
        {**cost, "activation_bytes": 12_500_000}
    )
    nothing = dict.fromkeys(("params", "macs", "gflops"))
    uncounted = {**cost, **nothing, "not_counted": "onnx is missing"}
    assert cost_of(uncounted) == "not counted at 1×1×256×256: onnx is missing"
