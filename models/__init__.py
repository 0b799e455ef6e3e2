"""What can be trained: networks, losses, weights, the one training loop."""

from __future__ import annotations

from irstd_edge.edge.normalisation import BY_DEPTH
from irstd_edge.edge.types import DecodeSpec, InputSpec, IrstdError, ModelSpec
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.p2p import P2P

MODELS: dict[str, type[MSHNet] | type[P2P]] = {"mshnet": MSHNet, "p2p": P2P}

SPECS = {
    "mshnet": ModelSpec("mshnet", InputSpec(stride=16, normalisation=BY_DEPTH), DecodeSpec("mask")),
    "p2p": ModelSpec("p2p", InputSpec(stride=8, normalisation=BY_DEPTH), DecodeSpec("heatmap")),
}


def create_model(name: str) -> MSHNet | P2P:
    """Return a network with fresh weights. Raises IrstdError, listing the names."""
    _known(name)
    return MODELS[name]()


def spec_of(name: str) -> ModelSpec:
    """Return what the other parts need to know of a network. Raises IrstdError."""
    _known(name)
    return SPECS[name]


def _known(name: str) -> None:
    if name not in MODELS:
        names = ", ".join(MODELS)
        raise IrstdError(f"{name}: no model has this name; choose one of {names}")
