import io
from typing import Any

import pytest
from rich.console import Console

from irstd_edge.benchmarks.table import print_table


def printed(bench: dict[str, Any], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(bench, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_every_variant_with_its_numbers(bench_json: dict[str, Any], width: int) -> None:
    text = printed(bench_json, width)

    assert max(map(len, text.splitlines())) <= width
    for words in ("p2p", "onnxruntime", "openvino", "94.21", "99.47", "1.25", "−2 +1"):
        assert words in text
    for words in ("~20.0", "50.0", "45.5", "2.50×", "310 kB", "1.04 MB"):
        assert words in text
    for words in ("F1 3px", "IoU", "Pd", "Fa", "p50", "FPS", "end to end", "speed-up", "size"):
        assert words in text
    assert "1.530 GMACs = 3.060 GFLOPs (2 per MAC)" in text
    assert "…" not in text


def test_a_wide_terminal_has_a_row_per_variant(bench_json: dict[str, Any]) -> None:
    (line,) = [line for line in printed(bench_json, 160).splitlines() if "~20.0" in line]
    assert line.split() == [
        *("int8", "openvino", "94.21", "–", "99.47", "1.25", "−2", "+1"),
        *("~20.0", "50.0", "45.5", "2.50×", "310", "kB"),
    ]


def test_weak_numbers_and_missing_ones_are_explained(bench_json: dict[str, Any]) -> None:
    bench_json["results"][0]["variants"][3]["not_measured"] = "no INA3221 on this board"
    text = " ".join(printed(bench_json, 80).split())
    assert "spreads over 13% of p50 (int8 openvino)" in text
    assert "p99 of 4 samples, 100 are needed (fp32 onnxruntime, int8 onnxruntime," in text
    assert "int8 openvino: no INA3221 on this board" in text


def test_a_bench_without_data_has_no_accuracy(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    result["drift"] = []
    for variant in result["variants"]:
        variant["accuracy"] = None
    assert "94" not in printed(bench_json, 80)


def test_markup_in_a_name_is_text(bench_json: dict[str, Any]) -> None:
    bench_json["results"][0]["model"] = "[red]p2p[/red][/nothing]"
    assert "[red]p2p[/red][/nothing]" in printed(bench_json, 80)
