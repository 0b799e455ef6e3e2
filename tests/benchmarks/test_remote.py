"""bench --host against a real OpenSSH server on 127.0.0.1, of this user, with keys of its own."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from irstd_edge.benchmarks import remote
from irstd_edge.benchmarks.plan import Plan
from irstd_edge.benchmarks.remote import Remote, bench_there, stage
from irstd_edge.edge import ssh
from irstd_edge.edge.bundle import Bundle, write_bundle
from irstd_edge.edge.dataset import DataSet, open_dataset
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.ssh import CONFIG, Host
from irstd_edge.edge.types import (
    DecodeSpec,
    InputSpec,
    IrstdError,
    MachineError,
    Manifest,
    ModelSpec,
    Quantization,
)

onnx = pytest.importorskip("onnx", reason="the tiny graph is written with the train extra")

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
)
PRIVILEGES = Path("/run/sshd")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="no sshd: apt-get install openssh-server"),
    pytest.mark.timeout(120),
]


@dataclass
class Server:
    """An SSH server of this user; what it makes lies in `tmp`."""

    folder: Path
    tmp: Path
    process: subprocess.Popen[bytes]
    port: int

    @property
    def host(self) -> Host:
        return Host(f"{getpass.getuser()}@board")

    @property
    def left(self) -> list[str]:
        """What is left behind, after a while for the last session to end."""
        deadline = time.monotonic() + 20
        while (names := os.listdir(self.tmp)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return names

    def log(self) -> str:
        return (self.folder / "log").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(file: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def sshd_config(folder: Path, port: int, tmp: Path) -> str:
    sftp = next(path for path in SFTP_SERVERS if Path(path).exists())
    paths = os.pathsep.join(filter(None, (str(ROOT.parent), os.environ.get("PYTHONPATH"))))
    return f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/me.pub
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp {sftp}
SetEnv PYTHONPATH={paths} TMPDIR={tmp} OMP_NUM_THREADS=1
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder, tmp = tmp_path / "ssh", tmp_path / "tmp"
    folder.mkdir()
    tmp.mkdir()
    if os.getuid() == 0 and not PRIVILEGES.is_dir():
        PRIVILEGES.mkdir(mode=0o755)  # where sshd of root insists on a folder, lost at every boot
    port = free_port()
    make_key(folder / "host")
    make_key(folder / "me")
    (folder / "sshd_config").write_text(sshd_config(folder, port, tmp))
    host_key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n IdentityFile {folder}/me\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {folder}/known_hosts\n"
    )
    monkeypatch.setenv(CONFIG, str(folder / "config"))
    command = [str(SSHD), "-D", "-f", f"{folder}/sshd_config", "-E", f"{folder}/log"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    server = Server(folder, tmp, process, port)
    wait_until(lambda: answers(port) or process.poll() is not None)
    assert process.poll() is None, server.log()
    yield server
    process.terminate()
    process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def threshold_net(counts: float) -> bytes:
    """ONNX of a net that finds what is brighter than so many of 255 counts."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    values = {"w": np.full((1, 1, 1, 1), 40, np.float32), "b": np.float32([-40 * counts / 255])}
    free = ["n", 1, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["frame", "w", "b"], ["logits"], name="conv")],
        "net",
        [helper.make_tensor_value_info("frame", onnx.TensorProto.FLOAT, free)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, free)],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    files = {"fp32.onnx": threshold_net(100), **golden_files([], {"fp32.onnx": ()})}
    return write_bundle(tmp_path / "bundle", manifest, files)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    root = tmp_path / "data"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name in ("a", "b", "unlisted"):
        counts = np.full((32, 32), 20, np.uint8)
        counts[8:10, 8:10] = 200
        (root / "images" / f"{name}.png").write_bytes(png_of(counts))
        (root / "masks" / f"{name}.png").write_bytes(png_of(counts > 100))
    (root / "test.txt").write_text("a\nb\n")
    (root / "secret.txt").write_text("stays here")
    return open_dataset(root)


