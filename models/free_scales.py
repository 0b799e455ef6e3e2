"""Maps whose scale a network does not depend on.

Where only operators that keep a positive factor stand between what makes a map and what reads it
(ReLU, pooling, bilinear resizing, another positive factor), the one may be divided and the other
multiplied by it, and the network stays the same. What changes is how well the map fills the 8 bit
that it is rounded to (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class FreeScale:
    """A map of a deployed network."""

    reader: nn.Conv2d
    """A convolution that reads it, alone or joined behind another map."""
    channels: int
    """Of the map: the last ones of the reader's input."""
    makers: tuple[Tensor, ...]
    """Parameters that it is proportional to, (channels, ...) each."""
    readers: tuple[Tensor, ...]
    """Kernels that read it, (outputs, channels, rows, columns) each."""

    def divide(self, factors: Tensor) -> None:
        """Divide the map, in place, by positive factors (channels,)."""
        for maker in self.makers:
            maker.detach().div_(factors.reshape(-1, *[1] * (maker.ndim - 1)))
        for reader in self.readers:
            reader.detach().mul_(factors.reshape(1, -1, 1, 1))
