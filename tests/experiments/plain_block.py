"""MSHNet's block as its authors compute it: every gradient by autograd."""

import torch
from torch import Tensor

from irstd_edge.models.mshnet import ResBlock


class PlainBlock(ResBlock):
    """Takes and gives what `ResBlock` does."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        means, peaks = y.mean((2, 3), keepdim=True), y.amax((2, 3), keepdim=True)
        fc1, fc2 = self.ca.fc1, self.ca.fc2
        y = (fc2(torch.relu(fc1(means))) + fc2(torch.relu(fc1(peaks)))).sigmoid() * y
        both = torch.cat((y.mean(1, keepdim=True), y.amax(1, keepdim=True)), 1)
        y = self.sa.conv1(both).sigmoid() * y
        return torch.relu(y + self.shortcut(x))
