"""The README's commands, run in an empty folder as they stand, but on fewer and smaller scenes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(before: str) -> str:
    """What stands in the blocks that open with these lines, one after the other."""
    found = re.findall(rf"{before}\n(.*?)```", README, re.DOTALL)
    assert found
    return "".join(found)


def run_command(words: list[str], folder: Path, environment: dict[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "irstd_edge.cli", *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    # A small data set flips a large share of its targets: the gate may go either way.
    allowed = (0, 1) if words[1] == "gate" else (0,)
    assert run.returncode in allowed, f"{shlex.join(words)}\n{run.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_tour(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    for line in blocks("<!-- tested.*?-->\n```sh").splitlines():
        words = shlex.split(line)
        assert words[0] == "irstd-edge"
        if words[1] == "synth":
            whole = [*words[:2], "as-it-stands", *words[3:]]
            run_command(whole, tmp_path, environment)
            words += ["--frames", "24", "--size", "128x128"]
        elif words[1] == "bench" and "--device" not in words:
            words += ["--samples", "20"]
        run_command(words, tmp_path, environment)
    made = {"bundle", "found", "frames", "run", "bench.json", "found.jsonl", "report.html"}
    assert made <= {path.name for path in tmp_path.iterdir()}
    code = blocks("```python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_limits_are_the_gates() -> None:
    import sys

    from irstd_edge.benchmarks.limits import load_limits

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    stated = tomllib.loads(blocks("```toml"))
    assert stated["drift"] == dict(load_limits(None).drift)
