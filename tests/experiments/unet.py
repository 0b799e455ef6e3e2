"""A plain U-Net of MSHNet's widths: no attention, no shortcuts, one head.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irstd_edge.models.mshnet import MSHNet, MultiScale, ResBlock


def _double_conv(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class UNet(MSHNet):
    """Trained and scored as MSHNet is, for it passes as one."""

    def __init__(self) -> None:
        super().__init__()
        for name, stage in self.named_children():
            if isinstance(stage, nn.Sequential):
                first = stage[0]
                assert isinstance(first, ResBlock)
                conv = first.conv1
                setattr(self, name, _double_conv(conv.in_channels, conv.out_channels))
        for name in ("output_1", "output_2", "output_3", "final"):
            delattr(self, name)
        # It starts from "no target here". From 0 it had learnt nothing after 40 epochs: Lin et al.,
        # "Focal Loss for Dense Object Detection", ICCV 2017, section 3.3.
        assert self.output_0.bias is not None
        nn.init.constant_(self.output_0.bias, -4.0)

    def forward_all(self, x: Tensor) -> MultiScale:
        e0 = self.encoder_0(self.conv_init(x))
        e1 = self.encoder_1(F.max_pool2d(e0, 2))
        e2 = self.encoder_2(F.max_pool2d(e1, 2))
        e3 = self.encoder_3(F.max_pool2d(e2, 2))
        d = self.middle_layer(F.max_pool2d(e3, 2))
        for skip, decoder in (
            (e3, self.decoder_3),
            (e2, self.decoder_2),
            (e1, self.decoder_1),
            (e0, self.decoder_0),
        ):
            up = F.interpolate(d, scale_factor=2, mode="bilinear", align_corners=True)
            d = decoder(torch.cat((skip, up), 1))
        logits = self.output_0(d)
        return MultiScale(logits, [logits])
