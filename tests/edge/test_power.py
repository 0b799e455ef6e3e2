import os
import time
from itertools import count
from pathlib import Path

import pytest

from irstd_edge.edge.power import Meter, PowerSampler, open_meter
from irstd_edge.edge.sensors import Reading

LINE = "RAM 1/2MB tj@50.5C VDD_IN {}mW/1mW VDD_SOC 1mW/1mW"


def wait_for(samples: PowerSampler, number: int) -> None:
    deadline = time.monotonic() + 20
    while len(samples.readings) < number and time.monotonic() < deadline:
        time.sleep(0.001)


def test_readings_are_taken_while_the_block_runs() -> None:
    turns = count()
    meter = Meter(
        lambda: Reading({"VDD_IN": 4.0 + next(turns) % 2}, {"tj": 50.0 + next(turns)}), interval_s=0
    )
    with PowerSampler(meter) as power:
        wait_for(power, 10)
    taken = len(power.readings)
    time.sleep(0.01)
    assert len(power.readings) == taken >= 10
    assert power.mean_w == 4.0
    assert power.hottest_c == 50.0 + 2 * taken - 1


def test_rails_that_do_not_tell_give_no_watts() -> None:
    with PowerSampler(Meter(lambda: Reading({"VDD_SOC": 1.0}, {}))) as power:
        wait_for(power, 1)
    assert (power.mean_w, power.hottest_c) == (None, None)


def test_the_meter_is_closed_even_when_the_block_fails() -> None:
    closed: list[bool] = []
    with (
        pytest.raises(KeyError),
        PowerSampler(Meter(lambda: None, close=lambda: closed.append(True))),
    ):
        raise KeyError
    assert closed == [True]


def test_a_machine_without_sensors_has_no_meter(tmp_path: Path) -> None:
    assert open_meter(tmp_path, which=lambda name: None) is None


def test_sysfs_comes_before_tegrastats(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/hwmon/hwmon1"
    folder.mkdir(parents=True)
    files = {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "1200"}
    for name, text in files.items():
        (folder / name).write_text(text)
    meter = open_meter(tmp_path, which=lambda name: pytest.fail("tegrastats was looked for"))
    assert meter is not None
    reading = meter.read()
    assert reading is not None and reading.module_w == 6.0


def tegrastats(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "tegrastats").write_text(script)
    (folder / "tegrastats").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_tegrastats_is_read_line_by_line_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    lines = "".join(f"echo '{LINE.format(milli)}'\n" for milli in (4000, 6000))
    tegrastats(tmp_path, monkeypatch, f"#!/bin/sh\necho $$ > {pid}\n{lines}exec sleep 60\n")
    meter = open_meter(tmp_path / "nothing")
    assert meter is not None
    with PowerSampler(meter) as power:
        wait_for(power, 2)
    assert (power.mean_w, power.hottest_c) == (5.0, 50.5)
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_tegrastats_that_does_not_start_is_no_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tegrastats(tmp_path, monkeypatch, "#!/no/such/shell\n")
    assert open_meter(tmp_path / "nothing") is None
