"""One sentence for each model of a bench: what the cheaper variant keeps, and what it gains."""

from __future__ import annotations

from collections.abc import Mapping

from irstd_edge.benchmarks.bench_file import Drift, Result, TargetRow, Variant, bench_from_json
from irstd_edge.benchmarks.verdict import Verdict

SAME_SPEED = 0.05
"""Speeds closer than this are called the same."""


def summaries(bench: Mapping[str, object], verdict: Verdict) -> tuple[str, ...]:
    """One sentence a model of a parsed bench.json; IrstdError where it is malformed.

    Of several runtimes the fastest candidate speaks, against the fastest reference on its
    device: being faster than a slow runtime's FP32 is no gain.
    """
    results = bench_from_json(bench).results
    return tuple(_summary(result, _passed(result, verdict)) for result in results)


def _passed(result: Result, verdict: Verdict) -> bool:
    return all(check.passed for check in verdict.checks if check.model in (None, result.model))


def _summary(result: Result, passed: bool) -> str:
    pairs = [
        (candidate, entry)
        for entry in result.drifts
        if (candidate := result.find(entry.candidate, entry.runtime)) is not None
    ]
    if not pairs:
        return f"{result.model}: no drift was measured; bench with --data"
    candidate, entry = max(pairs, key=lambda pair: pair[0].fps or 0.0)
    rival = _fastest(result, entry.reference, candidate.device)
    ratio = candidate.fps / rival.fps if candidate.fps and rival and rival.fps else None
    reference = entry.reference.upper()
    if rival is not None and rival.runtime != candidate.runtime:
        reference += f" on {rival.runtime}"
    who = f"{result.model}: {candidate.name.upper()} on {candidate.runtime}"
    speed = _speed_words(ratio, reference)
    advice = _advice(ratio, reference, passed)
    return f"{who} {_targets_words(entry)}, {speed}: {advice}"


def _fastest(result: Result, name: str, device: str) -> Variant | None:
    rivals = [v for v in result.measured if (v.name, v.device) == (name, device) and v.fps]
    return max(rivals, key=lambda variant: variant.fps or 0.0, default=None)


def _targets_words(entry: Drift) -> str:
    lost = [row for row in entry.targets if row.flip == "lost"]
    found = [row.matched_reference for row in entry.targets]
    kept = f"loses {entry.targets_lost} of {len(entry.targets)} targets"
    if None not in found:
        total = found.count(True)
        kept = f"keeps {total - len(lost)} of {entry.reference.upper()}'s {total} targets"
    details = []
    if lost:
        details.append(f"lost: {_lost_words(lost)}")
    if entry.targets_gained:
        details.append(f"gained: {entry.targets_gained}")
    return f"{kept} ({'; '.join(details)})" if details else kept


def _lost_words(lost: list[TargetRow]) -> str:
    """How many, and the plainest of them: the one that stood out most."""
    scrs = [row.scr for row in lost if row.scr is not None]
    areas = [row.area_px for row in lost if row.area_px is not None]
    many = len(lost) > 1
    size = f" of {'up to ' if many else ''}{max(areas):g} px" if areas else ""
    clutter = f" at SCR {'up to ' if many else ''}{max(scrs):.1f}" if scrs else ""
    return f"{len(lost)}{size}{clutter}"


def _speed_words(ratio: float | None, reference: str) -> str:
    if ratio is None:
        return "speed not measured"
    if abs(ratio - 1) <= SAME_SPEED:
        return f"as fast as {reference}"
    if ratio > 1:
        return f"{ratio:.1f}x faster than {reference}"
    return f"{1 / ratio:.1f}x slower than {reference}"


def _advice(ratio: float | None, reference: str, passed: bool) -> str:
    if not passed:
        return "do not ship it, the gate failed"
    if ratio is None:
        return "time it before you ship it"
    if ratio > 1 + SAME_SPEED:
        return "ship it"
    return f"no gain here, keep {reference}"
