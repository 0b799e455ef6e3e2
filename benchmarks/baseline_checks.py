"""The gate's checks of a variant against itself in an earlier bench."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from irstd_edge.benchmarks.asked_checks import pd_check, range_checks, unanswered
from irstd_edge.benchmarks.bench_file import Result, Variant
from irstd_edge.benchmarks.counterparts import Counterparts
from irstd_edge.benchmarks.figures import (
    States,
    equal_fa_between,
    flip_figures,
    flips_between,
    is_within,
    lost_between,
    metric_figures,
    states_of,
)
from irstd_edge.benchmarks.limits import Limits
from irstd_edge.benchmarks.subject import Subject, subject_of
from irstd_edge.benchmarks.verdict import Check
from irstd_edge.edge.clocks import LOCK


def baseline_checks(
    result: Result, benches: Counterparts, limits: Limits, others: Sequence[Result] = ()
) -> Iterator[Check]:
    """Of every variant that was measured; one that the baseline has not measured is skipped.

    A bundle that may be any of several in the baseline fails. others: of the benches beside it;
    what they measured of the bundle is not gone.
    """
    if benches.is_unclear(result):
        yield _unclear_check(result, benches)
        return
    earlier, same_machine = benches.of(result), benches.new.same_machine(benches.old)
    sizes = (earlier.input if earlier else (), result.input)
    apart = _machines_apart(benches)
    for variant in result.measured:
        subject = subject_of("baseline", result, variant.name, variant.runtime)
        known = earlier.like(variant) if earlier else None
        if earlier is None or known is None:
            yield subject.skip("entry", "the baseline has not measured it")
            continue
        incomparable = apart or _timed_apart(sizes, (known, variant))
        yield _speed_check(subject, known, variant, limits.baseline["fps_ratio"], incomparable)
        states = tuple(states_of(each, variant.name, variant.runtime) for each in (earlier, result))
        yield from _accuracy_checks(subject, known, variant, states, limits)
    bundle = [result, *(o for o in others if (o.model, o.bundle) == (result.model, result.bundle))]
    for variant in earlier.measured if earlier else ():
        if not any(each.like(variant) for each in bundle):
            subject = subject_of("baseline", result, variant.name, variant.runtime)
            why = "it is in the baseline but was not measured now"
            if same_machine:  # where it could be measured before
                fix = "measure it, or accept this bench as the baseline"
                yield subject.check("entry", False, f"{why}, on the same machine; {fix}")
            else:
                yield subject.skip("entry", why)


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


def _machines_apart(benches: Counterparts) -> str | None:
    """Why no speed of one bench says anything of the other's."""
    if not benches.new.same_machine(benches.old):
        return "the baseline is from another machine"
    was, now = benches.old.clocks_locked, benches.new.clocks_locked
    if was != now and None not in (was, now):
        states = ("locked", "not locked") if was else ("not locked", "locked")
        return f"clocks were {states[0]} for the baseline and are {states[1]} now: {LOCK}"
    return None


def _timed_apart(
    sizes: tuple[tuple[float, ...], ...], sides: tuple[Variant, Variant]
) -> str | None:
    """Why the speed of one variant says nothing of the other's."""
    was, now = ("x".join(f"{side:g}" for side in size[-2:]) for size in sizes)
    old, new = sides
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
    was, now = old.runtime_version, new.runtime_version
    if was != now and None not in (was, now):
        why += f"; {new.runtime} {was} -> {now}"
    passed = is_within(ratio, limit, "fps_ratio")
    return subject.check(
        "fps_ratio", passed, why, reference=old.fps, candidate=new.fps, limit=limit
    )


def _accuracy_checks(
    subject: Subject,
    old: Variant,
    new: Variant,
    states: tuple[States | None, ...],
    limits: Limits,
) -> Iterator[Check]:
    """What a gate.toml alone asks for fails where the two benches cannot answer."""
    before, after = old.accuracy, new.accuracy
    if before is None or after is None:
        yield from _not_compared(subject, "it was not measured on both sides", limits)
        return
    places = [[row.place for row, _ in each] for each in states if each is not None]
    if not before.same_frames(after) or any(each != places[0] for each in places):
        yield from _not_compared(subject, "the baseline is of other frames", limits)
        return
    flips, lost = flips_between(*states), lost_between(*states)
    why = "a file does not say which targets were found"
    if flips is None:
        yield subject.skip("targets_flipped", why)
    figures = flip_figures(before, after, after.targets, flips) | metric_figures(before, after)
    yield from subject.changes(figures, limits.baseline)
    if "pd_at_fa" in limits.baseline:
        missing = (
            "a file has no curve to compare Pd by at equal false alarms, or no threshold brings a "
            "mask's down to those of the baseline; bench both anew, or limit fa_per_mpx"
        )
        at = equal_fa_between(before, after)
        yield pd_check(subject, at, limits.baseline["pd_at_fa"], missing)
    if lost is None:
        yield from unanswered(subject, why, {}, limits.baseline_lost)
    else:
        yield from range_checks(subject, lost, limits.baseline_lost)


def _not_compared(subject: Subject, why: str, limits: Limits) -> Iterator[Check]:
    yield subject.skip("accuracy", why)
    yield from unanswered(subject, why, limits.baseline, limits.baseline_lost)
