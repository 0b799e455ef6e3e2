"""A part of `make fuzz` and `make kills`, and what a process must do when it can't write."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import seeds

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def python(*arguments: object, stdout: object = subprocess.PIPE) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        timeout=250,
    )


def refused(run: subprocess.CompletedProcess, *words: str) -> None:
    """Exit 2 and one line on stderr that a terminal does not act on."""
    assert run.returncode == 2, run.stderr
    assert len(run.stderr.splitlines()) == 1 and run.stderr.startswith("irstd-edge: "), run.stderr
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", run.stderr)
    for word in words:
        assert word in run.stderr


@pytest.mark.slow
def test_damaged_files_of_every_kind() -> None:
    done = python(HERE / "fuzz.py", "--count", 800, "--seed", 1)
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout.splitlines()[-1].startswith("800 files, 0 findings")


def test_a_reader_that_dies_hangs_or_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzz

    def read(path: Path) -> None:
        {0: lambda: os.kill(os.getpid(), 9), 1: lambda: os.read(os.pipe()[0], 1)}.get(
            int(path.stem), lambda: 1 / 0
        )()

    monkeypatch.setattr(fuzz, "LIMIT_S", 0.5)
    kind = fuzz.Kind(lambda rng: (".bin", b""), read, 1.0)
    died, hung, failed = fuzz.run("bin", kind, 3, 0)
    assert (died.number, died.what) == (0, "the process died with status -9")
    assert (hung.number, hung.what) == (1, "hung for 0.5 s")
    assert failed.what.endswith("ZeroDivisionError: division by zero")


BOMBS = """
import resource, sys
from pathlib import Path
from irstd_edge.edge.sequences import frames_of
from irstd_edge.edge.types import IrstdError
resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
for path in map(Path, sys.argv[1:]):
    try:
        print(path.name, "read", len(list(frames_of(path))))
    except IrstdError as error:
        print(path.name, "refused", "\\n" in str(error))
"""


def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    for name, make in seeds.bombs().items():
        (tmp_path / name).write_bytes(make())
    done = python("-c", BOMBS, *sorted(tmp_path.iterdir()))
    assert done.stdout.splitlines() == [f"{name} refused False" for name in sorted(seeds.bombs())]
    assert done.stderr == ""


def test_names_in_a_bench_never_reach_a_terminal(tmp_path: Path) -> None:
    value = seeds.bench()
    value["machine"]["cpu"] = "\x1b]0;owned\x07"
    (tmp_path / "bench.json").write_text(json.dumps(value))
    for command in (["gate"], ["report", "--out", tmp_path / "r.html"]):
        run = python("-m", "irstd_edge.cli", command[0], tmp_path / "bench.json", *command[1:])
        refused(run, "cannot be printed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bench.json"]


@pytest.mark.parametrize("file", ["/dev/zero", "pipe"])
def test_pipes_and_devices_as_files(tmp_path: Path, file: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bench.json").write_text(json.dumps(seeds.bench()))
    place, bench = tmp_path / file, tmp_path / "bench.json"
    for arguments in (["gate", place], ["gate", bench, "--config", place]):
        refused(python("-m", "irstd_edge.cli", *arguments), "is a pipe, a device or the like")


def test_a_full_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        refused(python("-m", "irstd_edge.cli", "doctor", stdout=full), "No space left")


WRITE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
import jobs
from irstd_edge.edge.types import IrstdError
job = jobs.quantize(None)
out = Path(sys.argv[1])
try:
    getattr(job, sys.argv[2])(out)
except IrstdError as error:
    sys.exit(f"irstd-edge: {{error}}")
print(job.state(out))
"""


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 4 MiB, unmounted in the end."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_and_a_read_only_disk_keep_the_old_result(small_disk: Path) -> None:
    assert python("-c", WRITE, small_disk, "old").stdout == "old\n"
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    full = python("-c", WRITE, small_disk, "work")
    assert "cannot be written (No space left on device)" in full.stderr
    assert sorted(p.name for p in small_disk.iterdir()) == ["bundle", "filler"]
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "cannot be written (Read-only" in python("-c", WRITE, small_disk, "work").stderr
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert python("-c", WRITE, small_disk, "work").stdout == "new\n"


FULL = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
import kills
from irstd_edge.edge.types import IrstdError
disk, made, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
job = kills.every_job(made, None)[name]
job.old(disk)
before = job.state(disk)
filler = disk / "filler"
with open(filler, "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
try:
    job.work(disk)
except (AssertionError, IrstdError, OSError) as error:
    print("stopped by", repr(error))
filler.unlink()
print(before, "->", job.state(disk))
"""


@pytest.mark.slow
@pytest.mark.parametrize("job", ["train", "compile", "bench", "predict"])
def test_a_full_disk_keeps_what_each_command_had_made(
    small_disk: Path, tmp_path: Path, job: str
) -> None:
    if job == "compile" and find_spec("tensorrt_rtx") is None:
        pytest.skip("needs irstd-edge[tensorrt-rtx]")
    done = python("-c", FULL, small_disk, tmp_path, job)
    kept = "old or new" if job == "compile" else "old"
    assert "stopped by" in done.stdout, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{kept} -> {kept}"


def test_a_limit_on_files_keeps_the_old_result(tmp_path: Path) -> None:
    assert python("-c", WRITE, tmp_path, "old").returncode == 0
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))\n"
    done = python("-c", limit + WRITE, tmp_path, "work")
    assert "bundle: cannot be written (File too large)" in done.stderr
    assert python(
        "-c", WRITE.replace("getattr", "str and (lambda *_: print) or getattr"), tmp_path, "work"
    ).stdout.endswith("old\n")


def test_two_processes_that_write_one_bundle(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path), "work"]
    both = [
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == ["new\n", "new\n"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_kills_leave_the_old_or_the_new() -> None:
    done = python(HERE / "kills.py", "--kills", 10)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("10 kills, 0 half results")
