"""The signed bundle: everything that a device, an app or a C program needs of one model, in one archive.

The archive is the same bytes for the same model, settings and key: names sorted, no dates, no owners. Its manifest and
the signature come first, so that a device believes nothing before it has read them.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.edge import contract, documents, metadata, unpacking
from bike_pipeline.edge.device import check_in_child
from bike_pipeline.edge.exports import DeviceExports
from bike_pipeline.edge.trust import FORMAT, UpdateError
from bike_pipeline.edge.unpacking import MANIFEST, SIGNATURE, archive_of, extract, verify
from bike_pipeline.errors import EdgeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from bike_pipeline.model_registry.signing import Signer
    from bike_pipeline.settings.tree import EdgeSettings

_C_SOURCE = "c_source"
_HERE = Path(__file__).parent
# Modules of the device's program, in an archive that Python runs; the packages around them are empty there.
_PROGRAM = ("device.py", "fetching.py", "trust.py", "unpacking.py")
_PACKAGES = ("bike_pipeline", "bike_pipeline/edge")
_MAIN = "import sys\n\nfrom bike_pipeline.edge.device import main\n\nsys.exit(main())\n"
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """A bundle, ready to be published: the tar archive and its manifest."""

    archive: bytes
    manifest: dict[str, Any]

    @property
    def sha256(self) -> str:
        """SHA-256 of the archive."""
        return _sha256(self.archive)


def build(
    exports: DeviceExports,
    name: str,
    version: int,
    settings: EdgeSettings,
    largest_difference: float,
    signer: Signer,
) -> Bundle:
    """Return the signed bundle of a pushed version.

    Args:
        exports: see `exports.read`.
        name: the served model's name.
        version: the served version.
        settings: the section `edge`.
        largest_difference: of a float32 model to the SavedModel, on a golden row.
        signer: the key that signs.

    Raises:
        EdgeError: a model does not fit the feature contract, or does not answer its golden rows.
    """
    model_format, served = exports.model_format, exports.formats[exports.model_format]
    about = {
        "name": name,
        "description": "Bike rentals an hour from calendar and weather",
        "version": str(version),
        "author": settings.author,
        "license": settings.license,
    }
    agreed = contract.feature_contract()
    agreed_json = _as_json(agreed)
    files: dict[str, bytes] = {contract.FILE: agreed_json}
    answers = {}
    for litert_format in exports.litert:
        entry = exports.formats[litert_format]
        path = exports.folder / litert_format / entry["file"]
        content = path.read_bytes()
        if _sha256(content) != entry.get("sha256"):
            raise EdgeError("its SHA-256 is not that of parity.json", where=str(path), fix="run the pipeline again")
        described = metadata.with_metadata(content, agreed, about, {contract.FILE: agreed_json})
        files[f"models/{litert_format}/{entry['file']}"] = described
        columns, rows = unpacking.golden_columns(exports.golden)
        answers[litert_format] = _answers(described, agreed, columns)[:rows]
    tolerance = settings.reduced_golden_tolerance
    if served.get("precision") == "float32":
        tolerance = settings.golden_tolerance
        _check_golden_answers(answers[model_format], exports, largest_difference)
    golden = json.dumps({**exports.golden, "answers": answers}, sort_keys=True, allow_nan=False).encode()
    c_source = _C_SOURCE in exports.formats
    if c_source:
        files |= {f"c/{path}": content for path, content in exports.files_of(_C_SOURCE).items()}
    files |= {
        "golden.json": golden,
        "predictor.py": (_HERE / "predictor.py").read_bytes(),
        "bike-edge.pyz": program(),
    }
    model_file = f"models/{model_format}/{served['file']}"
    source = documents.kotlin(agreed, model_format, tolerance)
    files |= documents.android_files(files[model_file], golden, agreed_json, source)
    example = {name: [value] for name, value in documents.EXAMPLE.items()}
    files["README.md"] = documents.readme(
        agreed,
        name=name,
        version=version,
        model_format=model_format,
        example_rentals=_answers(files[model_file], agreed, example)[0],
        c_source=c_source,
        forced=exports.forced,
        tells_broken=unpacking.NOT_FINITE in exports.golden,
    ).encode()
    manifest = {
        "format": FORMAT,
        "model": {"name": name, "version": version, "format": model_format, "file": model_file},
        "formats": {key: {k: exports.formats[key].get(k) for k in ("precision", "mae")} for key in exports.litert},
        "c_source": c_source,
        "edge_gate": exports.gate,
        "forced": exports.forced,
        "golden": {"file": "golden.json", "max_relative_difference": tolerance},
        "minimum": settings.minimum.model_dump(),
        "key_id": signer.key_id,
        "files": {path: {"size": len(content), "sha256": _sha256(content)} for path, content in sorted(files.items())},
    }
    signed = _as_json(manifest)
    return Bundle(archive_of({MANIFEST: signed, SIGNATURE: signer.sign(signed)}, files), manifest)


def prove(bundle: Bundle, key: Ed25519PublicKey) -> None:
    """Take a bundle as a device does, golden rows included; raise an EdgeError if a device would refuse it."""
    with tempfile.TemporaryDirectory(prefix="bike-edge-") as aside:
        archive, folder = Path(aside) / "bundle.tar", Path(aside) / "bundle"
        archive.write_bytes(bundle.archive)
        try:
            extract(archive, folder, key)
            verify(folder, key)
            check_in_child(folder)
        except UpdateError as error:
            raise EdgeError(f"a device would refuse the bundle: {error}", fix="run the pipeline again") from None


def program() -> bytes:
    """Return bike-edge.pyz: the device's side as one file that Python runs."""
    files = {f"{package}/__init__.py": "" for package in _PACKAGES}
    files |= {f"{_PACKAGES[-1]}/{name}": (_HERE / name).read_text(encoding="utf-8") for name in _PROGRAM}
    files["__main__.py"] = _MAIN
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _DATE), files[name])
    return made.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _answers(model: bytes, agreed: Mapping[str, Any], columns: Mapping[str, Any]) -> list[float]:
    """Return a model's answers to rows, in the shortest form that is the same float32."""
    from ai_edge_litert.interpreter import Interpreter

    arrays = {entry["name"]: np.asarray(columns[entry["name"]], entry["dtype"]) for entry in agreed["inputs"]}
    interpreter = Interpreter(model_content=model, num_threads=1)
    answers = interpreter.get_signature_runner(agreed["signature"])(**arrays)[agreed["output"]["name"]]
    return [float(str(value)) for value in np.asarray(answers, np.float32)]


def _check_golden_answers(answers: list[float], exports: DeviceExports, largest: float) -> None:
    expected = np.asarray(exports.golden[features.LABEL], np.float64)
    difference = np.abs(np.asarray(answers) - expected) / np.maximum(np.abs(expected), 1.0)
    if not len(expected) or not float(difference.max()) <= largest:
        raise EdgeError(
            f"{exports.model_format} does not answer the golden rows as the SavedModel does",
            where=str(exports.folder),
            fix="run the pipeline again",
        )
