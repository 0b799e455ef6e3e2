"""Samples are lines that boards printed, as their owners published them."""

from pathlib import Path

import pytest

from irstd_edge.edge.sensors import Reading, parse_tegrastats, read_sensors

XAVIER_NX_JETPACK_4 = (
    "RAM 2673/7765MB (lfb 118x4MB) SWAP 0/3883MB (cached 0MB) CPU [12%@1190,8%@1190,4%@1190,off,"
    "off,off] EMC_FREQ 7% GR3D_FREQ 33% AO@35C GPU@33C PMIC@100C AUX@33.5C CPU@35C thermal@33.9C "
    "VDD_IN 3902/3611 VDD_CPU_GPU_CV 1331/1180 VDD_SOC 997/941"
)
AGX_ORIN_JETPACK_5 = (
    "10-16-2023 10:59:22 RAM 1205/30623MB (lfb 6429x4MB) SWAP 0/15311MB (cached 0MB) CPU [0%@729,"
    "0%@729,1%@729,0%@729] EMC_FREQ 0%@204 GR3D_FREQ 0%@114 GR3D2_FREQ 0%@114 NVJPG1 729 VIC_FREQ "
    "729 APE 233 CV0@-256C CPU@43.5C Tdiode@32.5C SOC2@40.062C SOC0@40.5C CV1@-256C GPU@38.156C "
    "SOC1@39.125C CV2@-256C VDD_GPU_SOC 4788mW/4788mW VDD_CPU_CV 798mW/798mW VIN_SYS_5V0 "
    "3842mW/3842mW NC 0mW/0mW VDDQ_VDD2_1V8AO 707mW/707mW NC 0mW/0mW"
)
ORIN_NANO_JETPACK_6 = (
    "05-15-2025 18:30:28 RAM 6982/7620MB (lfb 5x1MB) SWAP 2640/16384MB (cached 202MB) CPU "
    "[97%@1984,95%@1984,95%@1984,91%@1984,88%@1984,93%@247] EMC_FREQ 18%@3199 GR3D_FREQ 84%@[713] "
    "NVENC 1%@115 NVDEC 40%@115 NVJPG off NVJPG1 off VIC 31%@115 OFA off NVDLA0 off PVA0_FREQ off "
    "APE 174 cv0@63.031C cpu@65.562C soc2@64.156C soc0@63.031C cv1@62.937C gpu@63.5C tj@65.562C "
    "soc1@64.718C cv2@60.875C VDD_IN 17946mW/15710mW VDD_CPU_GPU_CV 8896mW/7585mW VDD_SOC "
    "3923mW/3515mW\n"
)
THOR_JETPACK_7 = (
    "07-31-2026 14:45:55 RAM 86905/125772MB (lfb 368x4MB) CPU [12%@972,10%@972,off,33%@1890] "
    "cpu@39.812C tj@39.906C soc012@38.812C gpu@39.906C soc345@38.625C VDD_GPU 3561mW/3561mW "
    "VDD_CPU_SOC_MSS 7910mW/7910mW VIN_SYS_5V0 7620mW/7620mW VIN 26686mW/26686mW"
)


@pytest.mark.parametrize(
    ("line", "watts", "ram_mb"),
    [
        (XAVIER_NX_JETPACK_4, 3.902, (2673, 7765)),
        (AGX_ORIN_JETPACK_5, 4.788 + 0.798 + 3.842, (1205, 30623)),
        (ORIN_NANO_JETPACK_6, 17.946, (6982, 7620)),
        (THOR_JETPACK_7, 3.561 + 7.910 + 7.620, (86905, 125772)),
    ],
)
def test_every_board_tells_what_its_module_draws(
    line: str, watts: float, ram_mb: tuple[int, int]
) -> None:
    reading = parse_tegrastats(line)
    assert reading.module_w == pytest.approx(watts)
    assert reading.ram_mb == ram_mb


def test_rails_and_temperatures_of_a_line() -> None:
    reading = parse_tegrastats(ORIN_NANO_JETPACK_6)
    assert reading.rails_w == {"VDD_IN": 17.946, "VDD_CPU_GPU_CV": 8.896, "VDD_SOC": 3.923}
    assert reading.temperatures_c["tj"] == 65.562
    assert list(reading.temperatures_c)[:3] == ["cv0", "cpu", "soc2"]


