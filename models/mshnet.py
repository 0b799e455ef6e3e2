"""MSHNet: a U-Net of attention blocks with a head on every scale.

Liu et al., "Infrared Small Target Detection with Scale and Location Sensitivity", CVPR 2024
(arXiv 2403.19366), section 3.3. The state-dict keys are those of the authors' weights.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irstd_edge.models.fold import fold_conv_bn
from irstd_edge.models.free_scales import FreeScale

WIDTHS = (16, 32, 64, 128, 256)
"""Channels at full resolution and after each of the four 2x2 max-poolings."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class _Gate(torch.autograd.Function):
    """x * weight, for a weight of one channel or of one pixel, with a backward pass that is fast.

    Autograd sums bfloat16 on the CPU by way of a copy in float32; a product with ones does not.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply (N, C, H, W) by (N, C, 1, 1) or (N, 1, H, W)."""
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of both."""
        x, weight = ctx.saved_tensors
        if x.is_cuda:
            over = (1,) if weight.shape[1] == 1 else (2, 3)
            return grad * weight, (grad * x).sum(over, keepdim=True)
        n, channels, height, width = x.shape
        product = (grad * x).permute(0, 2, 3, 1).reshape(n, height * width, channels)
        if weight.shape[1] == 1:
            summed = (product @ product.new_ones(channels, 1)).view(n, 1, height, width)
        else:
            summed = (product.new_ones(n, 1, height * width) @ product).view(n, channels, 1, 1)
        return grad * weight, summed


class _MeanAndPeak(torch.autograd.Function):
    """Mean and maximum over the channels, with a backward pass that touches them once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2, H, W)."""
        peak, index = x.max(1, keepdim=True)
        ctx.save_for_backward(index)
        ctx.channels = x.shape[1]
        if x.is_cuda:
            return torch.cat((x.mean(1, keepdim=True), peak), 1)
        ones = x.new_full((ctx.channels, 1), 1 / ctx.channels)
        mean = (x.permute(0, 2, 3, 1) @ ones).permute(0, 3, 1, 2)
        return torch.cat((mean.to(peak.dtype), peak), 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Share the mean's gradient among all channels, and give the maximum's to its own."""
        (index,) = ctx.saved_tensors
        shared = (grad[:, :1] / ctx.channels).expand(-1, ctx.channels, -1, -1)
        shared = shared.contiguous(memory_format=torch.channels_last)
        both: Tensor = shared.scatter_add_(1, index, grad[:, 1:].contiguous())
        return both


class _FrameMeanAndPeak(torch.autograd.Function):
    """Mean and maximum over the frame, on a GPU, with a backward pass that touches it once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, 1, 1), twice."""
        peak, index = x.flatten(2).max(2)
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.mean((2, 3), keepdim=True), peak[..., None, None]

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_peak: Tensor) -> Tensor:
        """Share the mean's gradient among all pixels, and give the maximum's to its own."""
        (index,) = ctx.saved_tensors
        n, channels, height, width = ctx.shape
        shared = (of_mean / (height * width)).expand(ctx.shape)
        both: Tensor = shared.contiguous(memory_format=torch.channels_last)
        pixels = both.permute(0, 2, 3, 1).view(n, height * width, channels)
        pixels.scatter_add_(1, index[:, None], of_peak.to(both.dtype).view(n, 1, channels))
        return both


class ChannelAttention(nn.Module):
    """A weight in 0..1 for every channel, from its mean and its maximum over the frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 16
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, 1, 1)
        """Return the weights."""
        mean, peak = self._pooled(x)
        score: Tensor = self.fc2(F.relu(self.fc1(mean))) + self.fc2(F.relu(self.fc1(peak)))
        return score.sigmoid()

    def _pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and x.is_cuda:
            return _FrameMeanAndPeak.apply(x)  # type: ignore[no-untyped-call, no-any-return]
        mean = x.mean((2, 3), keepdim=True)
        # amax for deployment: the export of a pooling layer bakes the frame's size into the graph.
        # Its backward pass looks for ties in the whole frame; that of the layer does not.
        peak = F.adaptive_max_pool2d(x, 1) if self.training else x.amax((2, 3), keepdim=True)
        return mean, peak


class SpatialAttention(nn.Module):
    """A weight in 0..1 for every pixel, from the mean and the maximum over its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 1, H, W)
        """Return the weights."""
        if self.training:
            both = _MeanAndPeak.apply(x)  # type: ignore[no-untyped-call]
        else:
            both = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        score: Tensor = self.conv1(both)
        return score.sigmoid()


