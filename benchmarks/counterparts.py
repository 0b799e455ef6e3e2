"""Which result of an earlier bench a result of this one is held against."""

from __future__ import annotations

from dataclasses import dataclass

from irstd_edge.benchmarks.bench_file import Bench, Result


@dataclass(frozen=True)
class Counterparts:
    """Two benches, bundle by bundle.

    A bundle meets itself. Those of a model that are in one bench alone, as after a new
    quantization, meet in their order where both have as many.
    """

    new: Bench
    old: Bench

    def of(self, result: Result) -> Result | None:
        """The earlier result of a result of the new bench; None where there is none, or unclear."""
        same = [each for each in self.old.of(result.model) if _are_one(each, result)]
        if same:
            twins = [each for each in self.new.of(result.model) if _are_one(each, result)]
            return same[min(twins.index(result), len(same) - 1)]
        now, before = self.changed(result.model)
        return before[now.index(result)] if len(now) == len(before) else None

    def is_unclear(self, result: Result) -> bool:
        """Whether it may be any of some earlier results, and nothing tells which."""
        now, before = self.changed(result.model)
        return result in now and 0 < len(before) != len(now)

    def gone(self) -> list[Result]:
        """The earlier results that this bench has nothing of."""
        return [
            earlier
            for model in dict.fromkeys(each.model for each in self.old.results)
            for now, before in [self.changed(model)]
            if not now
            for earlier in before
        ]

    def changed(self, model: str) -> tuple[list[Result], list[Result]]:
        """The results of a model, new and old, whose bundle the other bench does not have."""
        now, before = self.new.of(model), self.old.of(model)
        return _without(now, before), _without(before, now)


def _without(some: list[Result], others: list[Result]) -> list[Result]:
    return [each for each in some if not any(_are_one(each, other) for other in others)]


def _are_one(one: Result, other: Result) -> bool:
    return one.bundle is not None and one.bundle == other.bundle
