"""Samples are what boards printed, as their owners published it; CPUs were thinned out."""

import sys
from pathlib import Path

import pytest

from irstd_edge.edge.clocks import (
    Clock,
    PowerMode,
    Throttle,
    ask,
    clocks_locked,
    find_tool,
    parse_clocks,
    parse_power_mode,
    read_clocks,
    read_throttle,
)

ORIN_NX_JETPACK_6 = """\
SOC family:tegra234  Machine:NVIDIA Jetson Orin NX Engineering Reference Developer Kit
Online CPUs: 0-5
cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1510400 CurrentFreq=1510400 IdleStates: WFI=1 c7=1 
cpu5:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1510400 CurrentFreq=883200 IdleStates: WFI=1 c7=1 
GPU MinFreq=306000000 MaxFreq=624750000 CurrentFreq=306000000
Active GPU TPCs: 2
EMC MinFreq=204000000 MaxFreq=2133000000 CurrentFreq=2133000000 FreqOverride=0
FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=65
NV Power Mode: MAXN_SUPER
"""  # noqa: E501, W291
AGX_ORIN_JETPACK_7_LOCKED = """\
SOC family:tegra234  Machine:NVIDIA Jetson AGX Orin Developer Kit
Online CPUs: 0-11, Offline CPUs: 
cpu9:  Governor=schedutil MinFreq=2201600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=0 c7=0 
cpu10: Governor=schedutil MinFreq=2201600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=0 c7=0 
GPU MinFreq=1300500000 MaxFreq=1300500000 CurrentFreq=1300500000
Active GPU TPCs: 8
EMC MinFreq=3199000000 MaxFreq=3199000000 CurrentFreq=3199000000
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
PVA0_VPS0: Online=1 MinFreq=0 MaxFreq=1369600000 CurrentFreq=1369600000
FAN Dynamic Speed Control=nvfancontrol hwmon2_pwm1=66
NV Power Mode: MAXN
"""  # noqa: E501, W291


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", PowerMode(2, "MAXN_SUPER")),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n", PowerMode(0, "MAXN")),
        (
            "NVPM WARN: fan mode is not set to cool\nNV Power Mode: MODE_30W_2CORE\n2\n",
            PowerMode(2, "MODE_30W_2CORE"),
        ),
        (
            "NVPM VERB: parsing done for /etc/nvpmodel.conf\n"
            "NVPM VERB: Current mode: NV Power Mode: 25W\n1\n"
            "NVPM VERB: PARAM CPU_ONLINE: ARG CORE_0: PATH /sys/devices/system/cpu/cpu0/online: "
            "REAL_VAL: 1 CONF_VAL: 1\n",
            PowerMode(1, "25W"),
        ),
        ("NV Power Mode: MAXN\n", None),  # JetPack 4 of the first Nanos printed no number
        ("", None),
    ],
)
def test_power_mode(text: str, mode: PowerMode | None) -> None:
    assert parse_power_mode(text) == mode


def test_a_power_mode_is_told_by_number_and_name() -> None:
    assert str(PowerMode(1, "25W")) == "nvpmodel 1 (25W)"


def test_clocks_that_scale_with_load() -> None:
    clocks = parse_clocks(ORIN_NX_JETPACK_6)
    assert clocks == (
        Clock("cpu0", 729.6, 1510.4),
        Clock("cpu5", 729.6, 1510.4),
        Clock("GPU", 306.0, 624.75),
    )
    assert not any(clock.locked for clock in clocks)
    assert clocks_locked(ask=lambda command: ORIN_NX_JETPACK_6) is False


def test_clocks_that_stand_still() -> None:
    clocks = parse_clocks(AGX_ORIN_JETPACK_7_LOCKED)
    assert [clock.name for clock in clocks] == ["cpu9", "cpu10", "GPU"]
    assert all(clock.locked for clock in clocks)
    assert clocks_locked(ask=lambda command: AGX_ORIN_JETPACK_7_LOCKED) is True


def test_a_cpu_that_is_off_does_not_count() -> None:
    off = "cpu8: Online=0 Governor=schedutil MinFreq=115200 MaxFreq=2201600 CurrentFreq=0\n"
    assert len(parse_clocks(off + AGX_ORIN_JETPACK_7_LOCKED)) == 3


def write(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")
    return root


CPU, GPU = "sys/devices/system/cpu/cpu0/cpufreq", "sys/class/devfreq/17000000.gpu"


@pytest.mark.parametrize(("gpu_low", "locked"), [(306000000, False), (918000000, True)])
def test_without_root_the_limits_come_from_sysfs(
    tmp_path: Path, gpu_low: int, locked: bool
) -> None:
    files = {f"{CPU}/scaling_min_freq": 1510400, f"{CPU}/scaling_max_freq": 1510400}
    files |= {f"{GPU}/min_freq": gpu_low, f"{GPU}/max_freq": 918000000}
    files |= {"sys/class/devfreq/15340000.vic/min_freq": 1}
    root = write(tmp_path, files)
    assert read_clocks(root)[1] == Clock("GPU", gpu_low / 1e6, 918.0)
    assert clocks_locked(root, ask=lambda command: None) is locked


def test_a_machine_that_says_nothing_is_not_said_to_be_locked(tmp_path: Path) -> None:
    assert clocks_locked(tmp_path, ask=lambda command: None) is None
    assert read_throttle(tmp_path) == Throttle(frozenset(), 0)


def test_throttling_is_what_cools_by_going_slower(tmp_path: Path) -> None:
    names = {"pwm-fan": 3, "gpu-throttle-alert": 1, "cpu-throttle-alert": 0, "cpufreq-cpu0": 2}
    files: dict[str, object] = {}
    for index, (name, state) in enumerate(names.items()):
        folder = f"sys/class/thermal/cooling_device{index}"
        files |= {f"{folder}/type": name, f"{folder}/cur_state": state}
    files |= {f"sys/class/hwmon/hwmon3/oc{n}_event_cnt": n * 10 for n in (1, 2, 3)}
    found = read_throttle(write(tmp_path, files))
    assert found == Throttle(frozenset({"gpu-throttle-alert", "cpufreq-cpu0"}), 60)


def test_only_what_happened_meanwhile_is_told() -> None:
    hot = Throttle(frozenset({"gpu-throttle-alert"}), 27)
    assert hot.since(Throttle(frozenset(), 25)) == ("gpu-throttle-alert", "over-current, 2 times")
    assert Throttle(frozenset(), 25).since(Throttle(frozenset(), 25)) == ()


def test_a_tool_is_asked_and_its_silence_is_an_answer() -> None:
    assert ask((sys.executable, "-c", "print('NV')")) == "NV\n"
    assert ask((sys.executable, "-c", "raise SystemExit(1)")) is None
    assert ask((sys.executable, "-c", "print('NV'); raise SystemExit(1)")) == "NV\n"
    assert ask(("no-such-tool-of-nvidia",)) is None


def test_a_tool_is_found_where_path_does_not_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    tool = tmp_path / "nvpmodel"
    assert find_tool("nvpmodel", str(tmp_path)) is None
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert find_tool("nvpmodel", str(tmp_path)) == str(tool)


def test_a_tool_that_stops_before_the_gpu_is_not_believed(tmp_path: Path) -> None:
    half = AGX_ORIN_JETPACK_7_LOCKED.partition("GPU")[0]
    root = write(tmp_path, {f"{GPU}/min_freq": 306000000, f"{GPU}/max_freq": 918000000})
    assert clocks_locked(root, ask=lambda command: half) is False
