"""What lies behind the targets of a synthetic scene: sky, cloud, sea and ground.

Natural clutter has a power spectrum near 1 / f^beta; the kinds differ in beta, in its stretch along
the horizon and in what is laid over it. A painter returns a view (H, W) in units of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Scenery = npt.NDArray[np.float64]
Size = tuple[int, int]

RIDGE_ROWS = 32  # of the field whose first row is the line of a ridge


def _field(rng: np.random.Generator, size: Size, beta: float, stretch: float = 1.0) -> Scenery:
    """Noise of power 1 / f^beta, drawn out `stretch` times along the rows; mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], stretch * np.fft.rfftfreq(size[1]))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(size)) * frequency ** (-beta / 2)
    field = np.fft.irfft2(spectrum, s=size)
    return np.asarray(field / field.std(), np.float64)


def _downward(size: Size) -> Scenery:
    """0 at the top to 1 at the bottom."""
    return np.broadcast_to(np.linspace(0, 1, size[0])[:, None], size)


def _sky(rng: np.random.Generator, size: Size) -> Scenery:
    """Warmer towards the horizon, with thin haze."""
    haze = _field(rng, size, rng.uniform(3, 4), rng.uniform(1, 3))
    return rng.uniform(-0.5, 2) * _downward(size) + rng.uniform(0.2, 0.6) * haze


def _cloud(rng: np.random.Generator, size: Size) -> Scenery:
    """Cumulus: a soft threshold of a smooth field, with texture of its own inside."""
    billows = _field(rng, size, rng.uniform(3.2, 3.8), rng.uniform(1, 2))
    edge = rng.uniform(2, 6) * (billows - rng.uniform(-0.5, 0.8))
    cover = 1 / (1 + np.exp(-edge))
    return np.asarray(cover * (1 + 0.25 * _field(rng, size, 2.8)) + 0.2 * _sky(rng, size))


def _sea(rng: np.random.Generator, size: Size) -> Scenery:
    """Waves drawn out along the horizon, finer and fainter towards it; sky above."""
    depth = _depth(rng, size)
    waves = _field(rng, size, rng.uniform(2.0, 2.8), rng.uniform(5, 10))
    near = waves[(np.sqrt(depth) * (size[0] - 1)).astype(int)] * (0.3 + depth)[:, None]
    water = rng.uniform(-2, 2) + near
    return np.where(depth[:, None] > 0, water, 0.4 * _sky(rng, size))


def _ground(rng: np.random.Generator, size: Size) -> Scenery:
    """Patches of soil and growth with texture, a few walls and roofs; often sky above."""
    patches = _field(rng, size, 3.6, rng.uniform(1, 4))
    levels = np.quantile(patches, np.sort(rng.uniform(0, 1, 4)))
    land = rng.normal(0, 0.8, 5)[np.digitize(patches, levels)]
    land = land + 0.6 * _field(rng, size, rng.uniform(2.2, 2.8), rng.uniform(1, 3))
    for _ in range(rng.integers(0, 5)):
        top, left = (rng.integers(0, side) for side in size)
        high, wide = (rng.integers(4, max(side // 5, 6)) for side in size)
        land[top : top + high, left : left + wide] += rng.normal(0, 1.2)
    ridge = 0.03 * size[0] * _field(rng, (RIDGE_ROWS, size[1]), 2.5)[0]
    horizon = rng.choice([-size[0], rng.uniform(0.1, 0.4) * size[0]]) + ridge
    above = np.arange(size[0])[:, None] < horizon
    return np.where(above, rng.uniform(-2, 2) + 0.3 * _sky(rng, size), land)


def _depth(rng: np.random.Generator, size: Size) -> npt.NDArray[np.float64]:
    """(H,) 0 above a horizon that is often out of view, 1 at the bottom."""
    horizon = rng.choice([-0.5, rng.uniform(0.1, 0.5)])
    depth = (np.linspace(0, 1, size[0]) - horizon) / (1 - horizon)
    return np.asarray(np.clip(depth, 0, 1), np.float64)


KINDS: dict[str, tuple[Callable[[np.random.Generator, Size], Scenery], float, float]] = {
    "sky": (_sky, 0.03, 0.12),
    "cloud": (_cloud, 0.08, 0.22),
    "sea": (_sea, 0.06, 0.16),
    "ground": (_ground, 0.07, 0.18),
}
"""Kind -> its painter, and the range of its contrast (deviation, of full scale 1)."""