class ResBlock(nn.Module):
    """Two 3x3 convolutions, channel then spatial attention, and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2: nn.Module = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.ca = ChannelAttention(outputs)
        self.sa = SpatialAttention()
        self.gain: Tensor | None
        self.register_buffer("gain", None)  # (outputs, 1, 1), see `MSHNet.free_scales`

    def forward(self, x: Tensor) -> Tensor:  # (N, inputs, H, W) -> (N, outputs, H, W)
        """Apply the block."""
        y: Tensor = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        gate = _Gate.apply if self.training else torch.mul
        y = gate(y, self.ca(y))
        y = gate(y, self.sa(y))
        if self.gain is not None:
            y = y * self.gain
        return F.relu(y + self.shortcut(x))

    def fold(self) -> None:
        """Fold the batch normalisations, in place."""
        assert isinstance(self.bn1, nn.BatchNorm2d) and isinstance(self.bn2, nn.BatchNorm2d)
        self.conv1, self.bn1 = fold_conv_bn(self.conv1, self.bn1), nn.Identity()
        self.conv2, self.bn2 = fold_conv_bn(self.conv2, self.bn2), nn.Identity()
        if isinstance(self.shortcut, nn.Sequential):
            conv, bn = self.shortcut
            assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
            self.shortcut = fold_conv_bn(conv, bn)


def _blocks(inputs: int, outputs: int, count: int) -> nn.Sequential:
    first = ResBlock(inputs, outputs)
    return nn.Sequential(first, *(ResBlock(outputs, outputs) for _ in range(count - 1)))


def _up(x: Tensor, factor: int = 2) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)


class MultiScale(NamedTuple):
    """All outputs of MSHNet, as logits."""

    final: Tensor
    """(N, 1, H, W): the fused head, the deployed output."""
    heads: list[Tensor]
    """m0..m3, (N, 1, H / 2**i, W / 2**i): the head of every scale."""


class MSHNet(nn.Module):
    """The network of the paper. H and W are multiples of 16.

    `head_size` is 1 in the published weights; a variant with 3x3 heads exists.
    """

    def __init__(self, head_size: int = 1) -> None:
        super().__init__()
        w = WIDTHS
        self.conv_init = nn.Conv2d(3, w[0], 1)
        self.encoder_0 = _blocks(w[0], w[0], 1)
        self.encoder_1 = _blocks(w[0], w[1], 2)
        self.encoder_2 = _blocks(w[1], w[2], 2)
        self.encoder_3 = _blocks(w[2], w[3], 2)
        self.middle_layer = _blocks(w[3], w[4], 2)
        self.decoder_3 = _blocks(w[3] + w[4], w[3], 2)
        self.decoder_2 = _blocks(w[2] + w[3], w[2], 2)
        self.decoder_1 = _blocks(w[1] + w[2], w[1], 2)
        self.decoder_0 = _blocks(w[0] + w[1], w[0], 1)
        pad = head_size // 2
        self.output_0 = nn.Conv2d(w[0], 1, head_size, padding=pad)
        self.output_1 = nn.Conv2d(w[1], 1, head_size, padding=pad)
        self.output_2 = nn.Conv2d(w[2], 1, head_size, padding=pad)
        self.output_3 = nn.Conv2d(w[3], 1, head_size, padding=pad)
        self.final = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, 1, H, W)
        """Return the final logits of frames normalised by ImageNet's mean and deviation."""
        return self.forward_all(x).final

    def forward_all(self, x: Tensor) -> MultiScale:  # (N, 3, H, W)
        """Return the final logits and those of every scale."""
        e0 = self.encoder_0(self.conv_init(x))  # (N, 16, H, W)
        e1 = self.encoder_1(F.max_pool2d(e0, 2))  # (N, 32, H/2, W/2)
        e2 = self.encoder_2(F.max_pool2d(e1, 2))  # (N, 64, H/4, W/4)
        e3 = self.encoder_3(F.max_pool2d(e2, 2))  # (N, 128, H/8, W/8)
        middle = self.middle_layer(F.max_pool2d(e3, 2))  # (N, 256, H/16, W/16)
        d3 = self.decoder_3(torch.cat((e3, _up(middle)), 1))  # (N, 128, H/8, W/8)
        d2 = self.decoder_2(torch.cat((e2, _up(d3)), 1))  # (N, 64, H/4, W/4)
        d1 = self.decoder_1(torch.cat((e1, _up(d2)), 1))  # (N, 32, H/2, W/2)
        d0 = self.decoder_0(torch.cat((e0, _up(d1)), 1))  # (N, 16, H, W)
        heads = [self.output_0(d0), self.output_1(d1), self.output_2(d2), self.output_3(d3)]
        aligned = [heads[0], *(_up(m, 2**i) for i, m in enumerate(heads[1:], start=1))]
        return MultiScale(self.final(torch.cat(aligned, 1)), heads)

    def deploy(self) -> nn.Module:
        """Return a new network of the one-channel frame in 0..1, batch normalisation folded.

        (N, 1, H, W) -> (N, 1, H, W) logits, equal to `forward` of the frame as three equal
        channels, normalised: `conv_init` is 1x1, so both fold into it exactly, and it into the
        first block, which then reads the frame instead of sixteen multiples of it.
        """
        net = copy.deepcopy(self).eval()
        for module in list(net.modules()):
            if isinstance(module, ResBlock):
                module.fold()
        net.conv_init = _read_frame(_first(net.encoder_0), _one_channel(net.conv_init))
        return net.eval()  # the identities that took the place of a module, too

    def free_scales(self) -> list[FreeScale]:
        """The maps of a deployed network that may be rescaled, inside blocks and of stages.

        It adds buffers: every block of a stage gets a `gain` to share its stage's factors, one
        multiplication by channel behind the spatial attention, which looks at the mean of its
        channels. The last decoder needs none, for only its head reads it.
        """
        encoders = (self.encoder_0, self.encoder_1, self.encoder_2, self.encoder_3)
        below = (*encoders[1:], self.middle_layer)
        decoders = (self.decoder_0, self.decoder_1, self.decoder_2, self.decoder_3)
        joined = (*decoders[1:], self.middle_layer)
        heads = ((self.output_1.weight,), (self.output_2.weight,), (self.output_3.weight,), ())
        scales = [_inside(module) for module in self.modules() if isinstance(module, ResBlock)]
        for i, width in enumerate(WIDTHS[:-1]):
            skip = [weight[:, :width] for weight in _entry(decoders[i])]
            rest = [weight[:, width:] for weight in _entry(decoders[i])]
            scales.append(_output(encoders[i], below[i], [*_entry(below[i]), *skip]))
            scales.append(_output(joined[i], decoders[i], [*rest, *heads[i]]))
        return scales


