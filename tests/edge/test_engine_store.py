import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from irstd_edge.edge import engine_store
from irstd_edge.edge.engine_store import EngineKey, EngineStore, default_root, open_store
from irstd_edge.edge.types import IrstdError

KEY = EngineKey(
    graph_sha256="ab" * 32,
    backend="tensorrt",
    version="10.3.0",
    gpu="Orin, 8 multiprocessors",
    target="sm_87",
    flags=("min=1x1x256x256", "power=nvpmodel 0"),
)
DATA = b"engine" * 1000


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return open_store(tmp_path / "engines")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_was_built_here_is_loaded(store: EngineStore) -> None:
    path = store.save(KEY, DATA)
    assert path == store.path(KEY) and path.read_bytes() == DATA
    assert store.load(KEY) == DATA
    assert open_store(store.root).load(KEY) == DATA  # by a later process
    store.save(KEY, b"better")
    assert store.load(KEY) == b"better"


def test_an_engine_that_is_replaced_while_it_is_read_is_not_called_altered(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(KEY, DATA)
    read = engine_store.read_json

    def read_and_replaced(*arguments: Any) -> Any:
        entry = read(*arguments)
        monkeypatch.setattr(engine_store, "read_json", read)
        store.save(KEY, b"of another process")
        return entry

    monkeypatch.setattr(engine_store, "read_json", read_and_replaced)
    assert store.load(KEY) == b"of another process"


def test_the_keys_of_all_that_is_kept(store: EngineStore) -> None:
    other = replace(KEY, flags=("min=1x1x512x640",))
    for key in (KEY, other):
        store.save(key, DATA)
    assert set(store.keys()) == {KEY, other}
    left = store.root / f".{KEY.digest}.0123456789ab.partial"  # by a kill
    shutil.copytree(store.path(KEY).parent, left)
    assert len(store.keys()) == 2
    (store.path(KEY).parent / "entry.json").write_text('{"key": {"graph_sha256": "x"}}')
    assert store.keys() == (other,)


def test_an_engine_whose_file_was_removed_is_none(store: EngineStore) -> None:
    """To make space: the engine is large, its entry is not."""
    other = replace(KEY, flags=("min=1x1x512x640",))
    for key in (KEY, other):
        store.save(key, DATA)
    store.path(KEY).unlink()
    assert store.keys() == (other,)


@pytest.mark.parametrize("flags", [None, "min=1x1x32x32", [1, 2], [None]])
def test_an_entry_of_another_shape_is_no_engine(store: EngineStore, flags: object) -> None:
    entry = store.save(KEY, b"engine").with_name("entry.json")
    value = json.loads(entry.read_text())
    value["key"]["flags"] = flags
    entry.write_text(json.dumps(value))
    assert store.keys() == ()


def test_a_damaged_entry_costs_no_other_engine(store: EngineStore) -> None:
    other = replace(KEY, gpu="Thor")
    store.save(KEY, DATA)
    damaged = store.save(other, DATA).parent / "entry.json"
    damaged.write_text(damaged.read_text()[:20])
    assert store.keys() == (KEY,)
    assert store.load(KEY) == DATA


def test_nobody_else_can_read_or_write_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_store(tmp_path / "engines")
        path = store.save(KEY, DATA)
    finally:
        os.umask(before)
    assert mode(store.root) == mode(path.parent) == 0o700
    assert mode(store.root / "key") == mode(path) == 0o600
    assert sorted(p.name for p in store.root.iterdir()) == sorted([KEY.digest, "key"])


def test_the_key_is_random_and_stays_out_of_sight(tmp_path: Path) -> None:
    one, two = (open_store(tmp_path / name) for name in ("one", "two"))
    assert len(one.secret) == 32 and one.secret != two.secret
    assert str(one.secret) not in repr(one) and one.secret.hex() not in repr(one)
    one.save(KEY, DATA)
    entry = (one.path(KEY).parent / "entry.json").read_text()
    assert one.secret.hex() not in entry


@pytest.mark.parametrize("name", ["graph_sha256", "backend", "version", "gpu", "target"])
def test_an_engine_of_another_key_is_not_taken_for_it(store: EngineStore, name: str) -> None:
    store.save(KEY, DATA)
    other: dict[str, Any] = {name: "other"}
    with pytest.raises(IrstdError, match="no engine is there: build it again with"):
        store.load(replace(KEY, **other))


def test_every_field_makes_another_digest() -> None:
    names = ("graph_sha256", "backend", "version", "gpu", "target")
    changes: list[dict[str, Any]] = [{name: "x"} for name in names]
    changes += [{"flags": ("x",)}, {"gpu": None}]
    others = [replace(KEY, **change) for change in changes]
    assert len({KEY.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_an_engine_of_another_machine_is_refused(store: EngineStore, tmp_path: Path) -> None:
    elsewhere = open_store(tmp_path / "elsewhere")
    elsewhere.save(KEY, DATA)
    elsewhere.path(KEY).parent.rename(store.root / KEY.digest)
    with pytest.raises(IrstdError, match="was not built here: build it again"):
        store.load(KEY)


def test_an_altered_engine_is_refused(store: EngineStore) -> None:
    path = store.save(KEY, DATA)
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(IrstdError, match="was altered since it was built"):
        store.load(KEY)


@pytest.mark.parametrize("seal", [None, 7, "", "0" * 64, "é"])
def test_a_forged_seal_is_refused(store: EngineStore, seal: object) -> None:
    entry = store.save(KEY, DATA).parent / "entry.json"
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "hmac": seal}))
    with pytest.raises(IrstdError, match="was altered"):
        store.load(KEY)


