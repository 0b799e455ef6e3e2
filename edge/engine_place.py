"""What an engine depends on of the machine that it is built on: asked for before and after."""

from __future__ import annotations

from dataclasses import dataclass

from irstd_edge.edge.devices import Machine
from irstd_edge.edge.engine_plan import THIS
from irstd_edge.edge.engine_store import EngineKey
from irstd_edge.edge.gpu import Gpu


@dataclass(frozen=True)
class EnginePlace:
    """Where engines are built and run."""

    gpu: str | None
    """Name and multiprocessors; None for a GPU that is not here."""
    target: str
    """Compute capability, as in sm_87."""
    flags: tuple[str, ...] = ()
    """Of a Jetson: its module, and its power mode, for kernels are chosen by their time."""

    def serves(self, key: EngineKey) -> bool:
        """Whether an engine of this key was built in such a place."""
        same = (key.gpu, key.target) == (self.gpu, self.target)
        return same and set(self.flags) <= set(key.flags)


def engine_place(gpu: Gpu | None, machine: Machine) -> EnginePlace:
    """This one, of `this_gpu` and `this_machine`.

    All modules of a generation call their GPU by one name: multiprocessors and module tell them
    apart.
    """
    flags = []
    if machine.is_jetson:
        flags += [f"module={machine.module}"] if machine.module else []
        mode = str(machine.power_mode).partition(" (")[0]  # its name is not always told
        flags += [f"power={mode}"]
    if gpu is None:
        return EnginePlace(None, THIS, tuple(flags))
    words = f"{gpu.name}, {gpu.multiprocessors} multiprocessors"
    return EnginePlace(words, f"sm_{gpu.sm}", tuple(flags))
