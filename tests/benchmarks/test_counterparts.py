from copy import deepcopy

import pytest
from gate_benches import Json, Make, failed, int8, skipped

from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.limits import Limits


def test_two_bundles_of_a_model_meet_their_own_baselines(make_bench: Make) -> None:
    bench, slow = make_bench(), make_bench()
    int8(slow)["fps"] = 20.0
    bench["results"] += slow["results"]
    assert judge(bench, Limits(), deepcopy(bench), strict=True).passed
    swapped = deepcopy(bench)
    swapped["results"].reverse()
    (slower,) = [c for c in judge(bench, Limits(), swapped).checks if not c.passed]
    assert (slower.name, slower.model, slower.place) == ("baseline.fps_ratio", "mshnet", 2)
    alone = judge(make_bench(), Limits(), make_bench())
    assert {check.place for check in alone.checks} == {None}


@pytest.fixture
def of_bundles(make_bench: Make) -> Make:
    """`of_bundles(a=29.0, b=15.0)`: bundles of one model, by name, and INT8's speed of each."""

    def made(**fps: float | None) -> Json:
        bench = make_bench()
        bench["results"] = []
        for name, speed in fps.items():
            result = make_bench(change=lambda each, speed=speed: int8(each).update(fps=speed))
            bench["results"] += [result["results"][0] | {"bundle": 64 * name}]
        return bench

    return made


def test_a_bundle_is_held_against_itself_wherever_it_stands(of_bundles: Make) -> None:
    old = of_bundles(a=10.0, b=30.0)
    assert failed(judge(of_bundles(b=15.0), Limits(), old)) == ["baseline.fps_ratio"]
    assert judge(of_bundles(b=30.0, a=10.0), Limits(), old, strict=True).passed
    (check,) = [c for c in judge(of_bundles(c=30.0, a=5.0), Limits(), old).checks if not c.passed]
    assert (check.name, check.place, check.reference) == ("baseline.fps_ratio", 2, 10.0)


def test_a_bundle_that_was_made_anew_takes_the_place_of_the_one_it_replaced(
    of_bundles: Make,
) -> None:
    assert failed(judge(of_bundles(b=15.0), Limits(), of_bundles(a=30.0))) == ["baseline.fps_ratio"]
    two = judge(of_bundles(c=10.0, d=15.0), Limits(), of_bundles(a=10.0, b=30.0))
    assert [(c.name, c.place) for c in two.checks if not c.passed] == [("baseline.fps_ratio", 2)]
    unnamed = of_bundles(a=30.0)
    del unnamed["results"][0]["bundle"]
    assert failed(judge(of_bundles(a=15.0), Limits(), unnamed)) == ["baseline.fps_ratio"]


def test_a_bundle_that_may_be_either_of_two_is_red(of_bundles: Make) -> None:
    verdict = judge(of_bundles(c=29.0), Limits(), of_bundles(a=29.0, b=29.0))
    (check,) = [check for check in verdict.checks if not check.passed]
    assert (check.name, check.model, check.variant) == ("baseline.entry", "mshnet", None)
    assert check.why == (
        "nothing tells which bundle of the baseline it is: 2 of mshnet are in the baseline alone, "
        "1 in the bench alone; bench as many bundles, or accept this bench as the baseline"
    )
    more = judge(of_bundles(c=29.0, d=29.0), Limits(), of_bundles(a=29.0))
    assert failed(more) == ["baseline.entry"] * 2


def test_a_bundle_that_was_added_or_left_out_is_skipped_and_said_so(of_bundles: Make) -> None:
    added = judge(of_bundles(a=29.0, b=1.0), Limits(), of_bundles(a=29.0))
    assert added.passed and skipped(added) == ["baseline.entry"] * 2
    gone = judge(of_bundles(b=29.0), Limits(), of_bundles(a=29.0, b=29.0))
    (check,) = [check for check in gone.checks if check.skipped]
    assert check.why == "skipped: bundle 1 of the baseline is not in the bench"


def test_what_another_bench_of_the_report_measured_is_not_gone(
    make_bench: Make, of_bundles: Make
) -> None:
    old = of_bundles(a=29.0, b=29.0)
    old["results"] += make_bench("p2p")["results"]
    benches = [of_bundles(a=29.0), make_bench("p2p")]
    for bench in benches:
        verdict = judge(bench, Limits(), old, together=benches)
        gone = [c for c in verdict.checks if c.variant is None and c.name == "baseline.entry"]
        assert [(check.model, check.why) for check in gone] == [
            ("mshnet", "skipped: bundle 2 of the baseline is not in the bench")
        ]
    benches.append(of_bundles(b=29.0))
    assert not [
        check
        for bench in benches
        for check in judge(bench, Limits(), old, together=benches).checks
        if check.variant is None
    ]


def test_what_another_bench_of_the_report_measured_of_a_bundle_is_not_gone(
    of_bundles: Make,
) -> None:
    old = of_bundles(a=29.0)
    fp32_alone = deepcopy(old)
    fp32_alone["results"][0] |= {"variants": old["results"][0]["variants"][:1], "drift": []}
    alone = judge(fp32_alone, Limits(), old)
    assert [c.variant for c in alone.checks if c.name == "baseline.entry"] == ["int8"]
    beside = judge(fp32_alone, Limits(), old, together=[fp32_alone, old])
    assert "baseline.entry" not in {check.name for check in beside.checks}
    other = of_bundles(b=29.0)
    apart = judge(fp32_alone, Limits(), old, together=[fp32_alone, other])
    assert apart.checks == alone.checks