PLAN = Plan(runtimes=("onnxruntime",), threads=1, samples=10)


def plan_of(data: DataSet | None) -> Plan:
    return Plan(runtimes=("onnxruntime",), threads=1, samples=10, data=data)


def remote_of(server: Server) -> Remote:
    return Remote(server.host, sys.executable)


def test_only_what_is_needed_goes_there(bundle: Bundle, data: DataSet, tmp_path: Path) -> None:
    (bundle.path / "notes.txt").write_text("not the manifest's")
    root = tmp_path / "stage"
    folders = stage(root, [bundle], data)
    files = sorted(
        str(file.relative_to(root))
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file()
    )
    assert files == [
        *("bundles/0/fp32.onnx", "bundles/0/golden/golden.json", "bundles/0/manifest.json"),
        *("data/images/a.png", "data/images/b.png", "data/masks/a.png", "data/masks/b.png"),
        "data/test.txt",
    ]


def test_a_frame_that_is_a_link_out_of_its_folder_does_not_go_there(
    bundle: Bundle, data: DataSet, tmp_path: Path
) -> None:
    frame = data.root / "images" / "a.png"
    frame.rename(tmp_path / "elsewhere.png")
    frame.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(IrstdError, match=r"a\.png: is a link out of its folder"):
        stage(tmp_path / "stage", [bundle], data)


def test_a_bench_is_measured_there_and_nothing_stays(
    server: Server, bundle: Bundle, data: DataSet
) -> None:
    found = bench_there(remote_of(server), [bundle], plan_of(data), "cpu")
    assert found["machine"]["host"] == server.host.name
    assert found["machine"]["irstd_edge"]
    (result,) = found["results"]
    assert result["bundle"] == bundle.sha256
    (variant,) = result["variants"]
    assert (variant["name"], variant["measured"]) == ("fp32", True)
    assert variant["latency_ms"]["samples"] == 10
    assert (variant["accuracy"]["images"], variant["accuracy"]["pd"]) == (2, 1.0)
    assert server.left == []


def test_nothing_of_the_home_folder_is_imported_and_nothing_left_in_tmp(
    server: Server, bundle: Bundle, tmp_path: Path
) -> None:
    """Python imports what lies where it is started: a clone of ours, say."""
    told, python = tmp_path / "told", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$PWD $TMPDIR" >> {told}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    bench_there(Remote(server.host, str(python)), [bundle], PLAN, "cpu")
    asked, ran = (line.split() for line in told.read_text().splitlines())
    assert asked == ["/", str(server.tmp)]
    assert ran[0] == ran[1] and Path(ran[0]).parent == server.tmp


def test_a_rate_goes_there_as_it_is(data: DataSet) -> None:
    options = remote._options(replace(plan_of(data), rate_hz=59.9400599, noise_counts=1 / 3), "cpu")
    assert options[options.index("--rate-hz") + 1] == "59.9400599"
    assert float(options[options.index("--noise") + 1]) == 1 / 3


def test_noise_is_asked_for_there(server: Server, bundle: Bundle, data: DataSet) -> None:
    plan = replace(plan_of(data), noise_counts=0.5)
    found = bench_there(remote_of(server), [bundle], plan, "cpu")
    assert found["results"][0]["noise"]["counts"] == 0.5


