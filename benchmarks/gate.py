"""The gate: what a bench has lost, held against limits.

Only measured variants are judged. Accuracy is compared on the same frames, speed on the same
machine; what cannot be compared is a skipped check, which fails where the gate is strict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from irstd_edge.benchmarks.accuracy import MASK_METRICS
from irstd_edge.benchmarks.baseline_checks import baseline_checks, gone_checks
from irstd_edge.benchmarks.bench_file import Bench, Result, Variant, bench_from_json
from irstd_edge.benchmarks.counterparts import Counterparts
from irstd_edge.benchmarks.drift_checks import drift_checks, is_reference_alone
from irstd_edge.benchmarks.figures import is_within, told
from irstd_edge.benchmarks.limits import COSTS, LOWER_IS_BETTER, Limits
from irstd_edge.benchmarks.plan import REFERENCE
from irstd_edge.benchmarks.subject import Subject, subject_of
from irstd_edge.benchmarks.verdict import Check, Verdict


def judge(
    bench: Mapping[str, object],
    limits: Limits,
    baseline: Mapping[str, object] | None = None,
    strict: bool = False,
    together: Sequence[Mapping[str, object]] = (),
) -> Verdict:
    """Judge a parsed bench.json, also against an earlier one; IrstdError where one is malformed.

    together: benches of one report; what any of them measured is not gone from the earlier one.
    A model of which nothing can be judged fails: a gate that checks nothing is not green. So does
    a variant that finds no target: it has none to lose.
    """
    new = bench_from_json(bench)
    old = None if baseline is None else bench_from_json(baseline, "--baseline")
    checks: list[Check] = []
    others = [result for each in together for result in bench_from_json(each).results]
    measured = [variant for result in new.results for variant in result.measured]
    masked = any(not _is_of_points(variant) for variant in measured)
    for result in new.results:
        own = [*drift_checks(result, limits), *_floor_checks(result, limits, masked)]
        if old is not None:
            own += baseline_checks(result, Counterparts(new, old), limits, others)
        own += _finds_nothing(result)
        if all(check.skipped for check in own):
            own.append(_nothing_checked(result))
        checks += own
    checks += _general_checks(new, old, limits)
    if old is not None:
        checks += gone_checks(Counterparts(replace(new, results=(*new.results, *others)), old))
    if strict:
        checks = [replace(check, passed=check.passed and not check.skipped) for check in checks]
    return Verdict(tuple(checks))


def _floor_checks(result: Result, limits: Limits, masked: bool) -> Iterator[Check]:
    """Of every measured variant but those that only serve as a reference.

    masked: the bench has masks. Then a floor of masks is skipped for points; else nothing answers
    it, and it fails.
    """
    for variant in result.measured:
        if _is_reference(variant, result):
            continue
        subject = subject_of("floor", result, variant.name, variant.runtime)
        for name, limit in limits.floor_of(variant.runtime).items():
            if name not in MASK_METRICS or not _is_of_points(variant):
                yield _floor_check(subject, variant, name, limit)
            elif masked:
                yield subject.skip(name, f"points have no {name}")
            else:
                why = (
                    f"points have no {name}, and nothing else was measured; take it out of [floor]"
                )
                yield subject.check(name, False, why, limit=limit)


def _is_reference(variant: Variant, result: Result) -> bool:
    """Whether another variant is held against it, or could be: FP32 with another on its runtime."""
    who = (variant.name, variant.runtime)
    if who in {(entry.candidate, entry.runtime) for entry in result.drifts}:
        return False
    beside = {v.name for v in result.measured if v.runtime == variant.runtime} - {variant.name}
    referred = {(entry.reference, entry.reference_runtime) for entry in result.drifts}
    return who in referred or (variant.name == REFERENCE and bool(beside))


def _is_of_points(variant: Variant) -> bool:
    """Whether detector or labels are points, so that no metric of masks applies."""
    accuracy = variant.accuracy
    return accuracy is not None and all(
        accuracy.metrics[name] is None and name not in accuracy.undefined for name in MASK_METRICS
    )


def _floor_check(subject: Subject, variant: Variant, name: str, limit: float) -> Check:
    value = variant.figure(name)
    bound = "highest" if name in LOWER_IS_BETTER else "lowest"
    if value is None:
        why = "was not measured or is undefined; bench on labelled frames with --data"
        if name in COSTS:
            why = f"was not measured; {COSTS[name]}, or take it out of [floor]"
        return subject.check(name, False, why, limit=limit)
    found, allowed = told(value, limit)
    why = f"{found}, {bound} allowed {allowed}"
    return subject.check(name, is_within(value, limit, name), why, candidate=value, limit=limit)


def _finds_nothing(result: Result) -> Iterator[Check]:
    """A failed check for each variant that was shown frames and found no target in them."""
    for variant in result.measured:
        accuracy = variant.accuracy
        if accuracy is None or accuracy.found or (accuracy.targets and accuracy.found is None):
            continue
        why = "the data has no targets; bench on labelled frames"
        if accuracy.targets:
            why = f"finds none of {accuracy.targets} targets; give a detector that was trained"
        subject = subject_of("gate", result, variant.name, variant.runtime)
        yield subject.check("empty", False, why)


def _nothing_checked(result: Result) -> Check:
    why = "no drift entry, no floor, no comparable baseline of a measured variant"
    fix = "bench with --data"
    if result.variants and not result.measured:
        why, fix = "this is a projection", "measure on the board, or from here with bench --host"
    if is_reference_alone(result):
        why, fix = f"{REFERENCE} alone", "bench a cheaper variant beside it, or set a [floor]"
    return subject_of("gate", result).check("empty", False, f"nothing to judge: {why}; {fix}")


def _general_checks(new: Bench, old: Bench | None, limits: Limits) -> Iterator[Check]:
    gate = Subject("gate")
    measured = {variant.runtime for result in new.results for variant in result.measured}
    asked = (on for (on, _), limit in limits.floor_on.items() if not math.isinf(limit))
    for runtime in dict.fromkeys(asked):
        if runtime not in measured:
            why = f"gate.toml has a section [floor.{runtime}], and nothing was measured on it"
            yield gate.check("floor", False, f"{why}; bench with --runtime {runtime}")
    if not new.results:
        yield gate.check("empty", False, "nothing to judge: the bench has no results")
    if limits.baseline_asked and old is None:
        why = "gate.toml has a section [baseline]; give --baseline OLD.json"
        yield gate.check("baseline", False, why)
