import math
from pathlib import Path

import pytest

from irstd_edge.benchmarks.accuracy import METRICS
from irstd_edge.benchmarks.limits import FLOORS, load_limits
from irstd_edge.edge.types import IrstdError

CHANGES = {
    "net_targets_lost": 1,
    "targets_flipped": 0.005,
    "f1_3px": -0.005,
    "iou": -0.005,
    "fa_per_mpx": 2.0,
}


def written(folder: Path, text: str) -> Path:
    path = folder / "gate.toml"
    path.write_text(text)
    return path


def test_the_defaults() -> None:
    limits = load_limits()
    assert limits.drift == CHANGES
    assert limits.floor == {}
    assert limits.baseline == {**CHANGES, "fps_ratio": 0.9}
    assert not limits.baseline_asked


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_limits(written(tmp_path, "")) == load_limits()


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    text = "[drift]\nf1_3px = -0.01\n[floor]\nfps = 30\n[baseline]\nfps_ratio = 0.8\n"
    limits = load_limits(written(tmp_path, text))
    assert limits.drift == {**CHANGES, "f1_3px": -0.01}
    assert limits.floor == {"fps": 30}
    assert limits.baseline == {**CHANGES, "fps_ratio": 0.8}
    assert limits.baseline_asked


def test_limits_that_are_off_unless_set(tmp_path: Path) -> None:
    text = """
        [drift]
        pd_at_fa = -0.005
        fps_ratio = 1.2
        [drift.lost_by_scr]
        "0 to 1.5" = 0
        [drift.lost_by_area]
        "over 50" = 2
    """
    limits = load_limits(written(tmp_path, text))
    assert limits.drift == {**CHANGES, "pd_at_fa": -0.005, "fps_ratio": 1.2}
    assert limits.lost == {("lost_by_scr", "0 to 1.5"): 0, ("lost_by_area", "over 50"): 2}
    assert load_limits().lost == {}


def test_a_baseline_takes_the_fields_of_a_drift(tmp_path: Path) -> None:
    text = """
        [baseline]
        pd_at_fa = -0.005
        [baseline.lost_by_scr]
        "0 to 1.5" = 0
        [drift.lost_by_area]
        "over 50" = 2
    """
    limits = load_limits(written(tmp_path, text))
    assert limits.baseline == {**CHANGES, "fps_ratio": 0.9, "pd_at_fa": -0.005}
    assert limits.baseline_lost == {("lost_by_scr", "0 to 1.5"): 0}
    assert limits.lost == {("lost_by_area", "over 50"): 2}
    assert limits.baseline_asked


def test_a_section_of_a_file_has_to_be_asked_for(tmp_path: Path) -> None:
    assert not load_limits(written(tmp_path, "[drift]\niou = -0.01\n")).baseline_asked
    assert load_limits(written(tmp_path, "[baseline]\n")).baseline_asked


@pytest.mark.parametrize("name", FLOORS)
def test_every_figure_can_have_a_floor(tmp_path: Path, name: str) -> None:
    limits = load_limits(written(tmp_path, f"[floor]\n{name} = 0.5\n"))
    assert limits.floor == {name: 0.5}
    assert set(METRICS) < set(FLOORS)


def test_a_runtime_can_have_floors_of_its_own(tmp_path: Path) -> None:
    text = "[floor]\nf1_3px = 0.9\nfps = 5\n[floor.tensorrt]\nfps = 50\np99_ms = 30\n"
    limits = load_limits(written(tmp_path, text))
    assert limits.floor_of("onnxruntime") == {"f1_3px": 0.9, "fps": 5}
    assert limits.floor_of("tensorrt") == {"f1_3px": 0.9, "fps": 50, "p99_ms": 30}
    off = load_limits(written(tmp_path, "[floor]\np99_ms = 5\n[floor.tensorrt]\np99_ms = inf\n"))
    assert (off.floor_of("tensorrt"), off.floor_of("onnxruntime")) == ({}, {"p99_ms": 5})


