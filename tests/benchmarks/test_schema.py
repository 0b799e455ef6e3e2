import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from irstd_edge.benchmarks.schema import check_bench, read_bench, write_bench
from irstd_edge.edge.policy import MAX_BENCH_BYTES, MAX_TEXT_BYTES
from irstd_edge.edge.types import IrstdError

Bench = dict[str, Any]


def test_a_bench_of_ours_passes_as_it_is(bench_json: Bench) -> None:
    before = copy.deepcopy(bench_json)
    assert check_bench(bench_json) is bench_json
    assert bench_json == before


def test_fields_of_a_later_day_are_welcome_and_ours_beyond_the_schema_optional(
    bench_json: Bench,
) -> None:
    bench_json["results"][0]["colour"] = "red"
    for name in ("infer_ms", "weak"):
        del bench_json["results"][0]["variants"][0][name]
    check_bench(bench_json)


def projected(bench: Bench) -> None:
    bench["results"][0]["variants"][0] |= {"measured": False, "latency_ms": None, "stages_ms": None}


def no_accuracy(bench: Bench) -> None:
    bench["results"][0]["variants"][0]["accuracy"] = None


def test_curves_may_be_there_and_are_checked(bench_json: Bench) -> None:
    names = ("threshold", "precision_3px", "recall_3px", "pd", "fa_per_mpx")
    curve = dict.fromkeys(names, [0.5, 0.25]) | {"precision_3px": [0.5, None]}
    first(bench_json)["accuracy"] |= {"threshold": 0.5, "curve": curve}
    check_bench(bench_json)
    curve["pd"] = ["high", 0.0]
    with pytest.raises(IrstdError, match=r"accuracy.curve.pd\[0\]: 'high' is not a fraction"):
        check_bench(bench_json)


def test_what_a_drift_says_beyond_its_first_fields_is_checked(
    bench_json: Bench, make: SimpleNamespace
) -> None:
    drift = bench_json["results"][0]["drift"][0]
    ranges = [{"above": 6, "up_to": None, "targets": 1, "lost": 0, "gained": 0}]
    drift |= {"pd_at_fa": [make.equal_fa()], "by_scr": ranges}
    drift["reference_runtime"] = "openvino"
    drift["ci95_of"] = {"iou": None, "f1_3px": [-0.1, 0.1], "pd": None}
    check_bench(bench_json)
    del drift["pd_at_fa"][0]["pd_candidate"]
    with pytest.raises(IrstdError, match=r"pd_at_fa\[0\]: pd_candidate is missing"):
        check_bench(bench_json)


@pytest.mark.parametrize("change", [projected, no_accuracy])
def test_what_was_not_measured_is_null(bench_json: Bench, change: Callable[[Bench], None]) -> None:
    change(bench_json)
    check_bench(bench_json)


def first(bench: Bench) -> Bench:
    variant: Bench = bench["results"][0]["variants"][0]
    return variant


WRONG: list[tuple[Callable[[Bench], Any], str]] = [
    (lambda b: b.update(schema="x/2"), "b.json: schema is 'x/2', not 'irstd-edge/bench/1'"),
    (lambda b: b.pop("results"), "b.json: results is missing"),
    (lambda b: b.update(results={}), r"b.json: results: {} is not a list"),
    (lambda b: first(b).pop("fps"), r"results\[0\].variants\[0\]: fps is missing"),
    (lambda b: first(b).update(fps="<b>"), r"variants\[0\].fps: '<b>' is not a number"),
    (lambda b: first(b).update(fps=True), r"fps: True is not a number"),
    (lambda b: first(b).update(fps=float("nan")), r"fps: nan is not a number"),
    (lambda b: first(b).update(fps=0), r"fps: 0 is not a number above 0"),
    (lambda b: first(b).update(fps_end_to_end=-2), r"fps_end_to_end: -2 is not a number above 0"),
    (lambda b: first(b)["latency_ms"].update(p50=0.0), r"latency_ms.p50: 0.0 is not a number ab"),
    (lambda b: first(b)["stages_ms"].update(read=-1), r"stages_ms.read: -1 is not a number of 0"),
    (lambda b: first(b)["accuracy"].update(iou=87.5), r"accuracy.iou: 87.5 is not a fraction from"),
    (lambda b: first(b)["accuracy"].update(pd=-0.1), r"accuracy.pd: -0.1 is not a fraction from 0"),
    (lambda b: first(b).update(infer_ms=[1, 0]), r"infer_ms: \[1, 0\] is not numbers above 0"),
    (lambda b: first(b).update(range_ms=[0, 1]), r"range_ms: \[0, 1\] is not two numbers above 0"),
    (lambda b: first(b).update(load_ms="x"), r"load_ms: 'x' is not a number"),
    (lambda b: first(b).update(range_ms=[1]), r"range_ms: \[1\] is not two numbers"),
    (lambda b: b["results"][0].update(bundle=[5]), r"bundle: \[5\] is not a string"),
    (
        lambda b: b["results"][0]["cost"].update(macs=None),
        r"results\[0\].cost: of params, macs, gflops some are null",
    ),
    (lambda b: b["results"][0]["drift"][0].update(ci95=[]), r"ci95: \[\] is not two numbers"),
    (lambda b: first(b).update(measured=1), r"measured: 1 is not true or false"),
    (lambda b: first(b).update(infer_ms=[1, "2"]), r"infer_ms: \[1, '2'\] is not numbers"),
    (
        lambda b: b["results"][0]["drift"][0].update(targets_lost=-1),
        r"drift\[0\].targets_lost: -1 is not a count",
    ),
    (
        lambda b: b["results"][0]["drift"][1].update(targets_lost=0),
        r"drift\[1\]: targets_lost is 0, and 2 are listed",
    ),
    (
        lambda b: b["results"][0]["drift"][0]["targets"].clear(),
        r"drift\[0\]: targets_lost is 2, and 0 are listed",
    ),
    (
        lambda b: b["results"][0]["drift"][1]["targets"][2].update(row=None),
        r"drift\[1\].targets\[2\].row: None is not a number",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG)
def test_what_is_wrong_is_named_in_one_line(
    bench_json: Bench, spoil: Callable[[Bench], Any], message: str
) -> None:
    spoil(bench_json)
    with pytest.raises(IrstdError, match=message) as raised:
        check_bench(bench_json, "b.json")
    assert "\n" not in str(raised.value)
    assert "irstd-edge bench --json" in str(raised.value)


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_another_json_is_no_bench(value: Any) -> None:
    with pytest.raises(IrstdError, match="is no bench.json"):
        check_bench(value)


def test_a_file_is_named_in_the_error(tmp_path: Path, bench_json: Bench) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench_json))
    assert read_bench(path) == bench_json
    path.write_text("{}")
    with pytest.raises(IrstdError, match=f"^{path}: is no bench.json"):
        read_bench(path)


def test_a_target_is_a_line_and_a_bench_may_be_larger_than_other_json(
    tmp_path: Path, bench_json: Bench
) -> None:
    path = tmp_path / "bench.json"
    write_bench(path, bench_json)
    lines = [line for line in path.read_text().splitlines() if '"score_candidate"' in line]
    assert len(lines) == sum(len(d["targets"]) for d in bench_json["results"][0]["drift"])
    assert max(map(len, lines)) < 250
    path.write_text(path.read_text() + " " * MAX_TEXT_BYTES)
    assert read_bench(path) == bench_json
    with path.open("ab") as file:
        file.truncate(MAX_BENCH_BYTES + 1)  # sparse
    with pytest.raises(IrstdError, match=f"more than the {MAX_BENCH_BYTES} that are read"):
        read_bench(path)
