"""Benches that a test of the gate changes, and what a verdict says of them."""

from collections.abc import Callable
from typing import Any

from irstd_edge.benchmarks.verdict import Verdict

TARGETS = 945
FOUND = 940
MATCHED = ("matched_reference", "matched_candidate")
Json = dict[str, Any]
Change = Callable[[Json], object]
Make = Callable[..., Json]


def figures(masked: bool) -> Json:
    areas = {"iou": 0.8, "niou": 0.79, "fa_legacy_per_mpx": 4.0} if masked else {}
    return {
        "images": 664,
        "targets": TARGETS,
        "pd": FOUND / TARGETS,
        "recall_3px": FOUND / TARGETS,
        "fa_per_mpx": 5.0,
        "f1_3px": 0.97,
        "position_px": 0.5,
        **areas,
    }


def int8(bench: Json) -> Json:
    return bench["results"][0]["variants"][1]  # type: ignore[no-any-return]


def entry(bench: Json) -> Json:
    return bench["results"][0]["drift"][0]  # type: ignore[no-any-return]


def flip(bench: Json, lost: int = 0, gained: int = 0) -> None:
    """Lose some of the targets that were found, gain some that were not, everywhere."""
    drift = entry(bench)
    for row in drift["targets"][:lost]:
        row |= {"matched_candidate": False, "flip": "lost"}
    for row in drift["targets"][FOUND : FOUND + gained]:
        row |= {"matched_candidate": True, "flip": "gained"}
    drift |= {"targets_lost": lost, "targets_gained": gained}
    int8(bench)["accuracy"]["pd"] += (gained - lost) / TARGETS


def shift(name: str, change: float) -> Change:
    """A figure that changed, in the variant's accuracy and in the drift entry."""

    def apply(bench: Json) -> None:
        int8(bench)["accuracy"][name] += change
        entry(bench)[name] += change

    return apply


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


def skipped(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.skipped]


def worse_everywhere(name: str, change: float) -> Change:
    """FP32 and INT8 alike: drift does not see it."""

    def apply(bench: Json) -> None:
        for each in bench["results"][0]["variants"]:
            each["accuracy"][name] += change

    return apply


def lose_everywhere(bench: Json) -> None:
    for row in entry(bench)["targets"][:2]:
        row |= {"matched_reference": False, "matched_candidate": False}
    worse_everywhere("pd", -2 / TARGETS)(bench)
