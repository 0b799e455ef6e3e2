"""The gate: what a bench has lost, held against limits.

Only measured variants are judged. Accuracy is compared on the same frames, speed on the same
machine; what cannot be compared is a skipped check, which fails where the gate is strict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from irstd_edge.benchmarks.accuracy import MASK_METRICS
from irstd_edge.benchmarks.bench_file import Bench, Result, Variant, bench_from_json
from irstd_edge.benchmarks.figures import (
    Figure,
    States,
    flip_figures,
    flips_between,
    is_within,
    metric_figures,
    states_of,
    worst,
)
from irstd_edge.benchmarks.limits import LOWER_IS_BETTER, Limits
from irstd_edge.benchmarks.limits import load_limits as load_limits
from irstd_edge.benchmarks.verdict import Check, Verdict


def judge(
    bench: Mapping[str, object],
    limits: Limits,
    baseline: Mapping[str, object] | None = None,
    strict: bool = False,
) -> Verdict:
    """Judge a parsed bench.json, also against an earlier one; IrstdError where one is malformed.

    A model of which nothing can be judged fails: a gate that checks nothing is not green. So does
    a variant that finds no target: it has none to lose.
    """
    new = bench_from_json(bench)
    old = None if baseline is None else bench_from_json(baseline, "--baseline")
    checks: list[Check] = []
    for result in new.results:
        own = [*_drift_checks(result, limits.drift), *_floor_checks(result, limits.floor)]
        if old is not None:
            own += _baseline_checks(result, new, old, limits.baseline)
        own += _finds_nothing(result)
        if all(check.skipped for check in own):
            own.append(_nothing_checked(result))
        checks += own
    checks += _general_checks(new, old, limits)
    if strict:
        checks = [replace(check, passed=check.passed and not check.skipped) for check in checks]
    return Verdict(tuple(checks))


@dataclass(frozen=True)
class _Subject:
    """Whom a check is about, and the section of gate.toml that has its limit."""

    section: str
    model: str | None = None
    variant: str | None = None
    runtime: str | None = None

    def check(self, name: str, passed: bool, why: str, **values: float | None) -> Check:
        title = f"{self.section}.{name}"
        return Check(title, self.model, self.variant, self.runtime, passed, why, **values)

    def skip(self, name: str, why: str) -> Check:
        return self.check(name, True, f"skipped: {why}")

    def changes(self, figures: Mapping[str, Figure], limits: Mapping[str, float]) -> list[Check]:
        return [self._change(name, figure, limits[name]) for name, figure in figures.items()]

    def _change(self, name: str, figure: Figure, limit: float) -> Check:
        values = {"reference": figure.before, "candidate": figure.after, "limit": limit}
        if not figure.changes:
            why = "is undefined: no target, or nothing detected; bench on labelled frames"
            return self.check(name, False, why, **values)
        change = worst(figure.changes, name)
        bound = "highest" if name in LOWER_IS_BETTER else "lowest"
        sides = (figure.before, figure.after)
        shown = "" if None in sides else "{:.4g} -> {:.4g}: ".format(*sides)
        why = f"{shown}{change:+.4g}, {bound} allowed {limit:+.4g}"
        return self.check(name, is_within(change, limit, name), why, **values)


def _drift_checks(result: Result, limits: Mapping[str, float]) -> Iterator[Check]:
    judged = set()
    for entry in result.drifts:
        candidate = result.find(entry.candidate, entry.runtime)
        reference = result.find(entry.reference, entry.runtime)
        if candidate is None:
            continue
        judged.add((entry.candidate, entry.runtime))
        before, after = (side.accuracy if side else None for side in (reference, candidate))
        flips = (entry.targets_lost, entry.targets_gained)
        targets = after.targets if after else len(entry.targets)
        subject = _Subject("drift", result.model, entry.candidate, entry.runtime)
        figures = flip_figures(before, after, targets, flips)
        figures |= metric_figures(before, after, entry.changes)
        yield from subject.changes(figures, limits)
    references = {entry.reference for entry in result.drifts}
    for variant in result.measured:
        if variant.name not in references and (variant.name, variant.runtime) not in judged:
            subject = _Subject("drift", result.model, variant.name, variant.runtime)
            yield subject.skip("entry", "the bench has no drift entry of it; bench with --data")


def _floor_checks(result: Result, limits: Mapping[str, float]) -> Iterator[Check]:
    """Of every measured variant but those that only serve as a reference."""
    candidates = {(entry.candidate, entry.runtime) for entry in result.drifts}
    references = {(entry.reference, entry.runtime) for entry in result.drifts} - candidates
    for variant in result.measured:
        if (variant.name, variant.runtime) in references:
            continue
        subject = _Subject("floor", result.model, variant.name, variant.runtime)
        for name, limit in limits.items():
            if not _is_inapplicable(variant, name):
                yield _floor_check(subject, variant, name, limit)


def _is_inapplicable(variant: Variant, name: str) -> bool:
    accuracy = variant.accuracy
    if accuracy is None or name not in MASK_METRICS:
        return False
    return accuracy.metrics[name] is None and name not in accuracy.undefined


def _floor_check(subject: _Subject, variant: Variant, name: str, limit: float) -> Check:
    value = variant.figure(name)
    bound = "highest" if name in LOWER_IS_BETTER else "lowest"
    if value is None:
        why = "was not measured or is undefined; bench on labelled frames with --data"
        return subject.check(name, False, why, limit=limit)
    why = f"{value:.4g}, {bound} allowed {limit:.4g}"
    return subject.check(name, is_within(value, limit, name), why, candidate=value, limit=limit)


def _baseline_checks(
    result: Result, new: Bench, old: Bench, limits: Mapping[str, float]
) -> Iterator[Check]:
    earlier = old.counterpart(new, result)
    for variant in result.measured:
        subject = _Subject("baseline", result.model, variant.name, variant.runtime)
        known = earlier.like(variant) if earlier else None
        if earlier is None or known is None:
            yield subject.skip("entry", "the baseline has not measured it")
            continue
        yield _speed_check(subject, known, variant, limits["fps_ratio"], new.same_machine(old))
        states = tuple(states_of(each, variant.name, variant.runtime) for each in (earlier, result))
        yield from _accuracy_checks(subject, known, variant, states, limits)
    for variant in earlier.measured if earlier else ():
        if result.like(variant) is None:
            subject = _Subject("baseline", result.model, variant.name, variant.runtime)
            yield subject.skip("entry", "it is in the baseline but was not measured now")


def _speed_check(
    subject: _Subject, old: Variant, new: Variant, limit: float, same_machine: bool
) -> Check:
    if not same_machine:
        return subject.skip("fps_ratio", "the baseline is from another machine")
    if not old.fps or new.fps is None:
        return subject.skip("fps_ratio", "the speed was not measured on both sides")
    ratio = new.fps / old.fps
    why = f"{old.fps:.4g} -> {new.fps:.4g} fps: {ratio:.3g} of it, lowest allowed {limit:.3g}"
    passed = is_within(ratio, limit, "fps_ratio")
    return subject.check(
        "fps_ratio", passed, why, reference=old.fps, candidate=new.fps, limit=limit
    )


def _accuracy_checks(
    subject: _Subject,
    old: Variant,
    new: Variant,
    states: tuple[States | None, ...],
    limits: Mapping[str, float],
) -> Iterator[Check]:
    before, after = old.accuracy, new.accuracy
    if before is None or after is None:
        yield subject.skip("accuracy", "it was not measured on both sides")
        return
    places = [[place for place, _ in each] for each in states if each is not None]
    if not before.same_frames(after) or any(each != places[0] for each in places):
        yield subject.skip("accuracy", "the baseline is of other frames")
        return
    flips = flips_between(*states)
    if flips is None:
        yield subject.skip("targets_flipped", "a file does not say which targets were found")
    figures = flip_figures(before, after, after.targets, flips) | metric_figures(before, after)
    yield from subject.changes(figures, limits)


def _finds_nothing(result: Result) -> Iterator[Check]:
    """A failed check for each variant that was shown frames and found no target in them."""
    for variant in result.measured:
        accuracy = variant.accuracy
        if accuracy is None or accuracy.found:
            continue
        why = "the data has no targets; bench on labelled frames"
        if accuracy.targets:
            why = f"finds none of {accuracy.targets} targets; give a detector that was trained"
        subject = _Subject("gate", result.model, variant.name, variant.runtime)
        yield subject.check("empty", False, why)


def _nothing_checked(result: Result) -> Check:
    why = "nothing to judge: no drift entry, no floor, no comparable baseline of a measured variant"
    return _Subject("gate", result.model).check("empty", False, f"{why}; bench with --data")


def _general_checks(new: Bench, old: Bench | None, limits: Limits) -> Iterator[Check]:
    gate = _Subject("gate")
    if not new.results:
        yield gate.check("empty", False, "nothing to judge: the bench has no results")
    if limits.baseline_asked and old is None:
        why = "gate.toml has a section [baseline]; give --baseline OLD.json"
        yield gate.check("baseline", False, why)
    models = {result.model for result in new.results}
    for result in old.results if old else ():
        if result.model not in models:
            gone = _Subject("baseline", result.model)
            yield gone.skip("entry", "the model is in the baseline but not in the bench")
