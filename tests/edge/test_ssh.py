"""What ssh says, without a connection; tests/benchmarks/test_remote.py has real ones."""

import subprocess

import pytest

from irstd_edge.edge import ssh
from irstd_edge.edge.errors import MachineError

CLOSED = "bench started\nConnection to board closed by remote host.\n"


@pytest.mark.parametrize(("code", "said"), [(129, CLOSED), (255, CLOSED), (255, "")])
def test_a_lost_connection_is_told_whatever_code_came_through(
    code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], code, "", said)
    monkeypatch.setattr(ssh, "_call", lambda command: done)
    with pytest.raises(MachineError, match=r"^--host board: .* and reachable, then run again$"):
        ssh.Host("board").run("true")


@pytest.mark.parametrize(("code", "said"), [(0, CLOSED), (1, "no closed by remote host: 3\n")])
def test_a_command_that_ended_there_is_no_lost_connection(
    code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], code, "", said)
    monkeypatch.setattr(ssh, "_call", lambda command: done)
    assert ssh.Host("board").run("false") is done
