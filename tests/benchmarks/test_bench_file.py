from typing import Any

import pytest
from gate_benches import Change, Make, entry, int8

from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.limits import Limits
from irstd_edge.edge.types import IrstdError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: b.update(schema="irstd-edge/bench/2"),
            "BENCH.json: schema is 'irstd-edge/bench/2",
        ),
        (lambda b: b.pop("schema"), "BENCH.json: is no bench.json; give the file of"),
        (lambda b: b.pop("results"), "BENCH.json: results is missing"),
        (lambda b: b.update(results={}), "BENCH.json: results: {} is not a list"),
        (lambda b: b.update(machine=None), "BENCH.json: machine: None is not an object"),
        (lambda b: b["results"].append(3), r"BENCH.json: results\[1\]: 3 is not an object"),
        (lambda b: b["results"][0].pop("drift"), r"BENCH.json: results\[0\]: drift is missing"),
        (lambda b: int8(b).pop("fps"), r"results\[0\].variants\[1\]: fps is missing"),
        (lambda b: int8(b).update(fps="fast"), r"variants\[1\].fps: 'fast' is not a number"),
        (lambda b: int8(b).update(fps=float("nan")), r"variants\[1\].fps: nan is not a number"),
        (lambda b: int8(b).update(measured=1), r"variants\[1\].measured: 1 is not true or false"),
        (lambda b: int8(b)["accuracy"].pop("undefined"), r"accuracy: undefined is missing"),
        (lambda b: int8(b)["accuracy"].update(targets=-1), r"accuracy.targets: -1 is not a count"),
        (
            lambda b: entry(b).update(targets_lost=0.5),
            r"drift\[0\].targets_lost: 0.5 is not a count",
        ),
        (lambda b: entry(b).update(iou="0"), r"drift\[0\].iou: '0' is not a number"),
        (lambda b: entry(b)["targets"][3].pop("image"), r"targets\[3\]: image is missing"),
        (
            lambda b: entry(b)["targets"][3].update(image=4),
            r"targets\[3\].image: 4 is not a string",
        ),
    ],
)
def test_a_malformed_bench_is_named_in_one_line(
    make_bench: Make, change: Change, message: str
) -> None:
    with pytest.raises(IrstdError, match=message) as caught:
        judge(make_bench(change=change), Limits())
    assert "\n" not in str(caught.value)
    with pytest.raises(IrstdError, match="--baseline: "):
        judge(make_bench(), Limits(), make_bench(change=change))


@pytest.mark.parametrize("value", [None, [], 3, "bench"])
def test_what_is_no_object_is_no_bench(value: Any) -> None:
    with pytest.raises(IrstdError, match="BENCH.json: is no bench.json; give"):
        judge(value, Limits())
