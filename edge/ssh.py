"""Another machine, reached by the user's own OpenSSH: run there, copy there and back.

Nothing asks for a password, and nothing stays there: a folder is made by a session that hears from
us every few seconds, so it is removed when the block ends and also when the connection is lost, of
which the other side may hear nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from irstd_edge.edge.types import IrstdError, MachineError

CONFIG = "IRSTD_EDGE_SSH_CONFIG"
"""Environment: a file for `ssh -F`, where ~/.ssh/config is not the one to use."""
OPTIONS = (
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=10"),
    *("-o", "ServerAliveCountMax=3"),
    *("-o", "LogLevel=ERROR"),
)
"""No questions; a host that is silent for half a minute is lost."""
NO_CONNECTION = 255
"""What ssh exits with when it was its own failure."""
CLOSED = "closed by remote host"
"""What ssh says last where the command's end still arrived before the connection was lost."""
REMOVE_LIMIT_S = 40.0
BEAT_S, SILENCE_S = 10.0, 60
"""How often the keeper is told that we are there, and after how long without it gives us up."""

KEEPER = """\
trap '' HUP TERM INT
umask 077
d=$(mktemp -d "${TMPDIR:-/tmp}/irstd-edge.XXXXXXXXXX") || exit 73
echo "FOLDER $d"
if command -v timeout > /dev/null; then
  while [ -n "$(timeout -s KILL $silence dd bs=1 count=1 2> /dev/null)" ]; do :; done
else
  cat > /dev/null
fi
if [ -f "$d/pid" ]; then
  p=$(cat "$d/pid")
  kill "$p" 2> /dev/null
  n=0
  while kill -0 "$p" 2> /dev/null && [ $n -lt 5 ]; do sleep 1; n=$((n + 1)); done
  kill -9 "$p" 2> /dev/null
fi
rm -rf "$d"
"""
"""Makes a folder, says where, and removes it when its input ends or nothing comes for `silence`
seconds; what still runs in the folder is ended first."""

TOLD = "FOLDER "

FIXES = (
    ("Permission denied (", "give it your key: ssh-copy-id {}"),
    ("Host key verification failed", "look at its key and accept it: ssh {}"),
    ("Could not resolve", "check the name, or give its address"),
    ("Connection refused", "start its SSH server, or check the port in ~/.ssh/config"),
    ("timed out", "check its address, and that it is on"),
    ("No route", "check its address, and that it is on"),
)
"""What ssh says -> what helps."""


@dataclass(frozen=True)
class Host:
    """Where to go, as ssh knows it."""

    name: str
    """USER@HOST, HOST, or a name of ~/.ssh/config."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(?!-)[\w.-]+(@(?!-)[\w.-]+)?", self.name, re.ASCII):
            raise IrstdError(
                f"--host: {self.name!r} is not USER@HOST: put ports and the like into ~/.ssh/config"
            )

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of sh there; its exit code and outputs. Raises MachineError if cut off."""
        done = _call([*_program("ssh"), self.name, f"sh -c {shlex.quote(script)}"])
        lost = done.returncode and _last_line(done.stderr).endswith(CLOSED)
        if done.returncode == NO_CONNECTION or lost:
            raise self.unreachable(done.stderr)
        return done

    def send(self, files: Sequence[Path], folder: str) -> None:
        """Copy files and folders into a folder there, following links. Raises MachineError."""
        sources = [str(path.absolute()) for path in files]
        done = _call([*_program("scp"), "-q", "-r", *sources, f"{self.name}:{folder}/"])
        if done.returncode != 0:
            raise self.not_copied(done.stderr, folder)

    def fetch(self, file: str, to: Path) -> None:
        """Copy a file from there. Raises MachineError."""
        done = _call([*_program("scp"), "-q", f"{self.name}:{file}", str(to.absolute())])
        if done.returncode != 0:
            raise self.not_copied(done.stderr, str(Path(file).parent))

    def free_bytes(self, folder: str) -> int | None:
        """Space that is left there, or None where it cannot be told."""
        lines = self.run(f"df -Pk {shlex.quote(folder)}").stdout.splitlines()
        cells = lines[-1].split() if len(lines) > 1 else []
        return int(cells[3]) * 1024 if len(cells) > 3 and cells[3].isdecimal() else None

    @contextmanager
    def folder(self) -> Iterator[str]:
        """A new folder there, of this user alone; gone when the block has ended, however it did."""
        script = f"silence={SILENCE_S}\n{KEEPER}"
        keeper = _start([*_program("ssh"), self.name, f"sh -c {shlex.quote(script)}"])
        assert keeper.stdout is not None and keeper.stderr is not None
        done = threading.Event()
        beats = threading.Thread(target=_beat, args=(keeper, done), daemon=True)
        beats.start()
        try:
            # What the user's shell prints at every start comes first.
            told = next((line for line in keeper.stdout if line.startswith(TOLD)), None)
            if told is None:
                code = keeper.wait()
                said = keeper.stderr.read()
                if code == NO_CONNECTION:
                    raise self.unreachable(said)
                raise MachineError(
                    f"--host {self.name}: no folder can be made there ({_last_line(said)}): make "
                    "space in its /tmp, or set TMPDIR there"
                )
            yield told.removeprefix(TOLD).strip()
        finally:
            done.set()
            beats.join()
            _end(keeper)

    def unreachable(self, said: str) -> MachineError:
        """The error for a connection that was not made, or was lost."""
        reason = _last_line(said) or "the connection was lost"
        fixes = (fix.format(self.name) for words, fix in FIXES if words in said)
        fix = next(fixes, "check that it is on and reachable, then run again")
        return MachineError(f"--host {self.name}: {reason}: {fix}")

    def not_copied(self, said: str, folder: str) -> MachineError:
        """The error for a copy that failed: the protocol does not say when a disk is full."""
        free = self.free_bytes(folder)
        if "No space left" in said or (free is not None and free < 64 * 1024):
            return self.full(folder)
        reason = _last_line(said) or "the connection was lost"
        return MachineError(f"--host {self.name}: copying failed ({reason}): check it, run again")

    def full(self, folder: str) -> MachineError:
        """The error for a disk without space."""
        return MachineError(
            f"--host {self.name}: its disk is full at {Path(folder).parent}: make space there, or "
            "set TMPDIR there to a place that has some"
        )


def _program(name: str) -> list[str]:
    if shutil.which(name) is None:
        raise MachineError(f"--host: {name} is not installed: sudo apt install openssh-client")
    config = os.environ.get(CONFIG)
    return [name, *OPTIONS, *(("-F", config) if config else ())]


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
    )


def _beat(keeper: subprocess.Popen[str], done: threading.Event) -> None:
    """Tell the keeper every so often that we are there, until we are done or it has ended."""
    assert keeper.stdin is not None
    with suppress(OSError):
        while not done.wait(BEAT_S):
            keeper.stdin.write(".")
            keeper.stdin.flush()


def _end(keeper: subprocess.Popen[str]) -> None:
    """Close its input and wait until the folder is gone, but not for ever."""
    try:
        keeper.communicate(timeout=REMOVE_LIMIT_S)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.communicate()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".")[:200] if lines else ""
