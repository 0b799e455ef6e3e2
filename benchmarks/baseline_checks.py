"""The gate's checks of a variant against itself in an earlier bench."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from irstd_edge.benchmarks.bench_file import Result, Variant
from irstd_edge.benchmarks.counterparts import Counterparts
from irstd_edge.benchmarks.figures import (
    States,
    flip_figures,
    flips_between,
    is_within,
    metric_figures,
    states_of,
)
from irstd_edge.benchmarks.subject import Subject, subject_of
from irstd_edge.benchmarks.verdict import Check


def baseline_checks(
    result: Result, benches: Counterparts, limits: Mapping[str, float]
) -> Iterator[Check]:
    """Of every variant that was measured; one that the baseline has not measured is skipped.

    A bundle that may be any of several in the baseline fails.
    """
    if benches.is_unclear(result):
        yield _unclear_check(result, benches)
        return
    earlier, same_machine = benches.of(result), benches.new.same_machine(benches.old)
    sizes = (earlier.input if earlier else (), result.input)
    for variant in result.measured:
        subject = subject_of("baseline", result, variant.name, variant.runtime)
        known = earlier.like(variant) if earlier else None
        if earlier is None or known is None:
            yield subject.skip("entry", "the baseline has not measured it")
            continue
        incomparable = _incomparable(sizes, (known, variant), same_machine)
        yield _speed_check(subject, known, variant, limits["fps_ratio"], incomparable)
        states = tuple(states_of(each, variant.name, variant.runtime) for each in (earlier, result))
        yield from _accuracy_checks(subject, known, variant, states, limits)
    for variant in earlier.measured if earlier else ():
        if result.like(variant) is None:
            subject = subject_of("baseline", result, variant.name, variant.runtime)
            yield subject.skip("entry", "it is in the baseline but was not measured now")


def _unclear_check(result: Result, benches: Counterparts) -> Check:
    now, before = (len(each) for each in benches.changed(result.model))
    why = (
        f"nothing tells which bundle of the baseline it is: {before} of {result.model} are in the "
        f"baseline alone, {now} in the bench alone; bench as many bundles, or accept this bench as "
        "the baseline"
    )
    return subject_of("baseline", result).check("entry", False, why)


def gone_checks(benches: Counterparts) -> Iterator[Check]:
    """A skipped check for each bundle of the baseline that was not measured now."""
    for earlier in benches.gone():
        why = "the model is in the baseline but not in the bench"
        if benches.new.of(earlier.model):
            why = f"bundle {earlier.place} of the baseline is not in the bench"
        yield Subject("baseline", earlier.model).skip("entry", why)


def _incomparable(
    sizes: tuple[tuple[float, ...], ...], sides: tuple[Variant, Variant], same_machine: bool
) -> str | None:
    """Why the speeds of two benches say nothing of each other."""
    was, now = ("x".join(f"{side:g}" for side in size[-2:]) for size in sizes)
    old, new = sides
    if not same_machine:
        return "the baseline is from another machine"
    if sizes[0] != sizes[1]:
        return f"the baseline was timed at {was}, this at {now}"
    if old.batch != new.batch:
        return f"the baseline was timed in batches of {old.batch}, this in batches of {new.batch}"
    return None


def _speed_check(
    subject: Subject, old: Variant, new: Variant, limit: float, incomparable: str | None
) -> Check:
    if incomparable:
        return subject.skip("fps_ratio", incomparable)
    if not old.fps or new.fps is None:
        return subject.skip("fps_ratio", "the speed was not measured on both sides")
    ratio = new.fps / old.fps
    why = f"{old.fps:.4g} -> {new.fps:.4g} fps: {ratio:.3g} of it, lowest allowed {limit:.3g}"
    passed = is_within(ratio, limit, "fps_ratio")
    return subject.check(
        "fps_ratio", passed, why, reference=old.fps, candidate=new.fps, limit=limit
    )


def _accuracy_checks(
    subject: Subject,
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
