"""Weights as safetensors, and the authors' files turned into them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from irstd_edge.edge.files import open_to_read, write_atomic
from irstd_edge.edge.json_files import parse_json
from irstd_edge.edge.normalisation import with_normalisation
from irstd_edge.edge.policy import MAX_WEIGHTS_BYTES
from irstd_edge.edge.types import IrstdError, ModelSpec, OperatingPoint
from irstd_edge.models import MODELS, create_model, spec_of
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.p2p import P2P
from irstd_edge.models.pickles import unpickled

SHIPPED = Path(__file__).parent / "weights"
"""Where the weights of this package lie: NAME.safetensors, with NAME.md as their card."""


def save_weights(path: Path, model: str, net: nn.Module, card: Mapping[str, Any]) -> None:
    """Write a network's weights as one safetensors file; `card` is kept as its metadata.

    Equal weights and cards give equal bytes: a bundle names its weights by their sha256.
    """
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    metadata = {"model": model, "card": json.dumps(card)}
    write_atomic(path, _in_order(save(state, metadata)))


def _in_order(raw: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which the library writes in a random order.

    The format: the header's length in 8 bytes, the header as JSON, filled up to 8, the tensors.
    """
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw[end:]


def find_weights(name: str | Path) -> Path:
    """Return the file of shipped weights (`mshnet`, `p2p`), or the path given. IrstdError."""
    if str(name) in MODELS:
        return SHIPPED / f"{name}.safetensors"
    path, shipped = Path(name), ", ".join(MODELS)
    if path.is_dir():
        raise IrstdError(
            f"{name}: is a folder, where weights are asked for; give a .safetensors file or one of "
            f"{shipped}"
        )
    if not path.is_file():
        raise IrstdError(f"{name}: no such file; give a .safetensors file or one of {shipped}")
    return path


def read_card(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the model's name and the card of a weights file. Raises IrstdError."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
    if metadata.get("model") not in MODELS:
        raise IrstdError(
            f"{path}: names no model of ours; bring in foreign weights by irstd-edge import-weights"
        )
    try:
        card = parse_json(metadata.get("card", "{}").encode())
        card = card if isinstance(card, dict) else {}
        spec_of_card(metadata["model"], card)
    except (IrstdError, TypeError, ValueError, RecursionError) as error:
        raise IrstdError(
            f"{path}: its card was not written by irstd-edge; write the weights again"
        ) from error
    return metadata["model"], card


def load_state(path: Path, model: str) -> dict[str, Tensor]:
    """Return the weights of a file that holds `model`. Raises IrstdError."""
    found, _ = read_card(path)
    if found != model:
        raise IrstdError(f"{path}: holds {found}, not {model}; give weights of {model}")
    return _tensors(path)


def load_model(name: str | Path) -> tuple[MSHNet | P2P, str, dict[str, Any]]:
    """Return a network in evaluation mode, its name and its card. Raises IrstdError."""
    path = find_weights(name)
    model, card = read_card(path)
    return model_from_state(model, load_state(path, model), path).eval(), model, card


def spec_of_card(model: str, card: Mapping[str, Any]) -> ModelSpec:
    """Return the network's spec, with the normalisation and the thresholds that its card names.

    Raises IrstdError for a normalisation that is not known.
    """
    spec = with_normalisation(spec_of(model), card.get("normalisation"))
    threshold = card.get("threshold")
    if not isinstance(threshold, float):
        return spec
    points = tuple(OperatingPoint(*map(float, row)) for row in card.get("operating_points", ()))
    decode = replace(spec.decode, threshold=threshold, operating_points=points)
    return replace(spec, decode=decode)


def spec_to_train(model: str, weights: Path | None, normalisation: str | None) -> ModelSpec:
    """Return the spec of a run: the chosen normalisation, or that of the weights it starts from."""
    of_start = spec_of(model) if weights is None else spec_of_card(model, read_card(weights)[1])
    return with_normalisation(of_start, normalisation)


def network_of(model: str, state: Mapping[str, Tensor]) -> MSHNet | P2P:
    """Return a fresh network of the layers that these weights are for."""
    net: MSHNet | P2P = create_model(model)
    head = state.get("output_0.weight")
    if model == "mshnet" and head is not None and head.shape[2:] == (3, 3):
        # A variant with 3x3 heads exists; the file says which it is.
        net = MSHNet(head_size=3)
    return net


def model_from_state(model: str, state: Mapping[str, Tensor], path: Path) -> MSHNet | P2P:
    """Return the network that these weights fit. Raises IrstdError naming what does not fit."""
    net = network_of(model, state)
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as error:
        # Its first line names the class; where all is foreign, the next ones list every key.
        reason = shorten(str(error).splitlines()[:2][-1], 200, placeholder=" ...")
        raise IrstdError(f"{path}: is not a {model}: {reason}; check --model") from error
    return net


def import_weights(path: Path, model: str) -> tuple[MSHNet | P2P, dict[str, Any]]:
    """Read weights of others: a state dict, or one under a known key.

    A file is safetensors by its ending, else what torch saved (.tar, .pkl, .pth). Nothing in it is
    run: only tensors, plain containers and numpy scalars are read. Raises IrstdError for anything
    else, and for a file that `save_weights` wrote.
    """
    safe = path.suffix.lower() == ".safetensors"
    state = _foreign_state(path) if safe else _unpickled(path)
    for key in ("state_dict", "net"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    # A key that is no text may take for ever to be turned into one.
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and _is_plain(value) for key, value in state.items()
    ):
        raise IrstdError(f"{path}: holds no state dict; save `model.state_dict()` with torch.save")
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    net = model_from_state(model, plain, path).eval()
    for key, value in net.state_dict().items():
        if value.is_floating_point() and not plain[key].is_floating_point():
            raise IrstdError(f"{path}: {key} holds integers; ask for the weights in float")
        if not value.isfinite().all():
            raise IrstdError(f"{path}: {key} holds infinite values or none; ask for whole weights")
    return net, {"imported_from": path.name}


def _foreign_state(path: Path) -> dict[str, Tensor]:
    with _opened(path) as file:
        if (file.metadata() or {}).get("model") in MODELS:
            raise IrstdError(f"{path}: is a file of ours and needs no import: give it as it is")
    return _tensors(path)


def _is_plain(value: object) -> bool:
    """Whether it is a tensor that holds its numbers; one of stride 0 shows more than there are."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_complex():
        return False
    if value.is_nested:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _unpickled(path: Path) -> Any:
    # The authors' checkpoints keep their epoch and IoU as numpy scalars. What rebuilds one moved
    # in numpy 2: a file of either age names it by the place of its time.
    scalar = np.float64(0).__reduce__()[0]
    homes = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = [np.dtype, *(type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "?"))]
    try:
        return unpickled(path, allowed=[*homes, *kinds])
    except IrstdError:
        raise
    except Exception as error:  # torch raises what the bytes made it raise
        raise IrstdError(
            f"{path}: refused: it is damaged, or holds more than tensors and would run code; "
            "ask for a plain state dict"
        ) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    with _opened(path) as file, _told(path):
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _opened(path: Path) -> Any:
    with open_to_read(path, MAX_WEIGHTS_BYTES):
        pass  # a pipe would wait for ever
    with _told(path):
        return safe_open(path, "pt")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise IrstdError(
            f"{path}: is no whole safetensors file ({error}); copy it again"
        ) from error
