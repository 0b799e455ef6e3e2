"""Whom a check of the gate is about, and how it is worded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irstd_edge.benchmarks.bench_file import Result
from irstd_edge.benchmarks.figures import Figure, is_within, told, worst
from irstd_edge.benchmarks.limits import LOWER_IS_BETTER
from irstd_edge.benchmarks.verdict import Check


@dataclass(frozen=True)
class Subject:
    """Whom a check is about, and the section of gate.toml that has its limit."""

    section: str
    model: str | None = None
    variant: str | None = None
    runtime: str | None = None
    place: int | None = None
    """Of its bundle among several of the model."""

    def check(
        self,
        name: str,
        passed: bool,
        why: str,
        *,
        reference: float | None = None,
        candidate: float | None = None,
        limit: float | None = None,
    ) -> Check:
        """One check, named as in gate.toml."""
        return Check(
            f"{self.section}.{name}",
            self.model,
            self.variant,
            self.runtime,
            passed,
            why,
            reference,
            candidate,
            limit,
            self.place,
        )

    def skip(self, name: str, why: str) -> Check:
        """A check that could not be made."""
        return self.check(name, True, f"skipped: {why}")

    def changes(self, figures: Mapping[str, Figure], limits: Mapping[str, float]) -> list[Check]:
        """A check for each figure with a limit: its worst change, held against it."""
        return [
            self._change(name, figure, limits[name])
            for name, figure in figures.items()
            if name in limits
        ]

    def _change(self, name: str, figure: Figure, limit: float) -> Check:
        values = {"reference": figure.before, "candidate": figure.after, "limit": limit}
        if not figure.changes:
            why = "is undefined: no target, or nothing detected; bench on labelled frames"
            return self.check(name, False, why, **values)
        change = worst(figure.changes, name)
        bound = "highest" if name in LOWER_IS_BETTER else "lowest"
        sides = [side for side in (figure.before, figure.after) if side is not None]
        shown = f"{' -> '.join(told(*sides))}: " if len(sides) == 2 else ""
        by, allowed = told(change, limit, sign="+")
        why = f"{shown}{by}, {bound} allowed {allowed}"
        return self.check(name, is_within(change, limit, name), why, **values)


def subject_of(
    section: str, result: Result, variant: str | None = None, runtime: str | None = None
) -> Subject:
    """A bundle of a bench, or one of its variants."""
    return Subject(section, result.model, variant, runtime, result.place)
