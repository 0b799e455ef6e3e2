import json
import re
from pathlib import Path
from typing import Any

import pytest

from irstd_edge.benchmarks.report import report_html
from irstd_edge.benchmarks.report_layers import BETWEEN, blocks_of
from irstd_edge.benchmarks.schema import read_sensitivity
from irstd_edge.edge.types import IrstdError

KERNELS = [
    {"layer": "/head/conv/Conv_token_1", "op": "QLinearConv", "ms": 3.0},
    {"layer": "/stem/Conv", "op": "Conv", "ms": 0.75},
    {"layer": "/head/Relu_nchwc", "op": "Conv", "ms": 0.25},
    {"layer": "VariadicSplit_7", "op": "Split", "ms": 0.5},
    {"layer": "/Relu_3", "op": "Relu", "ms": 0.125},
    {"layer": "/Relu_output_0/Quantize", "op": "QuantizeLinear", "ms": 0.125},
]
LAYERS = [
    {
        "layer": name,
        "macs": macs,
        "sqnr_db": 35.04,
        "score_error": error,
        "targets_lost": lost,
        "targets_gained": 0,
        "pd_at_fa": -0.01,
    }
    for name, macs, error, lost in (("stem", 100, 0.001, 0), ("head.conv", 300, 0.02, 2))
]


def test_kernels_add_up_to_the_blocks_that_they_are_named_after() -> None:
    assert blocks_of(KERNELS) == {"head": 3.25, "stem": 0.75, BETWEEN: 0.75}
    joined = {"layer": "//cat/3__0.0/DequantizeLinear", "op": "Concat", "ms": 0.5}  # of no block
    assert blocks_of([*KERNELS, joined])[BETWEEN] == 1.25


def test_the_page_shows_the_fastest_variants_time_beside_its_references(
    bench_json: dict[str, Any],
) -> None:
    assert "Layer by layer" not in report_html([bench_json])
    fp32, int8 = bench_json["results"][0]["variants"][2:]
    fp32["layers_ms"] = [{**kernel, "ms": 2 * kernel["ms"]} for kernel in KERNELS]
    int8["layers_ms"] = KERNELS
    page = report_html([bench_json])
    assert "Layer by layer" in page
    assert "6.50 → 3.25 ms" in page
    (label,) = re.findall(r'aria-label="(Time by block[^"]*)"', page)
    assert label == f"Time by block: head 3.25 ms; stem 0.75 ms; {BETWEEN} 0.75 ms"
    row = ["/head/conv/Conv_token_1", "int8 openvino", "QLinearConv", "3.000", "63.16"]
    cells = re.findall(r">([^<>]+)</t[hd]>", page)
    at = cells.index(row[2])
    assert cells[cells.index("3.000") - 3 :][:5] == row
    assert at > 0


def test_times_that_are_all_rounded_to_nothing_are_drawn(bench_json: dict[str, Any]) -> None:
    for each in bench_json["results"][0]["variants"]:
        each["layers_ms"] = [{**kernel, "ms": 0.0} for kernel in KERNELS]
    assert "0.00 → 0.00 ms" in report_html([bench_json])


def test_the_page_shows_what_rounding_each_layer_costs_of_the_right_bundle(
    bench_json: dict[str, Any],
) -> None:
    sha256 = bench_json["results"][0]["bundle"]
    assert "rounding one layer" not in report_html([bench_json], sensitivities={"00": LAYERS})
    page = report_html([bench_json], sensitivities={sha256: LAYERS})
    assert "Change of scores by layer: head.conv 0.0200; stem 0.0010" in page
    assert re.findall(r">([^<>]+)</t[hd]>", page)[-14:-7] == [
        *("head.conv", "75.00", "35.0", "0.0200", "2", "0", "-1.00"),
    ]


def test_layers_of_a_segmentation_net_are_drawn_by_what_they_do_to_masks(
    bench_json: dict[str, Any],
) -> None:
    sha256 = bench_json["results"][0]["bundle"]
    masks = [
        {**layer, "score_error": 0.0, "mask_error": 1 - layer["score_error"]} for layer in LAYERS
    ]
    page = report_html([bench_json], sensitivities={sha256: masks})
    assert "Change of masks by layer: stem 0.9990; head.conv 0.9800" in page
    assert "mask moves" in page and "score moves" not in page


def test_what_is_no_sensitivity_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    value = {"schema": "irstd-edge/sensitivity/2", "bundle": "ab", "layers": LAYERS}
    path.write_text(json.dumps(value))
    assert read_sensitivity(path)["layers"] == LAYERS
    path.write_text(json.dumps({**value, "layers": [{"layer": "stem"}]}))
    with pytest.raises(IrstdError, match=r"layers.json: layers\[0\]: macs is missing"):
        read_sensitivity(path)
    path.write_text("{}")
    with pytest.raises(IrstdError, match="is no sensitivity, write it by `irstd-edge sensitivity"):
        read_sensitivity(path)
