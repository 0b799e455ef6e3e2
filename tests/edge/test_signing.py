import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from irstd_edge.edge import signing
from irstd_edge.edge.bundle import Bundle, open_bundle, write_bundle
from irstd_edge.edge.signing import check_signature, sign
from irstd_edge.edge.types import IrstdError, MachineError, Manifest, ModelSpec, Quantization

pytest.importorskip("cryptography", reason="cryptography is in the sign extra")

from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402

PRIVATE_FORMATS = {
    "pem": serialization.PrivateFormat.PKCS8,
    "openssh": serialization.PrivateFormat.OpenSSH,
}
SEED = bytes(range(32))


def private_file(
    path: Path, form: str = "pem", seed: bytes = SEED, password: bytes | None = None
) -> Path:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    lock = serialization.BestAvailableEncryption(password) if password else None
    encoded = key.private_bytes(
        serialization.Encoding.PEM, PRIVATE_FORMATS[form], lock or serialization.NoEncryption()
    )
    path.write_bytes(encoded)
    path.chmod(0o600)
    return path


def public_file(path: Path, form: str = "pem", seed: bytes = SEED) -> Path:
    public = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key()
    encoding, kind = {
        "pem": (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "openssh": (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
    }[form]
    path.write_bytes(public.public_bytes(encoding, kind))
    return path


@pytest.fixture
def bundle(tmp_path: Path, mask_spec: ModelSpec) -> Bundle:
    manifest = Manifest(mask_spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    return write_bundle(tmp_path / "bundle", manifest, {"fp32.onnx": b"graph"})


@pytest.mark.parametrize("form", PRIVATE_FORMATS)
def test_what_was_signed_opens_with_the_public_key(
    bundle: Bundle, tmp_path: Path, form: str
) -> None:
    key = sign(bundle.path, private_file(tmp_path / "key", form))
    public = public_file(tmp_path / "key.pub", form)
    assert open_bundle(bundle.path, public).manifest == bundle.manifest
    entry = json.loads((bundle.path / "signature.json").read_text())
    assert list(entry) == ["schema", "key", "signature"] and entry["key"] == key
    assert len(base64.b64decode(entry["signature"])) == 64


def test_a_link_in_place_of_the_signature_is_not_written_through(
    bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "notes").write_text("precious")
    (bundle.path / "signature.json").symlink_to(tmp_path / "notes")
    with pytest.raises(IrstdError, match=r"signature\.json: is a link: remove it"):
        sign(bundle.path, private_file(tmp_path / "key"))
    assert (tmp_path / "notes").read_text() == "precious"


def test_a_bundle_without_a_key_opens_signed_or_not(bundle: Bundle, tmp_path: Path) -> None:
    open_bundle(bundle.path)
    sign(bundle.path, private_file(tmp_path / "key"))
    open_bundle(bundle.path)


def test_a_bundle_that_is_not_signed_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    public = public_file(tmp_path / "key.pub")
    with pytest.raises(IrstdError, match="bundle: is not signed: irstd-edge sign "):
        open_bundle(bundle.path, public)
    sign(bundle.path, private_file(tmp_path / "key"))
    elsewhere = tmp_path / "elsewhere.json"
    (bundle.path / "signature.json").rename(elsewhere)
    (bundle.path / "signature.json").symlink_to(elsewhere)
    with pytest.raises(IrstdError, match="is not signed"):
        open_bundle(bundle.path, public)


def test_a_signature_of_someone_else_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    sign(bundle.path, private_file(tmp_path / "key", seed=bytes(32)))
    with pytest.raises(IrstdError, match="was signed with the key .*, not with .*key.pub: ask who"):
        open_bundle(bundle.path, public_file(tmp_path / "key.pub"))


def test_a_claim_of_the_right_key_does_not_help(bundle: Bundle, tmp_path: Path) -> None:
    own = sign(bundle.path, private_file(tmp_path / "key"))
    sign(bundle.path, private_file(tmp_path / "other", seed=bytes(32)))
    file = bundle.path / "signature.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "key": own}))
    with pytest.raises(IrstdError, match="does not fit manifest.json: one of them was altered"):
        check_signature(bundle.path, public_file(tmp_path / "key.pub"))


def test_a_manifest_altered_after_signing_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    sign(bundle.path, private_file(tmp_path / "key"))
    manifest = bundle.path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    open_bundle(bundle.path)
    with pytest.raises(IrstdError, match="does not fit manifest.json"):
        open_bundle(bundle.path, public_file(tmp_path / "key.pub"))


def test_a_graph_altered_after_signing_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    sign(bundle.path, private_file(tmp_path / "key"))
    (bundle.path / "fp32.onnx").write_bytes(b"other")
    with pytest.raises(IrstdError, match="fp32.onnx: was altered"):
        open_bundle(bundle.path, public_file(tmp_path / "key.pub"))


def test_a_signature_for_another_purpose_is_none_for_a_bundle(
    bundle: Bundle, tmp_path: Path
) -> None:
    sign(bundle.path, private_file(tmp_path / "key"))
    key = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
    bare = base64.b64encode(key.sign((bundle.path / "manifest.json").read_bytes())).decode()
    file = bundle.path / "signature.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "signature": bare}))
    with pytest.raises(IrstdError, match="does not fit manifest.json"):
        check_signature(bundle.path, public_file(tmp_path / "key.pub"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: {**entry, "signature": "!"}, "does not fit"),
        (lambda entry: {**entry, "signature": None}, "does not fit"),
        (lambda entry: {**entry, "schema": "x"}, "is no irstd-edge/signature/1"),
        (lambda entry: [entry], "is no irstd-edge/signature/1"),
    ],
)
def test_a_signature_that_is_none(
    bundle: Bundle, tmp_path: Path, change: Callable[[object], object], message: str
) -> None:
    sign(bundle.path, private_file(tmp_path / "key"))
    file = bundle.path / "signature.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(IrstdError, match=message):
        check_signature(bundle.path, public_file(tmp_path / "key.pub"))


def test_a_public_key_in_place_of_the_private_one_is_told(bundle: Bundle, tmp_path: Path) -> None:
    key = public_file(tmp_path / "key.pub")
    key.chmod(0o644)
    with pytest.raises(IrstdError, match=r"key\.pub: is no private key"):
        sign(bundle.path, key)


def test_a_key_that_others_can_read_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    key = private_file(tmp_path / "key")
    key.chmod(0o640)
    with pytest.raises(IrstdError, match=r"others can read this key: chmod go-rwx"):
        sign(bundle.path, key)
    assert not (bundle.path / "signature.json").exists()


def test_a_key_with_a_passphrase_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    key = private_file(tmp_path / "key", password=b"secret")
    with pytest.raises(IrstdError, match="has a passphrase: give a key without one"):
        sign(bundle.path, key)


def test_a_file_that_is_no_key(bundle: Bundle, tmp_path: Path) -> None:
    wrong = tmp_path / "key"
    wrong.write_text("hello")
    wrong.chmod(0o600)
    with pytest.raises(IrstdError, match="is no private key: make one with ssh-keygen"):
        sign(bundle.path, wrong)
    with pytest.raises(IrstdError, match="is no public key: give the .pub"):
        check_signature(bundle.path, wrong)
    with pytest.raises(IrstdError, match="nowhere: cannot be read"):
        sign(bundle.path, tmp_path / "nowhere")


def test_a_key_of_another_kind(bundle: Bundle, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    file = tmp_path / "key"
    file.write_bytes(key.private_bytes(pem, PRIVATE_FORMATS["pem"], serialization.NoEncryption()))
    file.chmod(0o600)
    with pytest.raises(IrstdError, match="is no Ed25519 key: make one with ssh-keygen"):
        sign(bundle.path, file)
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    file.write_bytes(key.public_key().public_bytes(pem, kind))
    with pytest.raises(IrstdError, match="is no Ed25519 key: give the .pub"):
        check_signature(bundle.path, file)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_a_key_of_ssh_keygen(bundle: Bundle, tmp_path: Path) -> None:
    for name, passphrase in (("id", ""), ("locked", "secret")):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f"]
        subprocess.run([*command, str(tmp_path / name)], check=True, stdin=subprocess.DEVNULL)
    with pytest.raises(IrstdError, match="has a passphrase: give a key without one"):
        sign(bundle.path, tmp_path / "locked")
    sign(bundle.path, tmp_path / "id")
    check_signature(bundle.path, tmp_path / "id.pub")


def test_without_the_package_it_says_what_to_install(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"cryptography: not installed: pip install .*\[sign\]"):
        sign(bundle.path, private_file(tmp_path / "key"))
    with pytest.raises(MachineError, match="cryptography: not installed"):
        check_signature(bundle.path, public_file(tmp_path / "key.pub"))
