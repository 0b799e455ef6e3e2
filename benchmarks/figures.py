"""The figures that a gate compares: before, after, and by how much they changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irstd_edge.benchmarks.accuracy import MASK_METRICS
from irstd_edge.benchmarks.bench_file import (
    DIFFERENCES,
    Accuracy,
    Drift,
    EqualFa,
    Result,
    TargetRow,
)
from irstd_edge.benchmarks.limits import LOWER_IS_BETTER
from irstd_edge.benchmarks.lost_by_range import LostByRange, lost_by_range
from irstd_edge.benchmarks.targets import flip_of

SLACK = 1e-9
"""Differences of floats carry rounding errors; a drop of exactly the limit passes."""

States = list[tuple[TargetRow, bool | None]]
"""Each target, and whether a variant found it."""


@dataclass(frozen=True)
class Figure:
    """One figure on two sides."""

    before: float | None
    after: float | None
    changes: tuple[float, ...]
    """after - before from every source that tells it; the worst counts. Empty: undefined."""


def is_within(value: float, limit: float, name: str) -> bool:
    """Whether a figure, or a change of one, keeps to its limit."""
    return value <= limit + SLACK if name in LOWER_IS_BETTER else value >= limit - SLACK


def told(*values: float, sign: str = "") -> tuple[str, ...]:
    """Figures in a sentence: four digits, or as many as tell those apart that differ."""
    texts: tuple[str, ...] = ()
    for digits in (4, 6, 9, 17):
        texts = tuple(_told(value, digits, sign) for value in values)
        if len(set(texts)) == len(set(values)):
            break
    return texts


def _told(value: float, digits: int, sign: str) -> str:
    whole = value == round(value, 0) and abs(value) < 1e9
    return f"{value or 0.0:{sign}.{0 if whole else digits}{'f' if whole else 'g'}}"


def worst(values: tuple[float, ...], name: str) -> float:
    """The highest or the lowest, whichever is bad."""
    return max(values) if name in LOWER_IS_BETTER else min(values)


def flip_figures(
    before: Accuracy | None, after: Accuracy | None, targets: int, flips: tuple[int, int] | None
) -> dict[str, Figure]:
    """Net targets lost, and the share that flipped if (lost, gained) is known."""
    was = before.found if before else None
    now = after.found if after else None
    if flips is not None:
        net: tuple[float, ...] = (flips[0] - flips[1],)
    else:
        net = () if was is None or now is None else (was - now,)
    figures = {"net_targets_lost": Figure(was, now, net if targets else ())}
    if flips is not None:
        share = sum(flips) / targets if targets else None
        figures["targets_flipped"] = Figure(None, share, () if share is None else (share,))
    return figures


def metric_figures(
    before: Accuracy | None,
    after: Accuracy | None,
    stated: Mapping[str, float | None] | None = None,
) -> dict[str, Figure]:
    """`DIFFERENCES`, without those that do not apply; `stated` are those of a drift entry."""
    figures = {}
    for name in DIFFERENCES:
        sides = [side for side in (before, after) if side is not None]
        values = [side.metrics[name] for side in sides]
        known = [value for value in values if value is not None]
        told = (stated or {}).get(name)
        undefined = any(name in side.undefined for side in sides)
        if name in MASK_METRICS and not (known or undefined or told is not None):
            continue
        changes = [known[1] - known[0]] if len(known) == 2 else []
        changes += [] if told is None else [told]
        if undefined or len(known) < len(values):
            changes = []
        figures[name] = Figure(
            before.metrics[name] if before else None,
            after.metrics[name] if after else None,
            tuple(changes),
        )
    return figures


def states_of(result: Result, variant: str, runtime: str) -> States | None:
    """Which targets a variant found, from whichever drift entry lists it."""
    for entry in result.drifts:
        if (variant, runtime) == (entry.candidate, entry.runtime):
            return _states(entry, of_candidate=True)
        if (variant, runtime) == (entry.reference, entry.reference_runtime):
            return _states(entry, of_candidate=False)
    return None


def _states(entry: Drift, *, of_candidate: bool) -> States:
    return [
        (row, row.matched_candidate if of_candidate else row.matched_reference)
        for row in entry.targets
    ]


def flips_between(before: States | None, after: States | None) -> tuple[int, int] | None:
    """(lost, gained) of two lists of the same targets; None where either does not tell."""
    pairs = _pairs(before, after)
    if pairs is None:
        return None
    found = [pair for _, pair in pairs]
    return found.count((True, False)), found.count((False, True))


def lost_between(before: States | None, after: States | None) -> LostByRange | None:
    """The lost ones of two lists of the same targets; None where either does not tell."""
    pairs = _pairs(before, after)
    if pairs is None:
        return None
    return lost_by_range(
        [{"area_px": row.area_px, "scr": row.scr, "flip": flip_of(*pair)} for row, pair in pairs]
    )


def _pairs(
    before: States | None, after: States | None
) -> list[tuple[TargetRow, tuple[bool, bool]]] | None:
    """Each target, and whether it was found before and after; None where either does not tell."""
    if before is None or after is None:
        return None
    pairs = []
    for (_, old), (row, new) in zip(before, after, strict=True):
        if old is None or new is None:
            return None
        pairs.append((row, (old, new)))
    return pairs


def equal_fa_between(before: Accuracy, after: Accuracy) -> EqualFa | None:
    """Pd of both at the false alarms that the first has at its own threshold, from their curves.

    Each side takes the threshold that finds most at no more of them. None where a file has no
    curve or no target, and of masks that get down to them by finding nothing alone.
    """
    own = [fa for threshold, fa, _ in before.curve if threshold == before.threshold]
    if not own or not after.curve:
        return None
    old, new = (
        {
            threshold: pd
            for threshold, fa, pd in side.curve
            if fa <= own[0] + SLACK and pd is not None
        }
        for side in (before, after)
    )
    finds_nothing = after.metrics["iou"] is not None and set(new) == {after.curve[-1][0]}
    if not old or not new or finds_nothing:
        return None
    return EqualFa(own[0], max(old.values()), max(new.values()))
