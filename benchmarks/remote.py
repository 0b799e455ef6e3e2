"""bench on another machine: bundles and frames go there, bench.json comes back."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from irstd_edge import __version__
from irstd_edge.benchmarks.bench import complete
from irstd_edge.benchmarks.plan import Plan
from irstd_edge.benchmarks.schema import read_bench
from irstd_edge.edge.bundle import MANIFEST, Bundle
from irstd_edge.edge.dataset import DataSet
from irstd_edge.edge.lists import list_of_split
from irstd_edge.edge.ssh import Host
from irstd_edge.edge.types import IrstdError, MachineError

PYTHON = "IRSTD_EDGE_REMOTE_PYTHON"
"""Environment: as --remote-python."""
MARGIN = 1.1
"""Of free space, beside the files: their blocks, and bench.json."""
BUNDLES, DATA, BENCH = "bundles", "data", "bench.json"
LABELS = ("points.json", "dataset.json")
KILLED = {
    137: "bench was killed there, mostly for memory: close what else runs, or bench fewer bundles",
    139: "bench crashed there (segmentation fault): look at dmesg, and at its runtimes' versions",
}
"""Exit code there -> what it means: 128 and the number of a signal."""
VERSION = "irstd-edge version "
SAY_VERSION = f"import irstd_edge; print('{VERSION}' + irstd_edge.__version__)"
OURS = "irstd-edge: "
"""How our own errors begin."""
BOX = "│╭╰╮╯─ "
"""What Typer draws around its messages."""


@dataclass(frozen=True)
class Remote:
    """A machine and the Python there that has irstd-edge."""

    host: Host
    python: str = "python3"
    """Path or name; a path that does not begin with / starts at the home folder."""

    @property
    def command(self) -> str:
        """For sh there, in whichever folder."""
        if "/" in self.python and not self.python.startswith("/"):
            return "~/" + shlex.quote(self.python.removeprefix("~/"))
        return shlex.quote(self.python)

    def version(self) -> str:
        """Of irstd-edge there. Raises MachineError where it is not installed."""
        # Not in the home folder: Python imports what lies where it is started.
        done = self.host.run(f"cd / && {self.command} -c {shlex.quote(SAY_VERSION)}")
        said = [line for line in done.stdout.splitlines() if line.startswith(VERSION)]
        if done.returncode != 0 or not said:
            lack = "has no irstd-edge" if "irstd_edge" in done.stderr else "does not run"
            raise MachineError(
                f"--host {self.host.name}: {self.python} {lack} there: pip install irstd-edge "
                "there, or name the Python that has it by --remote-python"
            )
        return said[-1].removeprefix(VERSION)


def default_python() -> str:
    """What --remote-python is when it is not given."""
    return os.environ.get(PYTHON) or "python3"


def bench_there(
    remote: Remote, bundles: Sequence[Bundle], plan: Plan, device: str
) -> dict[str, Any]:
    """Run `irstd-edge bench` there; the value of its bench.json, marked with where it was measured.

    plan: without runtimes, for all that are installed there. device: cpu, cuda or jetson; never
    a projection. What was copied is removed there before this returns or raises.

    Raises:
        IrstdError: what bench there says that the user can fix.
        MachineError: no connection, no irstd-edge, no space, or what bench there says of itself.
    """
    version = remote.version()
    if version != __version__:
        raise MachineError(
            f"--host {remote.host.name}: has irstd-edge {version}, and {__version__} is here: "
            "install the same wheel on both"
        )
    with TemporaryDirectory() as here, remote.host.folder() as there:
        staged = stage(Path(here), bundles, plan.data)
        _check_space(remote.host, staged, there)
        remote.host.send(staged, there)
        done = _run(remote, there, len(bundles), _options(plan, device))
        if done.returncode != 0:
            raise _failure(remote.host, done, there, bundles, plan.data)
        remote.host.fetch(f"{there}/{BENCH}", Path(here) / BENCH)
        found = read_bench(Path(here) / BENCH)
    found["machine"] |= {"host": remote.host.name, "irstd_edge": version}
    if [result.get("bundle") for result in found["results"]] != [b.sha256 for b in bundles]:
        raise MachineError(
            f"--host {remote.host.name}: measured other bundles than it was sent: run again"
        )
    for result, bundle in zip(found["results"], bundles, strict=True):
        complete(result, bundle, plan)
    return found


def stage(root: Path, bundles: Sequence[Bundle], data: DataSet | None) -> list[Path]:
    """Links to all that goes there and to nothing else; the folders to copy."""
    for index, bundle in enumerate(bundles):
        for name in (MANIFEST, *bundle.manifest.files):
            _link(root / BUNDLES / str(index) / name, bundle.path / name)
    if data is None:
        return [root / BUNDLES]
    listing = list_of_split(data.root, data.split)
    labels = (path for name in LABELS if (path := data.root / name).is_file())
    for path in (listing, *data.files(), *labels):
        _link(root / DATA / path.relative_to(data.root), path)
    return [root / BUNDLES, root / DATA]


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target.absolute())


def _check_space(host: Host, staged: Sequence[Path], there: str) -> None:
    """Before minutes of copying, not after."""
    files = (file for folder in staged for file in folder.rglob("*") if file.is_file())
    needed, free = MARGIN * sum(file.stat().st_size for file in files), host.free_bytes(there)
    if free is not None and free < needed:
        raise host.full(there)


def _options(plan: Plan, device: str) -> list[str]:
    """The plan in the words of the command line, but for the data's place."""
    options = ["--device", device, "--require-measured", "--samples", str(plan.samples)]
    options += [] if plan.threads is None else ["--threads", str(plan.threads)]
    options += [] if plan.batch == 1 else ["--batch", str(plan.batch)]
    options += [] if plan.rate_hz is None else ["--rate-hz", repr(plan.rate_hz)]
    options += [] if plan.noise_counts is None else ["--noise", repr(plan.noise_counts)]
    options += [] if plan.size is None else ["--size", "x".join(map(str, plan.size))]
    if plan.data is not None:
        options += ["--split", plan.data.split, "--protocol", plan.protocol]
        options += ["--strict"] if plan.strict else []
    options += [word for name in plan.variants or () for word in ("--variant", name)]
    return options + [word for name in plan.runtimes for word in ("--runtime", name)]


