"""The gate's checks that only a gate.toml asks for: Pd at equal false alarms, losses by range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from irstd_edge.benchmarks.bench_file import EqualFa
from irstd_edge.benchmarks.figures import is_within
from irstd_edge.benchmarks.limits import ASKED, SPEED
from irstd_edge.benchmarks.lost_by_range import LostByRange
from irstd_edge.benchmarks.subject import Subject
from irstd_edge.benchmarks.verdict import Check


def pd_check(subject: Subject, at: EqualFa | None, limit: float, missing: str) -> Check:
    """Of Pd at equal false alarms; `missing` says why there is none to compare."""
    if at is None:
        return subject.check("pd_at_fa", False, missing, limit=limit)
    change = at.pd_candidate - at.pd_reference
    why = (
        f"at {at.fa_per_mpx:.4g} false alarms per Mpx {at.pd_reference:.4g} -> "
        f"{at.pd_candidate:.4g}: {change:+.4g}, lowest allowed {limit:+.4g}"
    )
    values = {"reference": at.pd_reference, "candidate": at.pd_candidate, "limit": limit}
    return subject.check("pd_at_fa", is_within(change, limit, "pd_at_fa"), why, **values)


def range_checks(
    subject: Subject, found: LostByRange, limits: Mapping[tuple[str, str], float]
) -> Iterator[Check]:
    """A lost target of unknown area or SCR may be of any range, and counts in each."""
    for (section, name), limit in limits.items():
        targets, lost = found.ranges[section, name]
        others, lost_of_others = found.unknown[section]
        title = f"{section}.{name}"
        if not targets and not others:
            yield subject.skip(title, f"the data has no target in {name}")
            continue
        span = f"of {name} px" if section == "lost_by_area" else f"at SCR {name}"
        what = "area" if section == "lost_by_area" else "SCR"
        more = f", and {lost_of_others} of {others} of unknown {what}" if others else ""
        why = f"{lost} lost of {targets} targets {span}{more}, highest allowed {limit:g}"
        worst = lost + lost_of_others
        yield subject.check(title, worst <= limit, why, candidate=worst, limit=limit)


def unanswered(
    subject: Subject,
    why: str,
    limits: Mapping[str, float],
    lost: Mapping[tuple[str, str], float],
) -> Iterator[Check]:
    """A failed check for each limit that gate.toml sets and this bench cannot answer."""
    asked = {name: limit for name, limit in limits.items() if name in ASKED and name != SPEED}
    asked |= {f"{section}.{name}": limit for (section, name), limit in lost.items()}
    for name, limit in asked.items():
        yield subject.check(name, False, why, limit=limit)
