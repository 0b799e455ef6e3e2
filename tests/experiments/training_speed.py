"""Frames a second of training MSHNet: ours against the loop of its authors, in turns.

python tests/experiments/training_speed.py --data NUDT-SIRST [--turns 5]

Theirs: batches of 4 frames of 256x256, float32, frames read and augmented one by one from disk.
Ours: the default recipe's batches, from memory, in the precision that `irstd-edge train` takes.
Both train every head on whole frames of 256x256, each in a process of its own, for ours changes
how a process holds its memory. On a GPU, too, each makes its batches as it trains: what ours has
made ahead while the other trained is used up before its time counts.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from plain_block import PlainBlock

from irstd_edge.edge.dataset import DataSet, open_dataset
from irstd_edge.edge.frames import normalise as edge_normalise
from irstd_edge.edge.frames import read_mask
from irstd_edge.models import spec_of
from irstd_edge.models.batches import Labelled, PaperAugmentation, crop, labelled, mask_batch
from irstd_edge.models.launch import launch
from irstd_edge.models.learner import Learner
from irstd_edge.models.losses import multi_scale_loss
from irstd_edge.models.mshnet import MSHNet, ResBlock, normalise
from irstd_edge.models.recipes import recipe_of

THEIR_BATCH = 4
FRAMES = {"cpu": {"theirs": 16, "ours": 16}, "cuda": {"theirs": 64, "ours": 512}}
"""Of a turn."""


def their_loop(data: DataSet, count: int, device: torch.device) -> Callable[[], None]:
    """A function that trains on the first `count` frames."""
    net = MSHNet().to(device).train()
    for module in net.modules():
        if isinstance(module, ResBlock):
            module.__class__ = PlainBlock
    optimizer = torch.optim.Adagrad(net.parameters(), lr=0.05)
    random = np.random.default_rng(0)

    def bare(name: str) -> Labelled:
        """A frame and its mask as they are read, without points."""
        image = edge_normalise(data.frame(name), spec_of("mshnet").input)
        mask = read_mask(data.masks[name]).astype(np.float32)
        return Labelled(image, mask, np.zeros((0, 2), np.float32), np.zeros(0, np.float32))

    def turn() -> None:
        for first in range(0, count, THEIR_BATCH):
            names = data.names[first : first + THEIR_BATCH]
            crops = [crop(bare(name), PaperAugmentation(), random) for name in names]
            frames, masks = (part.to(device) for part in mask_batch(crops))
            outputs = net.forward_all(normalise(frames))
            loss = multi_scale_loss(outputs, masks, name="sls", warm=False)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return turn


def our_loop(data: DataSet, count: int) -> Callable[[], None]:
    """A function that trains on as many frames by the default recipe, whole frames."""
    default = recipe_of("mshnet")
    recipe = replace(default, crops=default.crops[-1:], until=())
    learner = Learner(MSHNet(), recipe, 0, launch("auto"), fine_tunes=False)
    frames: list[Labelled] = [
        labelled(data.sample(name), spec_of("mshnet").input) for name in data.names[:count]
    ]
    epoch = -1

    def turn() -> None:
        nonlocal epoch
        epoch += 1
        learner.learn(frames, epoch)

    return turn


def answer(name: str, path: Path, questions: Connection) -> None:
    """Train for a turn whenever asked to, and tell the frames a second."""
    torch.manual_seed(0)
    data = open_dataset(path, "train")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frames = FRAMES[device.type][name]
    loop = our_loop(data, frames) if name == "ours" else their_loop(data, frames, device)
    while questions.recv():
        if device.type == "cuda":
            loop()
        start = time.perf_counter()
        loop()
        questions.send(frames / (time.perf_counter() - start))


def main() -> None:
    """Time both in turns and print the median and the range of their frames a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    speeds: dict[str, list[float]] = {"theirs": [], "ours": []}
    context = get_context("spawn")
    ends = {}
    for name in speeds:
        ends[name], other = context.Pipe()
        context.Process(target=answer, args=(name, options.data, other)).start()
    try:
        for turn in range(options.turns + 1):
            for name, end in ends.items():
                end.send(True)
                speed = end.recv()
                if turn:  # the first warms up
                    speeds[name].append(speed)
    finally:
        for end in ends.values():
            end.send(False)
    for name, values in speeds.items():
        print(f"{name}: {np.median(values):.2f} frames/s ({min(values):.2f} to {max(values):.2f})")
    ratios = np.divide(speeds["ours"], speeds["theirs"])
    print(f"ours / theirs: {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")


if __name__ == "__main__":
    main()
