"""The gate's checks of a candidate against the reference of its bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from irstd_edge.benchmarks.bench_file import Drift, Result, Variant
from irstd_edge.benchmarks.figures import flip_figures, is_within, metric_figures
from irstd_edge.benchmarks.limits import Limits
from irstd_edge.benchmarks.subject import Subject, subject_of
from irstd_edge.benchmarks.verdict import Check


def drift_checks(result: Result, limits: Limits) -> Iterator[Check]:
    """Of every candidate that was measured; one without a drift entry is skipped by name."""
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
        subject = subject_of("drift", result, entry.candidate, entry.runtime)
        figures = flip_figures(before, after, targets, flips)
        figures |= metric_figures(before, after, entry.changes)
        yield from subject.changes(figures, limits.drift)
        yield from _asked_checks(subject, entry, (reference, candidate), limits.drift)
        yield from _range_checks(subject, entry, limits.lost)
    references = {entry.reference for entry in result.drifts}
    for variant in result.measured:
        if variant.name not in references and (variant.name, variant.runtime) not in judged:
            subject = subject_of("drift", result, variant.name, variant.runtime)
            yield subject.skip("entry", "the bench has no drift entry of it; bench with --data")


def _asked_checks(
    subject: Subject,
    entry: Drift,
    sides: tuple[Variant | None, Variant],
    limits: Mapping[str, float],
) -> Iterator[Check]:
    """What only a gate.toml asks for; it fails where the bench cannot answer."""
    if "pd_at_fa" in limits:
        yield _pd_check(subject, entry, limits["pd_at_fa"])
    if "fps_ratio" in limits:
        yield _speed_check(subject, entry.reference, sides, limits["fps_ratio"])


def _pd_check(subject: Subject, entry: Drift, limit: float) -> Check:
    at = entry.at_own_fa
    if at is None:
        why = "the bench does not compare Pd at equal false alarms; bench anew with --data"
        return subject.check("pd_at_fa", False, why, limit=limit)
    change = at.pd_candidate - at.pd_reference
    why = (
        f"at {at.fa_per_mpx:.4g} false alarms per Mpx {at.pd_reference:.4g} -> "
        f"{at.pd_candidate:.4g}: {change:+.4g}, lowest allowed {limit:+.4g}"
    )
    values = {"reference": at.pd_reference, "candidate": at.pd_candidate, "limit": limit}
    return subject.check("pd_at_fa", is_within(change, limit, "pd_at_fa"), why, **values)


def _speed_check(
    subject: Subject, name: str, sides: tuple[Variant | None, Variant], limit: float
) -> Check:
    slow, fast = (side.fps if side else None for side in sides)
    if not slow or fast is None:
        why = f"the speed of both sides was not measured; bench {name} beside it"
        return subject.check("fps_ratio", False, why, limit=limit)
    ratio = fast / slow
    why = f"{slow:.4g} -> {fast:.4g} fps: {ratio:.3g} of {name}, lowest allowed {limit:.3g}"
    values = {"reference": slow, "candidate": fast, "limit": limit}
    return subject.check("fps_ratio", is_within(ratio, limit, "fps_ratio"), why, **values)


def _range_checks(
    subject: Subject, entry: Drift, limits: Mapping[tuple[str, str], float]
) -> Iterator[Check]:
    for (section, name), limit in limits.items():
        targets, lost = entry.ranges[section, name]
        title = f"{section}.{name}"
        if not targets:
            yield subject.skip(title, f"the data has no target in {name}")
            continue
        span = f"of {name} px" if section == "lost_by_area" else f"at SCR {name}"
        why = f"{lost} lost of {targets} targets {span}, highest allowed {limit:g}"
        yield subject.check(title, lost <= limit, why, candidate=lost, limit=limit)
