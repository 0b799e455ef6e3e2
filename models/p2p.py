"""p2p: a point-to-point regression detector of 0.24 M parameters.

After Acta Photonica Sinica 2026, doi 10.3788/gzxb20265502.0210002, of which the abstract is
public. Its three parts, in the order of this file: asymmetric full-dimensional dynamic feature
extraction (`DynamicUnit`), high-resolution cross-feature enhancement (`CrossFusion`), and the
adaptive point regression head (`PointHead`; the rest of it, local maxima, scale-adaptive
suppression and sub-pixel position, is `irstd_edge.edge.detect`).

Each part has a static twin for deployment: the weights of a dynamic convolution depend on the
frame, so no runtime can quantize them. The twins scale activations instead, with equal results.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irstd_edge.edge.detect import LOG_SIGMA_RANGE
from irstd_edge.models.fold import fold_pairs

HIGH, MIDDLE, LOW = 32, 96, 64
"""Channels at 1/2, 1/4 and 1/8 of the frame's resolution."""

HEATMAP_PRIOR = -4.6
"""Bias of the heatmap: one cell in a hundred, so that training starts among negatives
(Lin et al., "Focal Loss for Dense Object Detection", section 4.1)."""


def conv_bn(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1
) -> nn.Module:
    """Return a convolution that keeps the grid (or halves it) with batch normalisation."""
    pad = size // 2
    conv = nn.Conv2d(inputs, outputs, size, stride, pad, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Weights(NamedTuple):
    """Of the two convolutions of a unit, each in 0..1."""

    in1: Tensor
    """(N, C, 1, 1), as the next three."""
    out1: Tensor
    in2: Tensor
    out2: Tensor
    taps1: tuple[Tensor, ...]
    """(N, 1, 1, 1) for each kernel position, or none."""
    taps2: tuple[Tensor, ...]


class Attention(nn.Module):
    """The attentions of omni-dimensional dynamic convolution, for two convolutions in a row.

    Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022, section 3.2: input channels,
    output channels and kernel positions each get a weight in 0..1 from the global average; the
    fourth dimension, the choice among kernels, is 1 for a single kernel. Both convolutions of a
    unit read one global average and share the hidden layer.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 16)
        self.reduce = conv_bn(channels, hidden, 1)
        self.taps = taps
        self.sizes = (channels,) * 4 + (1,) * (2 * taps)
        self.expand = nn.Conv2d(hidden, sum(self.sizes), 1)
        self.temperature = 1.0

    def forward(self, x: Tensor) -> Weights:  # (N, C, H, W)
        """Return the weights."""
        z = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        logits = self.expand(z)
        weights = (logits if self.temperature == 1.0 else logits / self.temperature).sigmoid()
        in1, out1, in2, out2, *taps = weights.split(self.sizes, 1)
        first, second = taps[: self.taps], taps[self.taps :]
        return Weights(in1, out1, in2, out2, tuple(first), tuple(second))


class DynamicConv(nn.Module):
    """A 3x1 or 1x3 convolution whose kernel is scaled per frame along each of its dimensions.

    Scaling the kernel by its input channels, output channels and positions equals scaling what
    goes in, what comes out, and the shifted copies of the input that the positions see. So the
    kernel itself stays constant: one convolution for the whole batch, and one that quantizes.
    """

    def __init__(self, channels: int, vertical: bool, spatial: bool) -> None:
        super().__init__()
        self.vertical = vertical
        self.spatial = spatial
        inputs, shape, pad = (
            channels,
            ((3, 1) if vertical else (1, 3)),
            (int(vertical), int(not vertical)),
        )
        if spatial:
            inputs, shape, pad = 3 * channels, (1, 1), (0, 0)
        self.conv = nn.Conv2d(inputs, channels, shape, padding=pad, bias=False)

    def forward(self, x: Tensor, taps: Sequence[Tensor]) -> Tensor:
        """Convolve (N, C, H, W), already scaled per input channel; taps are three (N, 1, 1, 1)."""
        if self.spatial:
            copies = shifted_copies(x, self.vertical)
            scaled = [copy * tap for copy, tap in zip(copies, taps, strict=True)]
            x = torch.cat(scaled, 1)
        y: Tensor = self.conv(x)
        return y


def shifted_copies(x: Tensor, vertical: bool) -> list[Tensor]:
    """Return what each of three kernel positions sees of (N, C, H, W), zero outside."""
    if vertical:
        padded = F.pad(x, (0, 0, 1, 1))
        return [padded[:, :, :-2], x, padded[:, :, 2:]]
    padded = F.pad(x, (1, 1, 0, 0))
    return [padded[:, :, :, :-2], x, padded[:, :, :, 2:]]


class DynamicUnit(nn.Module):
    """An asymmetric pair of dynamic convolutions, 3x1 then 1x3, with a shortcut."""

    def __init__(self, channels: int, spatial: bool) -> None:
        super().__init__()
        self.attention = Attention(channels, taps=3 if spatial else 0)
        self.conv1 = DynamicConv(channels, True, spatial)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = DynamicConv(channels, False, spatial)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        """Apply the unit."""
        in1, out1, in2, out2, taps1, taps2 = self.attention(x)
        y = F.relu(self.bn1(self.conv1(x * in1, taps1) * out1))
        y = self.bn2(self.conv2(y * in2, taps2) * out2)
        return F.relu(x + y)


class StaticUnit(nn.Module):
    """A `DynamicUnit` for deployment: fewer passes over the activations, equal numbers.

    The attentions are positive, so `relu(u) * a = relu(u * a)`: batch normalisation, the output
    scale of the first convolution and the input scale of the second become one multiply-add.
    """

    bias1: Tensor
    bias2: Tensor

    def __init__(self, unit: DynamicUnit) -> None:
        super().__init__()
        self.attention = copy.deepcopy(unit.attention)
        self.conv1, bias1 = _scaled(unit.conv1, unit.bn1)
        self.conv2, bias2 = _scaled(unit.conv2, unit.bn2)
        self.register_buffer("bias1", bias1)
        self.register_buffer("bias2", bias2)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        """Apply the unit."""
        in1, out1, in2, out2, taps1, taps2 = self.attention(x)
        y = F.relu(self.conv1(x * in1, taps1) * (out1 * in2) + self.bias1 * in2)
        y = self.conv2(y, taps2) * out2 + self.bias2
        return F.relu(x + y)


def _scaled(dynamic: DynamicConv, bn: nn.BatchNorm2d) -> tuple[DynamicConv, Tensor]:
    """Return the convolution with the gain of `bn` in its kernel, and the bias that remains."""
    assert bn.running_var is not None and bn.running_mean is not None
    gain = bn.weight.detach() / (bn.running_var + bn.eps).sqrt()
    bias = bn.bias.detach() - bn.running_mean * gain
    result = copy.deepcopy(dynamic)
    result.conv.weight.data *= gain[:, None, None, None]
    return result, bias[None, :, None, None]


class DynamicStage(nn.Module):
    """Units on one half of the channels, which trades a half of itself after each.

    A channel shuffle (Zhang et al., "ShuffleNet", CVPR 2018) by blocks of a quarter: contiguous
    blocks need no transposition on the device, and quarters that wait are not joined meanwhile.
    """

    def __init__(self, channels: int, count: int, spatial: bool) -> None:
        super().__init__()
        self.sizes = (channels // 4, channels // 4, channels // 2)
        self.units = nn.ModuleList(DynamicUnit(channels // 2, spatial) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        """Apply the stage."""
        *waiting, active = x.split(self.sizes, 1)  # type: ignore[no-untyped-call]
        for unit in self.units:
            waiting, active = trade(waiting, unit(active))
        return torch.cat((*waiting, active), 1)


def trade(waiting: list[Tensor], active: Tensor) -> tuple[list[Tensor], Tensor]:
    """Let the first of two waiting quarters in for the second half of the active channels."""
    stays, leaves = active.chunk(2, 1)
    return [waiting[1], leaves], torch.cat((waiting[0], stays), 1)


class CrossFusion(nn.Module):
    """Every resolution brought to one grid and mixed by gates that depend on the frame."""

    def __init__(self, sources: tuple[int, ...], target: int) -> None:
        """Take the channels of each source, highest resolution first, and the target's index."""
        super().__init__()
        outputs = sources[target]
        self.target = target
        self.align = nn.ModuleList(
            _align(inputs, outputs, target - index) for index, inputs in enumerate(sources)
        )
        self.reduce = conv_bn(outputs, 16, 1)
        self.expand = nn.Conv2d(16, outputs * len(sources), 1)

    def forward(self, levels: list[Tensor]) -> Tensor:  # (N, C_i, H_i, W_i) -> (N, C, H, W)
        """Fuse the levels, highest resolution first."""
        aligned = [align(x) for align, x in zip(self.align, levels, strict=True)]
        # Nearest upsampling keeps the mean, and commutes with the gates: coarse levels are
        # averaged, weighed and added up on their own grids.
        means = [x.mean((2, 3), keepdim=True) for x in aligned]
        scores = self.expand(F.relu(self.reduce(sum(means[1:], means[0]))))
        gates = torch.stack(scores.chunk(len(aligned), 1)).softmax(0).unbind(0)
        weighed = [x * gate for x, gate in zip(aligned, gates, strict=True)]
        total = weighed[-1]
        for index in range(len(weighed) - 2, -1, -1):
            if index >= self.target:
                total = F.interpolate(total, scale_factor=2.0, mode="nearest")
            total = total + weighed[index]
        return F.relu(total)


def _align(inputs: int, outputs: int, halvings: int) -> nn.Module:
    """Map channels; halve the grid by depthwise convolutions where the source is finer."""
    if halvings == 0:
        return nn.Identity()
    down = [conv_bn(inputs, inputs, 3, stride=2, groups=inputs) for _ in range(halvings)]
    return nn.Sequential(*down, conv_bn(inputs, outputs, 1))


class PointHead(nn.Module):
    """A heatmap of target centres, and for each cell the place and scale of its target."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv = conv_bn(channels, hidden)
        self.heatmap = nn.Conv2d(hidden, 1, 1)
        self.geometry = nn.Conv2d(hidden, 3, 1)
        nn.init.constant_(self.heatmap.bias, HEATMAP_PRIOR)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, h, w)
        """Return heatmap logits (N, 1, h, w) and dx, dy, log sigma in cells (N, 3, h, w)."""
        y = F.relu(self.conv(x))
        offsets, log_sigma = self.geometry(y).split((2, 1), 1)
        return self.heatmap(y), torch.cat((offsets, log_sigma.clamp(*LOG_SIGMA_RANGE)), 1)


class ResBlock(nn.Module):
    """Two plain 3x3 convolutions with a shortcut, for the resolution where passes are dear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(channels, channels)
        self.conv2 = conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        """Apply the block."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class P2P(nn.Module):
    """Point-to-point regression network. H and W are multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, HIGH, 5, stride=2)
        self.high1 = ResBlock(HIGH)
        self.down_middle = conv_bn(HIGH, MIDDLE, 3, stride=2)
        self.middle1 = DynamicStage(MIDDLE, 2, spatial=False)
        self.down_low = nn.Sequential(
            conv_bn(MIDDLE, MIDDLE, 3, stride=2, groups=MIDDLE), conv_bn(MIDDLE, LOW, 1)
        )
        self.low = DynamicStage(LOW, 4, spatial=True)
        self.fuse_high = CrossFusion((HIGH, MIDDLE, LOW), target=0)
        self.fuse_middle = CrossFusion((HIGH, MIDDLE, LOW), target=1)
        self.high2 = ResBlock(HIGH)
        self.middle2 = DynamicStage(MIDDLE, 2, spatial=False)
        self.fuse = CrossFusion((HIGH, MIDDLE), target=0)
        self.enhance = conv_bn(HIGH, HIGH)
        self.head = PointHead(HIGH, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, 1, H, W) in 0..1
        """Return heatmap logits (N, 1, H/2, W/2) and dx, dy, log sigma (N, 3, H/2, W/2)."""
        high = self.high1(F.relu(self.stem(x)))  # (N, 32, H/2, W/2)
        middle = self.middle1(F.relu(self.down_middle(high)))  # (N, 96, H/4, W/4)
        low = self.low(F.relu(self.down_low(middle)))  # (N, 64, H/8, W/8)
        levels = [high, middle, low]
        high = self.high2(self.fuse_high(levels))
        middle = self.middle2(self.fuse_middle(levels))
        y = F.relu(self.enhance(self.fuse([high, middle])))  # (N, 32, H/2, W/2)
        heatmap, geometry = self.head(y)
        return heatmap, geometry

    def deploy(self) -> nn.Module:
        """Return a new network of static convolutions, batch normalisation folded.

        It takes and returns what `forward` does, equal up to rounding.
        """
        net = copy.deepcopy(self).eval()
        for stage in net.modules():
            if isinstance(stage, DynamicStage):
                stage.units = nn.ModuleList(StaticUnit(unit) for unit in stage.units)  # type: ignore[arg-type]
        fold_pairs(net)
        return net.eval()

    def set_temperature(self, temperature: float) -> None:
        """Soften every attention: training starts near uniform and ends at 1, the deployed value.

        Li et al., ICLR 2022, section 3.2, after Chen et al., "Dynamic Convolution", CVPR 2020.
        """
        for module in self.modules():
            if isinstance(module, Attention):
                module.temperature = temperature
