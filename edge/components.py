"""Connected components of a map that comes by strips of rows, top to bottom.

Each strip is labelled alone; where two of them meet, labels that touch are one component.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]


class Components:
    """The parts of components, numbered from 0 as they come, and which of them are one."""

    def __init__(self) -> None:
        """Of no strip yet."""
        self._before: list[int] = []
        """Part -> one of its component that came no later; itself for the first."""
        self._edge: tuple[Labels, int] | None = None
        """(W,) the last row of the last strip, and the first of its parts."""

    def add(self, labels: Labels, count: int) -> None:
        """Take the strip below: labels (h, W) 1..count of its 8-connected parts, 0 for none."""
        first = len(self._before)
        self._before.extend(range(first, first + count))
        if self._edge is not None and count:
            self._join(_shifted(*self._edge), _shifted(labels[0], first))
        self._edge = labels[-1], first

    def roots(self) -> npt.NDArray[np.intp]:
        """(parts,) the first part of each part's component."""
        for part, before in enumerate(self._before):
            self._before[part] = self._before[before]  # of the one before it is known already
        return np.array(self._before, np.intp)

    def _join(self, upper: Labels, lower: Labels) -> None:
        """Make one of what touches, also corner to corner, across the border of two strips."""
        around = np.pad(upper, 1)
        for shift in range(3):
            beside = around[shift : shift + len(lower)]
            both = (beside > 0) & (lower > 0)
            for pair in np.unique(np.stack([beside[both], lower[both]]), axis=1).T.tolist():
                one, other = sorted(self._root(part - 1) for part in pair)
                self._before[other] = one

    def _root(self, part: int) -> int:
        while self._before[part] != part:
            part = self._before[part]
        return part


def _shifted(labels: Labels, first: int) -> Labels:
    """1 + the part of each label, or 0."""
    return np.where(labels > 0, labels.astype(np.int64) + first, 0)
