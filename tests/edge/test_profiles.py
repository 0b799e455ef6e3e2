import dataclasses

import pytest

from irstd_edge.edge.profiles import PROFILES, Profile, module_of, profile_of
from irstd_edge.edge.types import IrstdError

NAMES = (
    *("orin-nano-4gb", "orin-nano-4gb-super", "orin-nano-8gb", "orin-nano-8gb-super"),
    *("orin-nx-8gb", "orin-nx-8gb-super", "orin-nx-16gb", "orin-nx-16gb-super"),
    *("agx-orin-32gb", "agx-orin-64gb", "xavier-nx", "agx-xavier", "thor-t5000"),
)
INT8_PER_CLOCK = {72: 2048, 87: 4096, 110: 16384}
"""Dense operations of one streaming multiprocessor: Volta, Ampere, Blackwell of Thor."""


def test_the_names_that_users_rely_on() -> None:
    assert tuple(PROFILES) == NAMES


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
def test_the_figures_agree_with_each_other(profile: Profile) -> None:
    """A sparse, a rounded or a mistyped figure would not fit cores and clock."""
    expected = profile.sms * profile.gpu_mhz * 1e6 * INT8_PER_CLOCK[profile.sm] / 1e12
    assert profile.int8_tops == pytest.approx(expected, rel=0.12)
    assert profile.fp16_tflops == pytest.approx(profile.int8_tops / 2, rel=0.01)
    assert profile.cores == profile.sms * (64 if profile.sm == 72 else 128)
    assert profile.power_w[0] < profile.power_w[1]
    assert profile.source.startswith("NVIDIA Jetson") and profile.derived


def test_float32_runs_on_tensor_cores_from_ampere_on() -> None:
    assert profile_of("agx-orin-64gb").tf32_tflops == pytest.approx(21.25)
    assert profile_of("agx-orin-64gb").fp32_tflops == pytest.approx(5.32, abs=0.01)  # CUDA cores
    xavier = profile_of("agx-xavier")
    assert xavier.tf32_tflops == xavier.fp32_tflops == pytest.approx(1.41, abs=0.01)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-super")])
def test_the_super_mode_is_the_same_chip_at_other_clocks(name: str) -> None:
    plain, raised = profile_of(name.removesuffix("-super")), profile_of(name)
    assert (plain.sms, plain.sm) == (raised.sms, raised.sm)
    faster = raised.gpu_mhz / plain.gpu_mhz
    assert raised.int8_tops / plain.int8_tops == pytest.approx(faster, rel=0.05)


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(IrstdError, match="'orin' is not one of cpu, cuda, jetson, orin-nano"):
        profile_of("orin")


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile_of("xavier-nx").int8_tops = 99  # type: ignore[misc]


@pytest.mark.parametrize(
    ("compatible", "name"),
    [
        ("nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234", "orin-nx-16gb"),
        ("nvidia,p3509-0000+p3767-0004\0nvidia,tegra234", "orin-nano-4gb"),
        ("nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234", "orin-nano-8gb-super"),
        ("nvidia,p3768-0000+p3767-0000-super\0nvidia,tegra234", "orin-nx-16gb-super"),
        ("nvidia,p3737-0000+p3701-0004\0nvidia,tegra234", "agx-orin-32gb"),
        ("nvidia,p3509-0000+p3668-0000\0nvidia,tegra194", "xavier-nx"),
        ("nvidia,p4071-0000+p3834-0008\0nvidia,tegra264", "thor-t5000"),
        ("nvidia,p3768-0000+p3767-0001\0nvidia,p3767-0000", None),  # two: which is not told
        ("nvidia,p3768-0000+p3767-0009\0nvidia,tegra234", None),
        ("lanner,eai-i233\0nvidia,tegra234", None),
        ("", None),
    ],
)
def test_a_module_is_known_by_its_number(compatible: str, name: str | None) -> None:
    assert module_of(compatible) == name
    assert name is None or name in PROFILES
