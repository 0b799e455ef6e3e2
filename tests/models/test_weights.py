import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from irstd_edge.benchmarks.accuracy import evaluate
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.normalisation import with_normalisation
from irstd_edge.edge.runners import torch_runner
from irstd_edge.edge.types import IrstdError, OperatingPoint
from irstd_edge.models import MODELS, create_model, pickles, spec_of
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.weights import (
    find_weights,
    import_weights,
    load_model,
    load_state,
    model_from_state,
    read_card,
    save_weights,
    spec_of_card,
)


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)


def refusal(call, *arguments) -> str:
    """The one line that the user gets."""
    with pytest.raises(IrstdError) as error:
        call(*arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("model", MODELS)
def test_weights_come_back_with_their_card(lived_in, tmp_path: Path, model: str) -> None:
    net, path = lived_in(create_model(model)), tmp_path / "w.safetensors"
    net = net.to(memory_format=torch.channels_last)
    save_weights(path, model, net, {"epoch": 3, "threshold": 0.35})
    loaded, name, card = load_model(path)
    assert name == model
    assert card == {"epoch": 3, "threshold": 0.35}
    assert same(loaded, net)
    assert not loaded.training
    before = path.read_bytes()
    save_weights(path, model, loaded, card)
    assert path.read_bytes() == before, "equal weights give equal bytes"


def test_the_3x3_heads_are_recognised(lived_in, tmp_path: Path) -> None:
    net, path = lived_in(MSHNet(head_size=3)), tmp_path / "w.safetensors"
    save_weights(path, "mshnet", net, {})
    assert same(load_model(path)[0], net)


@pytest.mark.parametrize(
    ("card", "threshold"), [({"threshold": 0.35}, 0.35), ({"threshold": None}, 0.5), ({}, 0.5)]
)
def test_the_threshold_of_the_card_is_used(card: dict[str, Any], threshold: float) -> None:
    spec = spec_of_card("p2p", card)
    assert spec.decode.threshold == threshold
    assert spec.decode.operating_points == ()
    assert spec.input == spec_of("p2p").input


def test_the_operating_points_of_the_card_are_used() -> None:
    card = {"threshold": 0.5, "operating_points": [[0.3, 0.9, 2], [0.5, 0.8, 1.5]]}
    points = spec_of_card("p2p", card).decode.operating_points
    assert points == (OperatingPoint(0.3, 0.9, 2.0), OperatingPoint(0.5, 0.8, 1.5))


def test_the_normalisation_of_the_card_is_used(tmp_path: Path) -> None:
    spec = spec_of_card("p2p", {"normalisation": "local-contrast"})
    assert spec == with_normalisation(spec_of("p2p"), "local-contrast")
    path = tmp_path / "w.safetensors"
    save_weights(path, "p2p", create_model("p2p"), {"normalisation": "magic"})
    assert "its card was not written by irstd-edge" in refusal(load_model, path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, "p2p", create_model("p2p"), {})
    message = refusal(load_state, path, "mshnet")
    assert message == f"{path}: holds p2p, not mshnet; give weights of mshnet"


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    message = refusal(load_model, path)
    assert message.startswith(f"{path}: ")
    assert "irstd-edge import-weights" in message


def test_a_pickle_that_takes_years_to_be_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles, "MAX_UNPICKLING_S", 0.5)
    doubled = b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02}U\x01x\x85q\x00" + doubled + b"K\x01s.")
    assert "refused" in refusal(import_weights, tmp_path / "w.pkl", "p2p")


def test_numbers_that_are_shown_more_often_than_they_are_stored(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "w.pkl")
    assert "holds no state dict" in refusal(import_weights, tmp_path / "w.pkl", "p2p")


def test_a_broken_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"model": "p2p", "card": "{"})
    assert "card was not written by irstd-edge" in refusal(read_card, path)


