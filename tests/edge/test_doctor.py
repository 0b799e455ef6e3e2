from pathlib import Path

from irstd_edge.edge.devices import Machine
from irstd_edge.edge.doctor import Finding, examine
from irstd_edge.edge.engine_store import EngineKey, open_store
from irstd_edge.edge.gpu import Gpu

BARE = Machine("Old CPU", "x86_64+avx2", 2, None, None, None, 0.1)
JETSON = Machine(
    *("Cortex", "aarch64+asimd+asimddp", 6, "integrated, tegra234"),
    *("NVIDIA Jetson Orin Nano Developer Kit", "nvpmodel 0", 0.2, "L4T 36.4.3 (JetPack 6)"),
)


def found(machine: Machine, weights: Path, has_all: bool) -> dict[str, Finding]:
    versions = {"tensorrt": "10.3.0"}
    findings = examine(
        machine,
        gpu=lambda: Gpu("Orin", 87, 8) if has_all else None,
        which=lambda name: f"/usr/bin/{name}" if has_all and name == "ssh" else None,
        installed=lambda distribution, module: versions.get(module, "1.2.3") if has_all else None,
        weights=weights,
        refusal=lambda machine: None,
        store=weights,
        locked=lambda: has_all,
    )
    return {finding.name: finding for finding in findings}


def test_a_bare_machine_lacks_everything_and_is_told_how_to_get_it(tmp_path: Path) -> None:
    items = found(BARE, tmp_path, has_all=False)
    missing = [name for name, finding in items.items() if not finding.ok]
    assert missing == [name for name in items if name != "python"]
    cures = {
        "onnxruntime": "pip install irstd-edge",
        "openvino": "pip install 'irstd-edge[openvino]'",
        "nncf": "pip install 'irstd-edge[train]'",
        "tensorrt-rtx": "pip install 'irstd-edge[tensorrt-rtx]'",
    }
    assert {name: items[name].fix for name in cures} == cures
    assert "JetPack" in str(items["tensorrt"].fix)
    assert "pypi.nvidia.com" in str(items["torch-tensorrt"].fix)
    told = {name for name, item in items.items() if item.fix is not None}
    assert told == set(items) - {"python"}


def test_a_machine_with_everything(tmp_path: Path) -> None:
    for name in ("p2p", "mshnet"):
        (tmp_path / f"{name}.safetensors").touch()
    tmp_path.chmod(0o700)
    for backend, size in (("tensorrt", 1_000_000), ("tensorrt", 500_000), ("tensorrt-rtx", 1_000)):
        key = EngineKey("0" * 64, backend, "10.3", "Orin", "sm_87", (f"size={size}",))
        open_store(tmp_path).save(key, size * b"e")
    items = found(JETSON, tmp_path, has_all=True)
    assert items["engines"].found == f"2 of tensorrt, 1 of tensorrt-rtx: 1.5 MB, in {tmp_path}"
    assert items["clocks"].found == "locked"
    assert all(finding.ok and finding.fix is None for finding in items.values())
    assert items["cpu"].found == "asimddp"
    assert items["gpu"].found == "Orin, sm_87"
    board = "NVIDIA Jetson Orin Nano Developer Kit, L4T 36.4.3 (JetPack 6)"
    assert (items["jetson"].found, items["ssh"].found) == (board, "/usr/bin/ssh")
    assert items["shipped weights"].found == "mshnet, p2p"
    assert items["openvino"].record() == {
        "name": "openvino",
        "what_for": "fast INT8 on x86",
        "found": "1.2.3",
        "fix": None,
        "ok": True,
    }


def test_a_tensorrt_that_cannot_build_and_loose_clocks_are_told(tmp_path: Path) -> None:
    findings = examine(
        JETSON,
        installed=lambda distribution, module: "8.6.2",
        weights=tmp_path,
        store=tmp_path,
        locked=lambda: False,
    )
    items = {finding.name: finding for finding in findings}
    assert (items["tensorrt"].ok, items["clocks"].ok) == (False, False)
    assert str(items["tensorrt"].fix).startswith("8.6.2 is here, 10 or newer is needed")
    assert "sudo jetson_clocks" in str(items["clocks"].fix)


def test_a_driver_that_does_not_start_is_told_with_its_fix(tmp_path: Path) -> None:
    findings = examine(
        JETSON, gpu=lambda: None, weights=tmp_path, refusal=lambda machine: f"join on {machine.gpu}"
    )
    (item,) = [finding for finding in findings if finding.name == "gpu"]
    assert (item.found, item.fix) == (None, "join on integrated, tegra234")


def test_this_machine_has_what_these_tests_run_on() -> None:
    items = {finding.name: finding for finding in examine()}
    assert items["python"].ok and items["onnxruntime"].ok
