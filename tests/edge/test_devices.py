import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from irstd_edge.edge.devices import Machine, parse_l4t, this_machine, usable_threads

X86 = """processor\t: 0
model name\t: Intel(R) Core(TM) i7-1165G7 @ 2.80GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni

processor\t: 1
"""
ORIN = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd42
"""
FIELDS = [
    "cpu",
    "isa",
    "threads",
    "gpu",
    "board",
    "power_mode",
    "load",
    "l4t",
    "module",
    "fingerprint",
]


def tree(root: Path, **files: str) -> Path:
    """A made-up machine: path with __ for / -> text."""
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_a_desktop(tmp_path):
    root = tree(
        tmp_path,
        proc__cpuinfo=X86,
        proc__driver__nvidia__gpus__0__information="Model: \t\t NVIDIA RTX A2000\nIRQ: 1\n",
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="powersave\n",
    )
    machine = this_machine(threads=3, root=root)
    assert machine.cpu == "Intel(R) Core(TM) i7-1165G7 @ 2.80GHz"
    assert machine.isa == f"{platform.machine()}+avx2+avx512f+avx512_vnni"
    assert (machine.gpu, machine.board) == ("NVIDIA RTX A2000", None)
    assert (machine.power_mode, machine.threads) == ("powersave", 3)
    assert not machine.is_jetson


def test_a_jetson(tmp_path):
    board = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"
    root = tree(
        tmp_path,
        proc__cpuinfo=ORIN,
        var__lib__nvpmodel__status="pmode:0002 fmode:quiet",
    )
    tree(root / "proc", **{"device-tree__model": f"{board}\0"})
    tree(root / "proc", **{"device-tree__compatible": "nvidia,p3768-0000\0nvidia,tegra234\0"})
    machine = this_machine(root=root, ask=lambda command: None)
    assert machine.board == board
    assert machine.is_jetson
    assert machine.gpu == "integrated, tegra234"
    assert machine.power_mode == "nvpmodel 2"
    assert machine.cpu == f"{platform.machine()} part 0xd42 ({board})"
    assert machine.isa == f"{platform.machine()}+asimd+asimddp+fphp+asimdhp"


def test_the_power_mode_has_a_name_where_the_tool_tells_it(tmp_path):
    root = tree(tmp_path, proc__cpuinfo=ORIN, var__lib__nvpmodel__status="pmode:0001 fmode:cool")
    asked = []
    machine = this_machine(
        root=root, ask=lambda command: asked.append(command) or "NV Power Mode: 25W\n1\n"
    )
    assert (machine.power_mode, asked) == ("nvpmodel 1 (25W)", [("nvpmodel", "-q")])
    other = this_machine(root=root, ask=lambda command: "NV Power Mode: MAXN\n0\n")
    assert other.power_mode == "nvpmodel 1"


def test_a_module_on_a_carrier_board_of_someone_else_is_a_jetson(tmp_path):
    root = tree(tmp_path, proc__cpuinfo=ORIN)
    tree(root / "proc", **{"device-tree__model": "Lanner EAI-I233\0"})
    tree(root / "proc", **{"device-tree__compatible": "lanner,eai-i233\0nvidia,tegra234\0"})
    assert this_machine(root=root).is_jetson


# What boards told their owners: model, compatible and nv_tegra_release, from the issues 400 and 864
# of github.com/rbonghi/jetson_stats and 125 of github.com/NVIDIA/jetson-gpio.
RECORDED = [
    (
        "NVIDIA Orin Nano Developer Kit",
        "nvidia,p3768-0000+p3767-0003\0nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0003\0"
        "nvidia,p3767-0005\0nvidia,tegra234\0nvidia,tegra23x\0",
        "# R35 (release), REVISION: 3.1, GCID: 32827747, BOARD: t186ref, EABI: aarch64, "
        "DATE: Sun Mar 19 15:19:21 UTC 2023\n",
        "L4T 35.3.1 (JetPack 5)",
        "orin-nano-8gb",
    ),
    (
        "NVIDIA Jetson AGX Orin Developer Kit",
        "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0nvidia,tegra23x\0",
        "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, "
        "DATE: Mon Jun  1 09:28:48 PM UTC 2026\n",
        "L4T 39.2.0 (JetPack 7)",
        "agx-orin-64gb",
    ),
]


@pytest.mark.parametrize(("model", "compatible", "release", "l4t", "module"), RECORDED)
def test_boards_as_they_told_their_owners(tmp_path, model, compatible, release, l4t, module):
    root = tree(tmp_path, proc__cpuinfo=ORIN, etc__nv_tegra_release=release)
    tree(root / "proc", **{"device-tree__model": f"{model}\0"})
    tree(root / "proc", **{"device-tree__compatible": compatible})
    machine = this_machine(root=root)
    assert machine.is_jetson
    assert (machine.board, machine.gpu) == (model, "integrated, tegra234")
    assert machine.l4t == machine.record()["l4t"] == l4t
    assert machine.module == module


def test_a_release_that_is_none_and_one_that_is_new():
    assert parse_l4t("") is None
    assert parse_l4t("# R36 (release), REVISION: 4.3, GCID: 1") == "L4T 36.4.3 (JetPack 6)"
    assert parse_l4t("# R99 (release), REVISION: 1.0, GCID: 1") == "L4T 99.1.0"


def test_another_board_is_no_jetson(tmp_path):
    root = tree(tmp_path, proc__cpuinfo=ORIN)
    tree(root / "proc", **{"device-tree__model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    machine = this_machine(root=root)
    assert machine.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert (machine.gpu, machine.is_jetson) == (None, False)


def test_a_machine_that_says_nothing_is_none_not_an_error(tmp_path):
    machine = this_machine(root=tmp_path)
    assert (machine.gpu, machine.board, machine.power_mode) == (None, None, None)
    assert (machine.cpu, machine.isa) == (platform.machine(), platform.machine())


def test_this_machine_has_the_record_of_bench_json():
    record = this_machine().record()
    assert list(record) == FIELDS
    assert record["threads"] == usable_threads() >= 1
    assert record["load"] >= 0


CHANGES = {
    "cpu": "other",
    "isa": "other",
    "threads": 9,
    "gpu": "other",
    "board": "other",
    "power_mode": "other",
    "l4t": "other",
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_fingerprint_tells_machines_apart(name):
    machine = Machine("cpu", "isa", 2, None, None, None, load=0.5)
    assert replace(machine, **{name: CHANGES[name]}).fingerprint != machine.fingerprint


def test_the_fingerprint_is_the_same_under_load():
    machine = Machine("cpu", "isa", 2, None, None, None, load=0.5)
    assert replace(machine, load=7.0).fingerprint == machine.fingerprint
    assert len(machine.fingerprint) == 16


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_threads_are_those_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("isa", "saturates"),
    [
        ("x86_64+avx2", True),
        ("x86_64+avx2+avx512f", True),
        ("AMD64+avx2", True),
        ("x86_64+avx2+avx512f+avx512_vnni", False),
        ("x86_64+avx2+avx_vnni", False),
        ("aarch64+asimd", False),
    ],
)
def test_convolutions_of_8_bit_clip_without_vnni_alone(isa: str, saturates: bool) -> None:
    assert Machine("cpu", isa, 2, None, None, None, load=0.5).saturates is saturates
