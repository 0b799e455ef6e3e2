"""What a little noise of the sensor changes by itself: a drift that is no larger is no loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irstd_edge.benchmarks.accuracy import Evaluation
from irstd_edge.benchmarks.comparison import signed
from irstd_edge.benchmarks.drift import METRICS, drift, score_error
from irstd_edge.benchmarks.equal_fa import false_alarm_unit, is_masked

KEPT = (
    "masked",
    *METRICS,
    "targets_lost",
    "targets_gained",
    "false_alarms_gained",
    "p_value",
    "ci95_of",
)
"""Of a drift entry: its targets and alarms are those of one draw of the noise."""


def noise_floor(
    clean: Evaluation, noisy: Evaluation, counts: float, variant: str, runtime: str
) -> dict[str, Any]:
    """`noise` of a result: one variant on frames with noise against the same on the frames.

    counts: standard deviation of the noise. Differences are noisy - clean, as in `drift`;
    `targets` is how many there are, `score_error` how far their scores move.
    """
    entry = drift(clean, noisy, (variant, variant), runtime)
    return {
        "counts": counts,
        "variant": variant,
        "runtime": runtime,
        "targets": len(entry["targets"]),
        "score_error": entry_score_error(entry),
        **{name: entry[name] for name in KEPT},
    }


def entry_score_error(entry: Mapping[str, Any]) -> float | None:
    """`score_error` of a drift entry; None for masks, whose scores saturate.

    Also None without targets, and where a file does not tell the scores.
    """
    pairs = [(t["score_reference"], t["score_candidate"]) for t in entry["targets"]]
    if is_masked(entry) or not pairs or any(None in pair for pair in pairs):
        return None
    before, after = zip(*pairs, strict=True)
    return score_error(before, after)


def noise_words(result: Mapping[str, Any]) -> str | None:
    """What noise alone does, and by how much it moves scores; None where it was not measured."""
    noise = result.get("noise")
    if noise is None:
        return None
    lost, gained = noise["targets_lost"], noise["targets_gained"]
    changes = [
        f"{name} {signed(100 * noise[key], 2)} points"
        for key, name in (("f1_3px", "F1"), ("iou", "IoU"))
        if noise[key] is not None
    ]
    if noise["fa_per_mpx"] is not None:
        changes.append(f"Fa {signed(noise['fa_per_mpx'], 2)} {false_alarm_unit(noise)}")
    words = (
        f"for scale: noise of {noise['counts']:g} counts in the frames makes {noise['variant']} on "
        f"{noise['runtime']} lose {lost} and gain {gained} of {noise['targets']} targets "
        f"({', '.join(changes)})"
    )
    moved = _moved(noise["score_error"], result["drift"])
    return f"{words}; {moved}" if moved else words


def _moved(by_noise: float | None, drifts: Sequence[Mapping[str, Any]]) -> str | None:
    if by_noise is None:
        return None
    others = [
        f"{entry['candidate']} on {entry['runtime']} by {error:.4f}"
        for entry in drifts
        if (error := entry_score_error(entry)) is not None
    ]
    return ", ".join([f"it moves targets' scores by {by_noise:.4f}", *others])