@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_a_cut_off_safetensors_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, "p2p", create_model("p2p"), {})
    path.write_bytes(path.read_bytes()[:size])
    message = refusal(load_model, path)
    assert message.startswith(f"{path}: is no whole safetensors file")


def test_a_missing_file_lists_the_shipped_weights(tmp_path: Path) -> None:
    folder = refusal(find_weights, tmp_path)
    assert folder.startswith(f"{tmp_path}: is a folder, where weights are asked for; give ")
    message = refusal(find_weights, tmp_path / "no.safetensors")
    assert all(part in message for part in (str(tmp_path), "no such file", "mshnet", "p2p"))
    assert refusal(import_weights, tmp_path / "no.tar", "mshnet").startswith(str(tmp_path))


@pytest.mark.parametrize("model", MODELS)
def test_a_models_name_stands_for_its_shipped_weights(model: str) -> None:
    assert find_weights(model).name == f"{model}.safetensors"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("model", "every", "least"),
    [("p2p", 16, {"f1_3px": 0.94}), ("mshnet", 33, {"iou": 0.85, "pd": 0.95})],
)
def test_the_shipped_weights_find_what_their_cards_say(
    real_data: Path, model: str, every: int, least: dict[str, float]
) -> None:
    net, _, card = load_model(model)
    test = open_dataset(real_data / "NUDT-SIRST", "test")
    samples = list(replace(test, names=test.names[::every]).samples())
    with torch_runner(net.deploy(), spec_of_card(model, card)) as run:
        found = evaluate(samples, run.predict, "native").metrics()
    assert all(found[measure] > value for measure, value in least.items())


def test_weights_that_do_not_fit_name_the_first_thing_that_does_not() -> None:
    state = create_model("p2p").state_dict()
    del state["stem.0.weight"]
    message = refusal(model_from_state, "p2p", state, Path("w"))
    assert message.startswith("w: is not a p2p: ")
    assert "stem.0.weight" in message


# ------------------------------------------------------------------- the authors' files


NUMPY_SCALARS = {"epoch": np.int64(381), "iou": np.float64(0.6716), "f4": np.float32(1.5)}