def _inside(block: ResBlock) -> FreeScale:
    makers = (block.conv1.weight, _bias(block.conv1))
    return FreeScale(block.conv2, block.conv2.in_channels, makers, (block.conv2.weight,))


def _first(stage: nn.Sequential) -> ResBlock:
    block = stage[0]
    assert isinstance(block, ResBlock)
    return block


def _entry(stage: nn.Sequential) -> tuple[Tensor, Tensor]:
    """The kernels that read what enters a stage."""
    block = _first(stage)
    assert isinstance(block.shortcut, nn.Conv2d)
    return block.conv1.weight, block.shortcut.weight


def _output(stage: nn.Sequential, reader: nn.Sequential, readers: Sequence[Tensor]) -> FreeScale:
    """What a stage gives, the blocks inside it included; gives each of them a gain."""
    makers: list[Tensor] = []
    within: list[Tensor] = []
    channels = 0
    for block in stage:
        assert isinstance(block, ResBlock)
        channels = block.conv2.out_channels
        if block.gain is None:
            block.gain = block.conv2.weight.new_ones(channels, 1, 1)
        makers.append(block.gain)
        if isinstance(block.shortcut, nn.Conv2d):  # the first, and it alone
            makers += [block.shortcut.weight, _bias(block.shortcut)]
        else:
            within.append(block.conv1.weight)
    return FreeScale(_first(reader).conv1, channels, tuple(makers), (*within, *readers))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def normalise(frames: Tensor) -> Tensor:  # (N, 1, H, W) in 0..1 -> (N, 3, H, W)
    """Return grey frames as the three normalised channels that MSHNet was trained on."""
    moments = zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
    return torch.cat([(frames - mean) / std for mean, std in moments], 1)


def _one_channel(conv: nn.Conv2d) -> nn.Conv2d:
    """Fold the normalisation and the sum over three equal channels into the 1x1 stem."""
    weight = conv.weight.detach()
    assert conv.bias is not None
    std = weight.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
    mean = weight.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    scaled = weight / std
    grey = nn.Conv2d(1, conv.out_channels, 1).to(weight)
    assert grey.bias is not None
    grey.weight.data = scaled.sum(1, keepdim=True)
    grey.bias.data = conv.bias.detach() - (scaled * mean).sum((1, 2, 3))
    return grey


def _read_frame(block: ResBlock, stem: nn.Conv2d) -> nn.Conv2d:
    """Fold a stem of one channel, (C, 1, 1, 1), into the block that reads it, in place.

    Returns the new stem: the frame, and beside it a map of ones. What the old one added to every
    pixel is then a weight like others, and ends at the border as it did, where padding is 0.
    """
    assert stem.bias is not None
    slope, offset = stem.weight.detach()[:, 0, 0, 0], stem.bias.detach()
    old = block.conv1
    block.conv1 = nn.Conv2d(2, old.out_channels, 3, padding=1).to(slope)
    block.conv1.bias = old.bias
    parts = [torch.einsum("oikl,i->okl", old.weight.detach(), part) for part in (slope, offset)]
    block.conv1.weight.data = torch.stack(parts, 1)
    block.shortcut = nn.Conv2d(2, stem.out_channels, 1).to(slope)
    block.shortcut.weight.data = torch.stack((slope, torch.zeros_like(slope)), 1)[..., None, None]
    block.shortcut.bias = stem.bias
    frame_and_ones = nn.Conv2d(1, 2, 1).to(slope)
    frame_and_ones.weight.data = slope.new_tensor([[[[1.0]]], [[[0.0]]]])
    assert frame_and_ones.bias is not None
    frame_and_ones.bias.data = slope.new_tensor([0.0, 1.0])
    return frame_and_ones