def test_what_is_switched_off_or_not_connected_is_left_out() -> None:
    reading = parse_tegrastats(AGX_ORIN_JETPACK_5)
    assert list(reading.rails_w) == [
        *("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
    ]
    assert not {"CV0", "CV1", "CV2"} & set(reading.temperatures_c)


def test_a_zone_without_a_sensor_is_left_out(tmp_path: Path) -> None:
    """Xavier's PMIC says 100 degrees, at 35 everywhere else."""
    heat = parse_tegrastats(XAVIER_NX_JETPACK_4).temperatures_c
    assert heat == {"AO": 35, "GPU": 33, "AUX": 33.5, "CPU": 35, "thermal": 33.9}
    chip(tmp_path / "sys/class/thermal/thermal_zone0", type="PMIC-Die", temp=100000)
    assert read_sensors(tmp_path).temperatures_c == {}


def test_an_idle_rail_may_draw_less_than_nothing() -> None:
    line = "VDD_GPU -392mW/-392mW VDD_CPU_SOC_MSS 3924mW/3835mW VIN_SYS_5V0 5064mW/5055mW"
    assert parse_tegrastats(line).module_w == pytest.approx(-0.392 + 3.924 + 5.064)


def test_rails_that_do_not_add_up_give_no_sum() -> None:
    assert Reading({"VDD_GPU_SOC": 4.0, "VDD_CPU_CV": 1.0}, {}).module_w is None
    assert parse_tegrastats("Killed") == Reading({}, {}, None)


def chip(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")


def test_ina3221_of_an_orin_nx(tmp_path: Path) -> None:
    hwmon = tmp_path / "sys/class/hwmon"
    chip(hwmon / "hwmon0", name="pwmfan", pwm1=76)
    chip(
        hwmon / "hwmon1",
        **{"name": "ina3221", "in1_label": "VDD_IN", "in1_input": 4984, "curr1_input": 1856},
        **{"in2_label": "VDD_CPU_GPU_CV", "in2_input": 4984, "curr2_input": 528},
        **{"in3_label": "VDD_SOC", "in3_input": 4984},
        **{"in7_label": "sum of shunt voltages", "in7_input": 16960, "curr4_input": 2416},
    )
    reading = read_sensors(tmp_path)
    assert reading.rails_w == {
        "VDD_IN": pytest.approx(4.984 * 1.856),
        "VDD_CPU_GPU_CV": pytest.approx(4.984 * 0.528),
    }
    assert reading.module_w == pytest.approx(9.250304)


def test_two_ina3221_of_an_agx_orin(tmp_path: Path) -> None:
    hwmon = tmp_path / "sys/class/hwmon"
    chip(
        hwmon / "hwmon5",
        **{"name": "ina3221", "in1_label": "VDD_GPU_SOC", "in1_input": 4900, "curr1_input": 2000},
        **{"in2_label": "VDD_CPU_CV", "in2_input": 4900, "curr2_input": 1000},
        **{"in3_label": "VIN_SYS_5V0", "in3_input": 5000, "curr3_input": 1600},
    )
    chip(
        hwmon / "hwmon6",
        **{"name": "ina3221", "in1_label": "NC", "in1_input": 5000, "curr1_input": 10},
        **{"in2_label": "VDDQ_VDD2_1V8AO", "in2_input": 5000, "curr2_input": 140},
    )
    reading = read_sensors(tmp_path)
    assert reading.module_w == pytest.approx(9.8 + 4.9 + 8.0)  # the memory's rail hangs on 5V0
    assert set(reading.rails_w) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}


def test_thermal_zones(tmp_path: Path) -> None:
    zones = tmp_path / "sys/class/thermal"
    chip(zones / "thermal_zone0", type="cpu-thermal", temp=63625)
    chip(zones / "thermal_zone1", type="cv0-thermal", temp=-256000)
    chip(zones / "thermal_zone2", type="gpu-thermal")
    assert read_sensors(tmp_path).temperatures_c == {"cpu": 63.625}