def test_an_engine_cannot_take_the_place_of_another(store: EngineStore) -> None:
    """Both were built here, and each is what it was: but not of this key."""
    other = replace(KEY, graph_sha256="cd" * 32)
    store.save(KEY, DATA)
    store.save(other, b"of another graph")
    for name in ("engine", "entry.json"):
        source, target = (store.path(key).parent / name for key in (other, KEY))
        target.write_bytes(source.read_bytes())
    with pytest.raises(IrstdError, match="was altered"):
        store.load(KEY)


def test_a_missing_file_is_one_line(store: EngineStore) -> None:
    store.save(KEY, DATA).unlink()
    with pytest.raises(IrstdError, match="engine: cannot be read"):
        store.load(KEY)


def test_a_store_that_others_may_enter_is_refused(store: EngineStore) -> None:
    store.root.chmod(0o755)
    with pytest.raises(IrstdError, match="others have rights to it: chmod go-rwx"):
        open_store(store.root)


def test_a_key_that_others_may_read_is_refused(store: EngineStore) -> None:
    (store.root / "key").chmod(0o644)
    with pytest.raises(IrstdError, match="key: others have rights to it"):
        open_store(store.root)


def test_a_key_that_is_a_link_or_damaged_is_refused(store: EngineStore, tmp_path: Path) -> None:
    key = store.root / "key"
    key.write_bytes(b"short")
    with pytest.raises(IrstdError, match="not a key of 32 bytes"):
        open_store(store.root)
    key.unlink()
    (tmp_path / "theirs").write_bytes(bytes(32))
    key.symlink_to(tmp_path / "theirs")
    with pytest.raises(IrstdError, match="is not a file but a link"):
        open_store(store.root)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IrstdError, match="cannot be used"):
        open_store(tmp_path / "file" / "engines")


def test_it_lives_where_the_user_keeps_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_root() == tmp_path / "irstd-edge" / "engines"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".local" / "share" / "irstd-edge" / "engines"


def test_timings_are_kept_by_version_gpu_and_power_mode(store: EngineStore) -> None:
    assert store.timings(KEY) == b""
    store.save_timings(KEY, b"measured")
    same = replace(KEY, graph_sha256="cd" * 32, flags=("min=1x1x64x64", "power=nvpmodel 0"))
    assert store.timings(KEY) == store.timings(same) == b"measured"
    others = [{"version": "10.4.0"}, {"gpu": "other"}, {"backend": "torch-tensorrt"}]
    places = ("power=nvpmodel 2",), ("module=orin-nx-8gb", "power=nvpmodel 0")
    for change in (*others, *({"flags": flags} for flags in places)):
        assert store.timings(replace(KEY, **change)) == b""
    (file,) = (store.root / "timings").iterdir()
    assert mode(file.parent) == 0o700
    assert store.keys() == ()  # they are no engines


def test_altered_timings_count_as_none(store: EngineStore, tmp_path: Path) -> None:
    store.save_timings(KEY, b"measured")
    (file,) = (store.root / "timings").iterdir()
    file.write_bytes(file.read_bytes() + b"!")
    assert store.timings(KEY) == b""
    elsewhere = open_store(tmp_path / "other")
    elsewhere.save_timings(KEY, b"measured")
    (foreign,) = (elsewhere.root / "timings").iterdir()
    file.write_bytes(foreign.read_bytes())
    assert store.timings(KEY) == b""
