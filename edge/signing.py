"""Who made a bundle: an Ed25519 signature over its manifest, which holds the hash of every file.

The hashes alone say that a bundle arrived as it was sent; the signature says by whom. It lies in
the bundle as signature.json, and is good for these very bytes of manifest.json alone.
"""

from __future__ import annotations

import base64
import hashlib
import stat
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irstd_edge.edge.files import read_bytes
from irstd_edge.edge.json_files import read_json, write_json
from irstd_edge.edge.policy import MAX_KEY_BYTES
from irstd_edge.edge.types import IrstdError, MachineError

SCHEMA = "irstd-edge/signature/1"
SIGNATURE = "signature.json"
SIGNED = "manifest.json"
PURPOSE = SCHEMA.encode() + b"\0"
"""Comes before what is signed: the key may sign other things without meaning a bundle."""
INSTALL = "pip install 'irstd-edge[sign]'"
OPENSSH_PRIVATE, OPENSSH_PUBLIC = b"-----BEGIN OPENSSH PRIVATE KEY", b"ssh-"
OTHERS = 0o077
MAKE = "make one with ssh-keygen -t ed25519"
ID_DIGITS = 16


def sign(bundle: Path, key: Path) -> str:
    """Sign the manifest of a bundle that was verified; the id of the key.

    key: a private Ed25519 key without a passphrase, PEM or OpenSSH. Raises IrstdError where it is
    none or others can read it, and where a link stands in the place of the signature, MachineError
    without the package cryptography.
    """
    if (bundle / SIGNATURE).is_symlink():  # what it leads to would be written over
        raise IrstdError(f"{bundle / SIGNATURE}: is a link: remove it")
    private = _private(key)
    signature = private.sign(PURPOSE + read_bytes(bundle / SIGNED))
    entry = {
        "schema": SCHEMA,
        "key": _id(private.public_key()),
        "signature": base64.b64encode(signature).decode(),
    }
    write_json(bundle / SIGNATURE, entry)
    return entry["key"]


def check_signature(bundle: Path, public_key: Path) -> None:
    """Raises IrstdError unless the manifest was signed by the owner of the key.

    public_key: Ed25519, PEM or a line of OpenSSH.
    """
    from_key = _public(public_key)
    file = bundle / SIGNATURE
    if not file.is_file() or file.is_symlink():
        raise IrstdError(f"{bundle}: is not signed: irstd-edge sign {bundle} --key FILE")
    entry = read_json(file, "a bundle's signature")
    entry = entry if isinstance(entry, dict) else {}
    if entry.get("schema") != SCHEMA:
        raise IrstdError(f"{file}: is no {SCHEMA}: sign the bundle again")
    if entry.get("key") != _id(from_key):
        raise IrstdError(
            f"{bundle}: was signed with the key {entry.get('key')!r:.40}, not with {_id(from_key)} "
            f"of {public_key}: ask who made it"
        )
    if not _holds(from_key, str(entry.get("signature")), read_bytes(bundle / SIGNED)):
        raise IrstdError(
            f"{bundle}: its signature does not fit {SIGNED}: one of them was altered: copy the "
            "bundle again or ask who made it"
        )


def _holds(public: Any, text: str, manifest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(base64.b64decode(text, validate=True), PURPOSE + manifest)
    except (InvalidSignature, ValueError):
        return False
    return True


def _private(file: Path) -> Any:
    data = read_bytes(file, MAX_KEY_BYTES)
    serialization, ed25519 = _cryptography()
    ssh = data.startswith(OPENSSH_PRIVATE)
    load = serialization.load_ssh_private_key if ssh else serialization.load_pem_private_key
    try:
        key = load(data, password=None)
    except TypeError as error:
        raise IrstdError(f"{file}: has a passphrase: give a key without one, {MAKE}") from error
    except Exception as error:  # cryptography raises errors of several kinds for one cause
        raise IrstdError(f"{file}: is no private key: {MAKE}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise IrstdError(f"{file}: is no Ed25519 key: {MAKE}")
    if stat.S_IMODE(file.stat().st_mode) & OTHERS:
        raise IrstdError(f"{file}: others can read this key: chmod go-rwx {file}")
    return key


def _public(file: Path) -> Any:
    data = read_bytes(file, MAX_KEY_BYTES)
    serialization, ed25519 = _cryptography()
    ssh = data.startswith(OPENSSH_PUBLIC)
    load = serialization.load_ssh_public_key if ssh else serialization.load_pem_public_key
    try:
        key = load(data)
    except Exception as error:
        raise IrstdError(
            f"{file}: is no public key: give the .pub of the key that signed it"
        ) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise IrstdError(f"{file}: is no Ed25519 key: give the .pub of the key that signed it")
    return key


def _id(public: Any) -> str:
    """To tell keys apart."""
    serialization, _ = _cryptography()
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:ID_DIGITS]


def _cryptography() -> tuple[Any, Any]:
    if find_spec("cryptography") is None:
        raise MachineError(f"cryptography: not installed: {INSTALL}")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return serialization, ed25519
