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

    def changes(self, key: EngineKey, version: str) -> tuple[str, ...]:
        """What differs from where an engine was built, in words; empty where it runs here.

        version: of its backend here. No other version and no other GPU loads it, and its kernels
        were chosen by their time in the power mode of then.
        """
        then = dict(flag.split("=", 1) for flag in key.flags if "=" in flag)
        now = dict(flag.split("=", 1) for flag in self.flags)
        pairs = [
            (key.backend, key.version, version),
            ("GPU", key.gpu, self.gpu),
            ("target", key.target, self.target),
            *((name, then.get(name), value) for name, value in now.items()),
        ]
        return tuple(f"{name} {old} then, {new} now" for name, old, new in pairs if old != new)


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
