"""Batch normalisation folded into the convolution in front of it."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a new convolution that equals `bn(conv(x))` in evaluation mode."""
    return fuse_conv_bn_eval(conv.eval(), bn.eval())


def fold_pairs(net: nn.Module) -> None:
    """Replace every `nn.Sequential(conv, bn)` inside `net` by one convolution, in place."""
    for name, child in net.named_children():
        pair = list(child) if isinstance(child, nn.Sequential) else []
        match pair:
            case [nn.Conv2d() as conv, nn.BatchNorm2d() as bn]:
                setattr(net, name, fold_conv_bn(conv, bn))
            case _:
                fold_pairs(child)
