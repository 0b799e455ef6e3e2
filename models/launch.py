"""The device, the precision and the processes of a training, as one Fabric."""

from __future__ import annotations

import ctypes
import logging
import os

import torch
from lightning_fabric import Fabric

from irstd_edge.edge.types import IrstdError, MachineError

DEVICES = ("auto", "cpu", "cuda")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""


def launch(device: str, *, partial: bool = False, bfloat16: bool = True) -> Fabric:
    """Return a launched Fabric; under torchrun it joins the other processes.

    `partial` says that a step may leave parameters without a gradient, which several processes
    have to look for; `bfloat16` that it may compute in it. Raises IrstdError where the device is
    unknown, and MachineError where it is absent.
    """
    # It reports its choices as log lines; on the user's screen they would break the progress bar.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = _device(device)
    if device == "cpu":
        _keep_freed_memory()
    ddp = "ddp_find_unused_parameters_true" if partial else "ddp"
    fabric = Fabric(
        accelerator=device,
        devices=processes_here(),
        num_nodes=_environment("GROUP_WORLD_SIZE"),
        strategy=ddp if _environment("WORLD_SIZE") > 1 else "auto",
        precision="bf16-mixed" if precision_on(device, bfloat16) == "bfloat16" else "32-true",
    )
    fabric.launch()
    return fabric


def _device(name: str) -> str:
    if name not in DEVICES:
        raise IrstdError(f"--device: {name!r} is not one of {', '.join(DEVICES)}; choose one")
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("--device cuda: torch sees no CUDA GPU here; use --device cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _keep_freed_memory() -> None:
    """Have glibc give freed memory to the next step, not to the system: for this whole process.

    It gives back every large block, and the system clears each page of it again when a step asks
    anew: on 16 frames of 256x256 that was a fifth of MSHNet's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)


def precision_on(device: str, bfloat16: bool = True) -> str:
    """Return what a training computes in on cpu or cuda: bfloat16 or float32."""
    return "bfloat16" if bfloat16 and multiplies_bfloat16(device) else "float32"


def multiplies_bfloat16(device: str) -> bool:
    """Say whether bfloat16 pays: where the processor lacks it, it is emulated, and slow."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # The one source torch has for this is private and may go: then float32 is right anyhow.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())


def processes_here() -> int:
    """Return how many processes of this training run on this machine."""
    return _environment("LOCAL_WORLD_SIZE")


def _environment(name: str) -> int:
    """Return a count that torchrun sets; 1 outside of it."""
    return int(os.environ.get(name, "1"))