def test_infinity_turns_a_limit_off(tmp_path: Path) -> None:
    text = """
        [drift]
        net_targets_lost = inf
        targets_flipped = inf
        iou = -inf
        f1_3px = -inf
        fa_per_mpx = inf
        pd_at_fa = -inf
        [drift.lost_by_scr]
        "0 to 1.5" = inf
        [floor]
        fa_per_mpx = inf
        [baseline]
        iou = -inf
        pd_at_fa = -inf
    """
    limits = load_limits(written(tmp_path, text))
    assert set(limits.drift) == set(CHANGES), "infinity takes the place of a default"
    assert {abs(value) for value in limits.drift.values()} == {math.inf}
    assert limits.lost == limits.floor == limits.baseline_lost == {}
    assert limits.baseline["iou"] == -math.inf and "pd_at_fa" not in limits.baseline


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[drfit]\n", "section 'drfit' is unknown; valid are drift, floor, baseline"),
        ("drift = 1\n", r"drift is not a section; write \[drift\] on its own line"),
        ("[[drift]]\n", "drift is not a section"),
        (
            "[drift]\nf1 = -0.1\n",
            r"\[drift\] key 'f1' is unknown; valid are net_targets_lost, targets_flipped, f1_3px",
        ),
        ("[drift]\nfps_rate = 0.9\n", r"key 'fps_rate' is unknown; .*fps_ratio, lost_by_area"),
        ("[drift]\nfps_ratio = -1\n", "fps_ratio = -1 is negative"),
        ("[drift]\npd_at_fa = 0.005\n", "pd_at_fa = 0.005 demands a rise; write -0.005"),
        ("[drift]\npd_at_fa = -5\n", "pd_at_fa = -5 is no fraction; write -0.05 for -5 %"),
        ("[baseline]\npd_at_fa = 0.1\n", r"\[baseline\] pd_at_fa = 0.1 demands a rise"),
        ("[baseline]\npd = -0.1\n", r"\[baseline\] key 'pd' is unknown; .*fps_ratio, lost_by_area"),
        (
            '[baseline.lost_by_scr]\n"0-1.5" = 0\n',
            r"\[baseline.lost_by_scr\] range '0-1.5' is unknown; valid are 0 to 1.5, 1.5 to 3,",
        ),
        (
            "[drift]\nlost_by_scr = 0\n",
            r"drift.lost_by_scr is not a section; .*\[drift.lost_by_scr\]",
        ),
        (
            '[drift.lost_by_scr]\n"0-1.5" = 0\n',
            r"\[drift.lost_by_scr\] range '0-1.5' is unknown; valid are 0 to 1.5, 1.5 to 3,",
        ),
        ('[drift.lost_by_area]\n"0 to 1.5" = 0\n', "range '0 to 1.5' is unknown; .* over 50$"),
        ('[drift.lost_by_scr]\n"over 6" = -1\n', "over 6 = -1 is negative; write 0 or more"),
        ('[drift.lost_by_scr]\n"over 6" = "few"\n', "over 6 is 'few'; write a number"),
        ("[floor.lost_by_scr]\n", r"\[floor\] runtime 'lost_by_scr' is unknown; valid are onnx"),
        (
            "[floor]\nspeed = 9\n",
            r"\[floor\] key 'speed' is unknown; valid are fps, fps_end",
        ),
        ("[floor.tensorrt]\nspeed = 9\n", r"\[floor.tensorrt\] key 'speed' is unknown; valid ar"),
        ("[floor.tensorrt]\nfps = -1\n", r"\[floor.tensorrt\] fps = -1 is negative"),
        ("[floor]\nfps = '30'\n", r"\[floor\] fps is '30'; write a number"),
        (f"[floor]\nfps = 1{400 * '0'}\n", r"\[floor\] fps is 10+; write a number up to 1e\+12"),
        ("[floor]\nfps = true\n", r"\[floor\] fps is True; write a number"),
        ("[floor]\nfps = nan\n", r"\[floor\] fps is nan; write a number"),
        ("[floor]\nfps = -1\n", r"\[floor\] fps = -1 is negative"),
        ("[floor]\nf1_3px = 90\n", r"f1_3px = 90 is no fraction; write 0.9 for 90 %"),
        ("[drift]\niou = 0.005\n", r"iou = 0.005 demands a rise; write -0.005 to allow that drop"),
        ("[drift]\niou = -0.5\n[drift]\n", "is not TOML"),
        ("[drift\n", r"is not TOML \(.*line 1.*\); correct"),
        ("[drift]\nfa_per_mpx = -2\n", "fa_per_mpx = -2 is negative; write 0 or more"),
        ("[drift]\ntargets_flipped = 5\n", "is no fraction; write 0.05 for 5 %"),
        ("[baseline]\nfps_ratio = -0.1\n", "fps_ratio = -0.1 is negative"),
        ("[floor]\niou = inf\n", "iou = inf is out of reach; leave it out or write 0"),
        ("[floor]\nfps = inf\n", "fps = inf is out of reach; leave it out or write 0"),
        ("[drift]\nfps_ratio = inf\n", "fps_ratio = inf is out of reach"),
        ("[drift]\niou = inf\n", "iou = inf demands a rise; write -inf to allow"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(IrstdError, match=message) as caught:
        load_limits(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(IrstdError, match=r"none.toml: cannot be read \(No such file"):
        load_limits(tmp_path / "none.toml")
    binary = tmp_path / "gate.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IrstdError, match="is not TOML"):
        load_limits(binary)