FORMS = {
    "raw": lambda state: state,
    "state_dict": lambda state: {"state_dict": state},
    "net": lambda state: {"net": state, "optimizer": {"state": {}}, **NUMPY_SCALARS},
    "module.": lambda state: OrderedDict((f"module.{k}", v) for k, v in state.items()),
    "net, module.": lambda state: {"net": {f"module.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize(
    ("form", "head_size", "zipped"),
    [*((form, 1, True) for form in FORMS), ("net", 3, True), ("raw", 3, False), ("net", 1, False)],
)
def test_the_authors_files_are_imported(
    lived_in, tmp_path: Path, form: str, head_size: int, zipped: bool
) -> None:
    net = lived_in(MSHNet(head_size))
    path = tmp_path / "weight.tar"
    torch.save(FORMS[form](net.state_dict()), path, _use_new_zipfile_serialization=zipped)
    imported, card = import_weights(path, "mshnet")
    assert same(imported, net)
    assert card == {"imported_from": "weight.tar"}
    assert not imported.training
    out = tmp_path / "w.safetensors"
    save_weights(out, "mshnet", imported, card)
    assert same(load_model(out)[0], net)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_of_others_are_imported(lived_in, tmp_path: Path, prefix: str) -> None:
    net, path = lived_in(create_model("p2p")), tmp_path / "foreign.safetensors"
    save_file({f"{prefix}{key}": value for key, value in net.state_dict().items()}, path)
    imported, card = import_weights(path, "p2p")
    assert same(imported, net) and card == {"imported_from": "foreign.safetensors"}
    assert "is not a mshnet" in refusal(import_weights, path, "mshnet")
    path.write_bytes(path.read_bytes()[:1000])
    assert "no whole safetensors file" in refusal(import_weights, path, "p2p")
    message = refusal(import_weights, find_weights("p2p"), "p2p")
    assert "is a file of ours and needs no import: give it as it is" in message


class RenamedPickler(pickle._Pickler):
    """Writes numpy's scalars as another numpy would name them."""

    home = ""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__name__", "") != "scalar":
            super().save_global(obj, name)
            return
        self.write(pickle.GLOBAL + f"{self.home}\nscalar\n".encode())
        self.memoize(obj)

    dispatch = pickle._Pickler.dispatch | {type(np.float64(0).__reduce__()[0]): save_global}


@pytest.mark.parametrize("home", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_of_either_age_are_read(
    lived_in, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    net, path = lived_in(MSHNet()), tmp_path / "checkpoint.pkl"
    monkeypatch.setattr(RenamedPickler, "home", home)
    module = type("pickle_module", (), {"Pickler": RenamedPickler, "__name__": "pickle"})
    torch.save(FORMS["net"](net.state_dict()), path, pickle_module=module)
    assert f"c{home}\nscalar\n".encode() in path.read_bytes()
    assert same(import_weights(path, "mshnet")[0], net)


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class Evaluation(Attack):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


@pytest.mark.parametrize("attack", [Attack, Evaluation])
@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch"])
def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(
    tmp_path: Path, attack: type[Attack], plain: bool
) -> None:
    mark, path = tmp_path / "ran", tmp_path / "weight.pkl"
    state = {"state_dict": create_model("mshnet").state_dict(), "iou": attack(mark)}
    if plain:
        path.write_bytes(pickle.dumps(attack(mark)))
    else:
        torch.save(state, path)
    message = refusal(import_weights, path, "mshnet")
    assert message.startswith(f"{path}: refused: ")
    assert "state dict" in message
    assert not mark.exists()
    pickle.loads(pickle.dumps(attack(mark)))
    assert mark.exists(), "the attack is none"


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(create_model("mshnet"), path)
    assert refusal(import_weights, path, "mshnet").startswith(f"{path}: refused: ")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_cut_off_pickle_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "weight.tar"
    torch.save(create_model("p2p").state_dict(), path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    assert refusal(import_weights, path, "p2p").startswith(f"{path}: refused: it is damaged")


@pytest.mark.parametrize("value", [{"epoch": 3}, [1, 2], {"net": {"w": 1.0}}, torch.zeros(2)])
def test_a_file_without_state_dict_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "weight.tar"
    torch.save(value, path)
    assert "holds no state dict" in refusal(import_weights, path, "mshnet")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.fill_(torch.nan), "final.weight holds infinite values or none"),
        (lambda w: w.double() + 1e300, "final.weight holds infinite values or none"),
        (lambda w: w.to(torch.int8), "final.weight holds integers"),
        (lambda w: torch.nested.nested_tensor([w[0], w[0]]), "holds no state dict"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_numbers_that_are_no_weights_are_refused(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    state = create_model("mshnet").state_dict()
    state["final.weight"] = change(state["final.weight"])
    torch.save(state, tmp_path / "weights.tar")
    with pytest.raises(IrstdError, match=words):
        import_weights(tmp_path / "weights.tar", "mshnet")


@pytest.mark.parametrize("read", [load_model, lambda path: import_weights(path, "p2p")])
def test_a_kind_of_number_that_torch_does_not_know(tmp_path: Path, read: Any) -> None:
    card = {"model": "p2p"} if read is load_model else {}
    entry = {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}
    header = json.dumps({"__metadata__": card, "w": entry}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(3))
    assert refusal(read, path).startswith(f"{path}: is no whole safetensors file")


def test_the_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weight.tar"
    torch.save(create_model("p2p").state_dict(), path)
    message = refusal(import_weights, path, "mshnet")
    assert message.startswith(f"{path}: is not a mshnet: ")
    assert message.endswith("check --model")
    assert len(message) < 300 + len(str(path))
