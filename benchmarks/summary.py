"""One sentence for each model of a bench: what the cheaper variant keeps, what it gains, and
which one to ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irstd_edge.benchmarks.bench_file import Drift, Result, TargetRow, Variant, bench_from_json
from irstd_edge.benchmarks.drift_checks import is_reference_alone, why_unjudged
from irstd_edge.benchmarks.plan import REFERENCE
from irstd_edge.benchmarks.speed import SAME_SPEED, SpeedUp, speed_up_of
from irstd_edge.benchmarks.verdict import Check, Verdict, named


def summaries(bench: Mapping[str, object], verdict: Verdict) -> tuple[str, ...]:
    """One sentence a model of a parsed bench.json; IrstdError where it is malformed.

    Of several runtimes the fastest candidate speaks, against the fastest more precise variant on
    its device that the gate lets pass: being faster than a slow runtime's FP32 is no gain.
    """
    results = bench_from_json(bench).results
    return tuple(_summary(result, verdict) for result in results)


def _summary(result: Result, verdict: Verdict) -> str:
    pairs = [
        (candidate, entry)
        for entry in result.drifts
        if (candidate := result.find(entry.candidate, entry.runtime)) is not None
    ]
    if not pairs:
        return _unjudged(result, verdict)
    candidate, entry = max(pairs, key=lambda pair: pair[0].fps or 0.0)
    rival = _fastest_rival(result, candidate, verdict)
    up, name = _speed_up(rival, candidate), _name(rival, candidate)
    failed = [c for c in verdict.checks if not c.passed and _is_about(c, result)]
    own = [c for c in failed if c.variant is None or _is_of(c, candidate)]
    own.sort(key=lambda c: not _is_of(c, candidate))
    speed, advice = _speed_words(up, name, candidate), _advice(up, name, own)
    others = "" if own else _others_words(failed)
    return f"{_who(result, candidate)} {_targets_words(entry)}, {speed}: {advice}{others}"


def _is_about(check: Check, result: Result) -> bool:
    """Of this bundle, of its model, or of the bench as a whole."""
    return check.model in (None, result.model) and check.place in (None, result.place)


def _is_of(check: Check, variant: Variant) -> bool:
    return (check.variant, check.runtime) == (variant.name, variant.runtime)


def _others_words(failed: Sequence[Check]) -> str:
    """The gate is red for another variant than the one to ship."""
    if not failed:
        return ""
    first, more = failed[0], f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    place = f"{first.variant} on {first.runtime}"
    return f"; the gate failed {place} ({first.name}: {first.why}{more})"


def _unjudged(result: Result, verdict: Verdict) -> str:
    """Speed alone, where it was measured."""
    if result.variants and not result.measured:
        who = named(result.model, result.place)
        return f"{who}: a projection is not judged; measure on the board, or by bench --host"
    if is_reference_alone(result):
        who = named(result.model, result.place)
        return f"{who}: {REFERENCE.upper()} alone was measured; bench a cheaper variant beside it"
    cheaper = [v for v in result.measured if _is_integer(v) and v.fps]
    if not cheaper:
        return f"{named(result.model, result.place)}: no drift was measured; bench with --data"
    candidate = max(cheaper, key=lambda variant: variant.fps or 0.0)
    rival = _fastest_rival(result, candidate, verdict)
    speed = _speed_words(_speed_up(rival, candidate), _name(rival, candidate), candidate)
    return f"{_who(result, candidate)} {speed}; {why_unjudged(result, candidate)}"


def _who(result: Result, candidate: Variant) -> str:
    who = named(result.model, result.place)
    return f"{who}: {candidate.name.upper()} on {candidate.runtime}"


def _is_integer(variant: Variant) -> bool:
    return variant.name.startswith("int8")


def _fastest_rival(result: Result, candidate: Variant, verdict: Verdict) -> Variant | None:
    """FP32, or for INT8 also FP16 where the gate found nothing wrong with it."""
    failed = {
        (check.variant, check.runtime)
        for check in verdict.checks
        if not check.passed and check.model and _is_about(check, result)
    }
    rivals = [
        variant
        for variant in result.measured
        if variant.device == candidate.device and variant.fps
        if variant.name == "fp32"
        or (
            variant.name == "fp16"
            and _is_integer(candidate)
            and (variant.name, variant.runtime) not in failed
        )
    ]
    return max(rivals, key=lambda variant: variant.fps or 0.0, default=None)


def _speed_up(rival: Variant | None, candidate: Variant) -> SpeedUp | None:
    if rival is None or not rival.fps or not candidate.fps:
        return None
    if rival.infer_ms and len(rival.infer_ms) == len(candidate.infer_ms):
        of_rounds = speed_up_of(rival.infer_ms, candidate.infer_ms)
        return SpeedUp(candidate.fps / rival.fps, of_rounds.interval)
    return SpeedUp(candidate.fps / rival.fps)


def _name(rival: Variant | None, candidate: Variant) -> str:
    if rival is None:
        return "FP32"
    elsewhere = "" if rival.runtime == candidate.runtime else f" on {rival.runtime}"
    return rival.name.upper() + elsewhere


def _targets_words(entry: Drift) -> str:
    lost = [row for row in entry.targets if row.flip == "lost"]
    found = [row.matched_reference for row in entry.targets]
    kept = f"loses {entry.targets_lost} of {len(entry.targets)} targets"
    if None not in found:
        total, name = found.count(True), entry.reference.upper()
        theirs = f"{name}'s {total} targets"
        if entry.is_across:
            theirs = f"the {total} targets of {name} on {entry.reference_runtime}"
        kept = f"keeps {total - len(lost)} of {theirs}"
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


def _speed_words(up: SpeedUp | None, reference: str, candidate: Variant) -> str:
    if up is None:
        fps = candidate.fps
        return f"{fps:.4g} FPS, no {reference} beside it" if fps else "speed not measured"
    if up.ratio > 1 + SAME_SPEED:
        return f"{_times(up)} faster than {reference}"
    if up.ratio < 1 - SAME_SPEED:
        return f"{_times(up.inverse)} slower than {reference}"
    return f"{_times(up, digits=2)} over {reference}"


def _times(up: SpeedUp, digits: int = 1) -> str:
    """As many decimals as the interval is worth; both its ends where one is much farther away."""
    if up.interval is None:
        return f"{up.ratio:.{digits}f}x"
    digits = 1 if up.margin >= 0.1 else 2
    if abs((up.lowest + up.highest) / 2 - up.ratio) > max(up.margin / 4, 0.005):
        return f"{up.ratio:.2f}x ({up.lowest:.2f} to {up.highest:.2f})"
    return f"{up.ratio:.{digits}f}x ±{max(up.margin, 0.01):.{digits}f}"


def _advice(up: SpeedUp | None, reference: str, failed: Sequence[Check]) -> str:
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"do not ship it, the gate failed ({failed[0].name}: {failed[0].why}{more})"
    if up is None:
        return "time both before you ship it"
    if up.interval is None:
        return "too few times to tell, bench again with more --samples"
    if up.lowest > 1 + SAME_SPEED:
        return "ship it"
    if up.highest > 1 + SAME_SPEED and up.margin > SAME_SPEED:
        return "too noisy to tell, bench again with more --samples"
    return f"no gain here, ship {reference}"