def test_the_command_line_writes_the_json_that_came_back(
    server: Server, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "bench.json"
    options = ["--host", server.host.name, "--remote-python", sys.executable, "--samples", "10"]
    options += ["--size", "32x48", "--runtime", "onnxruntime", "--json", str(out)]
    options += ["--rate-hz", "100"]
    command = [sys.executable, "-m", "irstd_edge.cli", "bench", str(bundle.path), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["machine"]["host"] == server.host.name
    assert found["results"][0]["timed_on"] == "synthetic noise of 32x48 (no data was given)"
    assert {v["pace"]["rate_hz"] for v in found["results"][0]["variants"]} == {100}
    assert "fp32" in done.stdout
    assert server.left == []


def test_what_bench_there_says_is_said_here_with_our_names(
    server: Server, bundle: Bundle, data: DataSet
) -> None:
    picture = data.images["b"]
    picture.write_bytes(picture.read_bytes()[:-20])
    with pytest.raises(IrstdError, match="truncated") as caught:
        bench_there(remote_of(server), [bundle], plan_of(data), "cpu")
    assert str(picture) in str(caught.value) and not isinstance(caught.value, MachineError)
    assert server.left == []


def test_a_board_that_is_none_is_not_projected(server: Server, bundle: Bundle) -> None:
    with pytest.raises(MachineError, match="a measurement is wanted"):
        bench_there(remote_of(server), [bundle], PLAN, "jetson")
    assert server.left == []


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("no-such-python", "does not run there"),
        ("/bin/true", "does not run there"),
        ("/bin/echo", "does not run there"),
        ("{bare}", "has no irstd-edge there: pip install"),
    ],
)
def test_a_missing_install_is_told_before_anything_is_copied(
    server: Server, bundle: Bundle, tmp_path: Path, python: str, words: str
) -> None:
    bare = tmp_path / "bare python"
    bare.write_text(f'#!/bin/sh\nPYTHONPATH= exec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(MachineError, match=words):
        bench_there(Remote(server.host, python.format(bare=bare)), [bundle], PLAN, "cpu")
    assert server.left == []


def test_another_version_there_is_told_before_anything_is_copied(
    server: Server, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "__version__", "9.9")
    with pytest.raises(
        MachineError, match=r"has irstd-edge .*, and 9\.9 is here: install the same"
    ):
        bench_there(remote_of(server), [bundle], PLAN, "cpu")
    assert server.left == []


@pytest.mark.parametrize(
    ("code", "stderr", "words"),
    [
        (2, "warning of a library\nirstd-edge: a.png: is broken\nbye\n", "a.png: is broken"),
        (2, "Usage: ...\n╭─ Error ─────╮\n│ No such option: --rate  │\n╰───────╯\n", "No such opt"),
        (137, "Killed\n", "bench was killed there, mostly for memory"),
        (139, "", "bench crashed there"),
        (5, "", "exit code 5"),
    ],
)
def test_the_line_that_says_why_is_told(bundle: Bundle, code: int, stderr: str, words: str) -> None:
    done = subprocess.CompletedProcess("bench", code, "", stderr)
    error = remote._failure(Host("board"), done, "/tmp/there", [bundle], None)
    assert str(error).startswith(f"--host board: {words}")
    assert isinstance(error, MachineError) is (code != 2)


def test_a_full_disk_is_told_and_left_empty(server: Server, bundle: Bundle) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(server.tmp)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small disk can't be mounted here: that takes root")
    try:
        (bundle.path / "fp32.onnx").write_bytes(b"x" * 200_000)
        with pytest.raises(MachineError, match=f"its disk is full at {server.tmp}: make space"):
            bench_there(remote_of(server), [bundle], PLAN, "cpu")
        assert server.left == []
    finally:
        subprocess.run(["umount", str(server.tmp)], check=True)


def test_a_disk_that_fills_up_while_copying_is_told_too(
    server: Server, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(server.tmp)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small disk can't be mounted here: that takes root")
    try:
        (bundle.path / "fp32.onnx").write_bytes(b"x" * 200_000)
        monkeypatch.setattr("irstd_edge.benchmarks.remote.MARGIN", 0.0)
        with pytest.raises(MachineError, match="its disk is full"):
            bench_there(remote_of(server), [bundle], PLAN, "cpu")
        assert server.left == []
    finally:
        subprocess.run(["umount", str(server.tmp)], check=True)


def sessions(server: Server) -> list[int]:
    """Processes of the server that serve a connection: children of the one that listens."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def test_a_lost_connection_is_told_and_nothing_stays(
    server: Server, bundle: Bundle, tmp_path: Path
) -> None:
    """The sessions are killed while bench runs there, as when the board leaves the network."""
    slow, started = tmp_path / "slow-python", tmp_path / "started"
    slow.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -c ] && exec {sys.executable} "$@"\n'
        f"echo $$ > {started}\nexec sleep 100\n"
    )
    slow.chmod(0o755)
    code = (
        "import sys; from irstd_edge.cli import main\n"
        f"sys.argv[1:] = ['bench', {str(bundle.path)!r}, '--host', {server.host.name!r},"
        f" '--remote-python', {str(slow)!r}]\nmain()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        wait_until(lambda: started.exists() and started.read_text().strip())
        assert len(os.listdir(server.tmp)) == 1
        for pid in sessions(server):
            with suppress(ProcessLookupError):  # an earlier one, which ends by itself
                os.kill(pid, signal.SIGKILL)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 3, said
    (line,) = said.splitlines()
    assert line.startswith(f"irstd-edge: --host {server.host.name}: ") and "run again" in line
    assert server.left == []
    wait_until(lambda: not Path(f"/proc/{started.read_text().strip()}").exists())


def test_a_folder_goes_when_we_are_silent_and_stays_while_we_are_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is cut may look open there for hours."""
    monkeypatch.setattr(ssh, "SILENCE_S", 1)
    monkeypatch.setattr(ssh, "BEAT_S", 0.2)
    with server.host.folder() as there:
        time.sleep(2.5)
        assert Path(there).is_dir()
    monkeypatch.setattr(ssh, "BEAT_S", 60)
    with server.host.folder() as there:
        assert Path(there).is_dir()
        wait_until(lambda: not Path(there).exists())


def test_a_kill_of_ours_leaves_nothing_there(
    server: Server, bundle: Bundle, tmp_path: Path
) -> None:
    code = (
        "import time; from irstd_edge.edge.ssh import Host\n"
        f"with Host({server.host.name!r}).folder() as there:\n"
        "    print(there, flush=True); time.sleep(60)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, text=True) as run:
        assert run.stdout is not None
        there = run.stdout.readline().strip()
        assert Path(there).is_dir() and Path(there).stat().st_mode & 0o077 == 0
        run.kill()
    assert server.left == []


def test_a_server_that_is_not_there(server: Server, bundle: Bundle) -> None:
    server.process.terminate()
    server.process.wait()
    with pytest.raises(MachineError, match=r"Connection refused: start its SSH server"):
        bench_there(remote_of(server), [bundle], PLAN, "cpu")


def test_a_key_that_is_not_known_there(server: Server, bundle: Bundle) -> None:
    (server.folder / "me.pub").write_text("")
    with pytest.raises(MachineError, match=r"Permission denied .*: give it your key: ssh-copy-id"):
        bench_there(remote_of(server), [bundle], PLAN, "cpu")


def test_a_host_that_is_not_known_here(server: Server, bundle: Bundle) -> None:
    (server.folder / "known_hosts").write_text("")
    with pytest.raises(MachineError, match=r"Host key verification failed: look at its key"):
        bench_there(remote_of(server), [bundle], PLAN, "cpu")


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "a b", "u@-h", "u@h:22", "u@h;id", ""])
def test_a_host_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(IrstdError, match="is not USER@HOST"):
        Host(name)


def test_a_python_of_the_home_folder_there_stays_one() -> None:
    assert Remote(Host("h"), "~/my venv/bin/python").command == "~/'my venv/bin/python'"
    assert Remote(Host("h"), "a;b").command == "'a;b'"


def test_a_python_of_a_folder_of_the_home_folder_is_found_from_anywhere() -> None:
    assert Remote(Host("h"), "my venv/bin/python").command == "~/'my venv/bin/python'"


def test_without_ssh_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MachineError, match="ssh is not installed: sudo apt install"):
        Host("board").run("true")
