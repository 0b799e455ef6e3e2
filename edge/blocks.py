"""A convolution to one channel, as one to the pixels of a block with the block as its stride.

Kernels of CPUs compute eight or sixteen channels at once, and a map of one channel pays for all.
A pixel of the block sees the kernel shifted by its place, so all of them see a kernel that is
larger by the block less one; depth-to-space puts them back.
"""

from __future__ import annotations

import numpy as np

from irstd_edge.edge.types import FloatArray

BLOCK = 4
"""Side of the block: 16 of its pixels fill a vector of AVX-512."""
MOST_KERNEL_PX = 9
"""Height and width of a kernel that is worth it."""


def by_place(weights: FloatArray) -> FloatArray:
    """(1, C, h, w) -> (BLOCK**2, C, h + BLOCK - 1, w + BLOCK - 1): the kernel of each place."""
    _, channels, rows, cols = weights.shape
    kernels = np.zeros((BLOCK**2, channels, rows + BLOCK - 1, cols + BLOCK - 1), weights.dtype)
    for place in range(BLOCK**2):
        row, col = divmod(place, BLOCK)
        kernels[place, :, row : row + rows, col : col + cols] = weights[0]
    return kernels