def _run(
    remote: Remote, there: str, bundles: int, options: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """In the folder, with its temporary files there; the folder's keeper ends it if we are gone."""
    arguments = [f"{there}/{BUNDLES}/{index}" for index in range(bundles)]
    arguments += ["--data", f"{there}/{DATA}"] if "--split" in options else []
    arguments += [*options, "--json", f"{there}/{BENCH}"]
    bench = f"{remote.command} -m irstd_edge.cli bench {shlex.join(arguments)}"
    folder = shlex.quote(there)
    return remote.host.run(
        f"cd {folder} || exit; TMPDIR={folder} {bench} > /dev/null & "
        "echo $! > pid; wait $!; code=$?; rm -f pid; exit $code"
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The line that says why bench ended there."""
    if (killed := KILLED.get(done.returncode)) is not None:
        return killed
    lines = [line.strip(BOX) for line in done.stderr.splitlines()]
    lines = [line for line in lines if line]
    ours = [line.removeprefix(OURS) for line in lines if line.startswith(OURS)]
    return (ours or lines or [f"exit code {done.returncode}"])[-1]


def _failure(
    host: Host,
    done: subprocess.CompletedProcess[str],
    there: str,
    bundles: Sequence[Bundle],
    data: DataSet | None,
) -> IrstdError:
    """What bench said there, with our names for the files."""
    said = _said(done)
    for index, bundle in enumerate(bundles):
        said = said.replace(f"{there}/{BUNDLES}/{index}", str(bundle.path))
    if data is not None:
        said = said.replace(f"{there}/{DATA}", str(data.root))
    if "No space left" in said:
        return host.full(there)
    kind = IrstdError if done.returncode == 2 else MachineError
    return kind(f"--host {host.name}: {said}")
