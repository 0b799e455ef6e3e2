"""What this machine can do, what is missing for the rest, and the command that brings it."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irstd_edge.edge.clocks import LOCK, clocks_locked
from irstd_edge.edge.devices import Machine, this_machine
from irstd_edge.edge.engine_from_onnx import INSTALLS, OLDEST_TENSORRT, is_too_old
from irstd_edge.edge.engine_plan import BACKENDS
from irstd_edge.edge.engine_store import EngineStore, default_root
from irstd_edge.edge.gpu import Gpu, cuda_refusal, this_gpu
from irstd_edge.edge.signing import INSTALL

WEIGHTS = Path(__file__).parent.parent / "models" / "weights"
PACKAGES = (
    ("onnxruntime", "onnxruntime", "runs bundles", "pip install irstd-edge"),
    ("openvino", "openvino", "fast INT8 on x86", "pip install 'irstd-edge[openvino]'"),
    ("torch", "torch", "train, eval of weights", "pip install 'irstd-edge[train]'"),
    ("nncf", "nncf", "quantize", "pip install 'irstd-edge[train]'"),
    ("onnx", "onnx", "GFLOPs, projections, compile --dla", "pip install onnx"),
    ("polygraphy", "polygraphy", "compile", "pip install polygraphy"),
    ("cryptography", "cryptography", "sign, --public-key", INSTALL),
)
"""Distribution, module, what for, how to get it."""
INT8_FEATURES = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True)
class Finding:
    """One thing that this machine has or lacks."""

    name: str
    what_for: str
    found: str | None
    """Version, model or path; None where it is missing."""
    fix: str | None
    """What brings it, where it is missing and can be brought."""

    @property
    def ok(self) -> bool:
        """Whether it is there."""
        return self.found is not None

    def record(self) -> dict[str, Any]:
        """For `doctor --json`."""
        return {**asdict(self), "ok": self.ok}


def examine(
    machine: Machine | None = None,
    gpu: Callable[[], Gpu | None] = this_gpu,
    which: Callable[[str], str | None] = shutil.which,
    installed: Callable[[str, str], str | None] | None = None,
    weights: Path = WEIGHTS,
    refusal: Callable[[Machine], str | None] = cuda_refusal,
    store: Path | None = None,
    locked: Callable[[], bool | None] = clocks_locked,
) -> tuple[Finding, ...]:
    """Look at everything; nothing heavy is imported and nothing is changed.

    The arguments stand in for this machine in tests. `installed` takes distribution and module.
    """
    here = machine or this_machine()
    version_of = installed or _version
    return (
        Finding("python", "this program", ".".join(map(str, sys.version_info[:3])), None),
        _int8(here),
        *_packages(version_of),
        _gpu(gpu(), lambda: refusal(here)),
        *_backends(version_of),
        _engines(store or default_root()),
        _jetson(here),
        *([_clocks(locked())] if here.is_jetson else []),
        _ssh(which),
        _weights(weights),
    )


def _version(distribution: str, module: str) -> str | None:
    """Of an importable module; JetPack's TensorRT is one without a distribution."""
    if find_spec(module) is None:
        return None
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"


def _packages(version_of: Callable[[str, str], str | None]) -> list[Finding]:
    findings = []
    for distribution, module, what_for, install in PACKAGES:
        found = version_of(distribution, module)
        findings.append(Finding(distribution, what_for, found, None if found else install))
    return findings


def _backends(version_of: Callable[[str, str], str | None]) -> list[Finding]:
    findings = []
    for name, module in BACKENDS.items():
        found = version_of(name, module)
        fix = None if found else INSTALLS[name]
        if found and name == "tensorrt" and is_too_old(found):
            found, fix = None, f"{found} is here, {OLDEST_TENSORRT} or newer is needed: JetPack 6.1"
        findings.append(Finding(name, f"compile --backend {name}", found, fix))
    return findings


def _engines(store: Path) -> Finding:
    kept = EngineStore(store, secret=b"")  # which takes none to look
    keys = kept.keys()
    size_mb = sum(kept.path(key).stat().st_size for key in keys) / 1e6
    backends = Counter(key.backend for key in keys)
    counts = ", ".join(f"{count} of {backend}" for backend, count in sorted(backends.items()))
    found = f"{counts}: {size_mb:.1f} MB, in {store}" if keys else None
    fix = None if found else "irstd-edge compile BUNDLE, on the machine that runs them"
    return Finding("engines", "what compile has kept", found, fix)


def _int8(machine: Machine) -> Finding:
    there = [name for name in INT8_FEATURES if name in machine.isa.split("+")]
    what_for = "8-bit dot products: INT8 at its fastest, and without clipping"
    fix = None if there else "not on this processor: OpenVINO still gains; quantize --reduced-range"
    return Finding("cpu", what_for, ", ".join(there) or None, fix)


def _gpu(gpu: Gpu | None, refusal: Callable[[], str | None]) -> Finding:
    what_for = "train --device cuda, compile --target this"
    if gpu is not None:
        return Finding("gpu", what_for, f"{gpu.name}, sm_{gpu.sm}", None)
    none = "an NVIDIA GPU with its driver; TensorRT-RTX compiles without one"
    return Finding("gpu", what_for, None, refusal() or none)


def _jetson(here: Machine) -> Finding:
    known = filter(None, (here.board, here.module, here.l4t))
    found = ", ".join(known) if here.is_jetson else None
    fix = None if found else "a board: bench --host USER@HOST measures there; here it projects"
    return Finding("jetson", "bench --device jetson, measured", found, fix)


def _clocks(locked: bool | None) -> Finding:
    fix = None if locked else f"{LOCK}, after every start: unlocked, speed follows load"
    return Finding("clocks", "speeds that compare", "locked" if locked else None, fix)


def _ssh(which: Callable[[str], str | None]) -> Finding:
    found = which("ssh")
    return Finding(
        "ssh", "bench --host", found, None if found else "sudo apt install openssh-client"
    )


def _weights(folder: Path) -> Finding:
    names = sorted(path.stem for path in folder.glob("*.safetensors"))
    fix = None if names else "install the released package: this copy lacks its weights"
    return Finding("shipped weights", "demo, eval p2p", ", ".join(names) or None, fix)
