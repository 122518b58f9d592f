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
from bike_pipeline.edge import documents, updates
from bike_pipeline.edge.device import check_in_child
from bike_pipeline.edge.documents import CONTRACT_FILE
from bike_pipeline.errors import EdgeError
from bike_pipeline.model_registry import signing, verification
from bike_pipeline.model_registry.layout import EXPORTS_FOLDER, PARITY_FILE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from bike_pipeline.model_registry.signing import PublicKey, Signer
    from bike_pipeline.settings.tree import EdgeSettings

_C_SOURCE = "c_source"
_EXPORT_AGAIN = "run the pipeline again, with a LiteRT format in exporting.formats"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class DeviceExports:
    """The exports of a pushed version that a device can use.

    Attributes:
        folder: one folder a format.
        formats: the entry of each format in `parity.json` that passed.
        litert: names of those that LiteRT runs.
        model_format: the one that the bundle serves.
        gate: the verdict of the edge gate: "blessed", "format", "reason".
        forced: whether the bundle is made against that verdict.
        golden: the golden rows: "columns" and the SavedModel's answers.
    """

    folder: Path
    formats: dict[str, dict[str, Any]]
    litert: list[str]
    model_format: str
    gate: dict[str, Any]
    forced: bool
    golden: dict[str, Any]

    def files_of(self, name: str) -> dict[str, bytes]:
        """Return the files of a format, by their path within its folder."""
        root = self.folder / name
        found = sorted(path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def read_exports(version: Path, trusted: Mapping[str, PublicKey], force: bool) -> DeviceExports:
    """Return the exports of the version in a folder for devices.

    `force` goes against the edge gate, never against a signature or a format's own check.

    Raises:
        EdgeError: the version is not what was signed, answers something else than rentals, has no LiteRT export that
            passed, or the edge gate did not bless it.
    """
    # The evidence behind the model is what `verify` is for.
    for check in verification.checks(version, trusted, bound=signing.required(), evidence=False):
        if not check.passed:
            raise EdgeError(
                f"the pushed model is not verified: {check.name}: {check.detail}",
                where=str(version),
                fix="`bike-pipeline verify` shows all that is wrong with it; choose another one with --model",
            )
    folder = version / EXPORTS_FOLDER
    report, golden = _read_json(folder / PARITY_FILE), _read_json(folder / "golden.json")
    if features.LABEL not in golden:
        raise EdgeError(
            "devices take models that answer rentals, and this one does not",
            where=str(version),
            fix="push a model of the target rentals; this one's exports lie in its folder, for programs of your own",
        )
    formats = {
        name: entry
        for name, entry in dict(report.get("formats") or {}).items()
        if isinstance(entry, dict) and entry.get("passed") is True and (folder / name).is_dir()
    }
    litert = [name for name, entry in formats.items() if str(entry.get("file", "")).endswith(".tflite")]
    if not litert:
        raise EdgeError("no LiteRT format of this model passed its check", where=str(folder), fix=_EXPORT_AGAIN)
    gate = report.get("edge_gate")
    gate = gate if isinstance(gate, dict) else {"blessed": False, "format": "", "reason": "there is no verdict"}
    wanted = gate.get("format")
    reason = ""
    if gate.get("blessed") is not True:
        reason = gate.get("reason") or "no reason is given"
    elif updates.NOT_FINITE not in golden:
        reason = "it was exported by an earlier release, and may answer NaN of a broken sensor with a number"
    elif wanted not in litert:
        reason = f"it was given for {wanted or 'no format'}, which is not among those that passed"
    if reason and not force:
        raise EdgeError(
            f"the edge gate did not bless this model: {reason}",
            where=str(folder / PARITY_FILE),
            fix="mend what it names and run the pipeline again; --force pushes it all the same, and marks it",
        )
    chosen = str(wanted) if wanted in litert else litert[0]
    return DeviceExports(folder, formats, litert, chosen, gate, bool(reason), golden)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise EdgeError("this version was pushed without exports", where=str(path), fix=_EXPORT_AGAIN) from None
    except (OSError, ValueError) as error:
        raise EdgeError(f"cannot read it ({error})", where=str(path), fix=_EXPORT_AGAIN) from None
    if not isinstance(content, dict):
        raise EdgeError("it is damaged", where=str(path), fix=_EXPORT_AGAIN)
    return content


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
    """Return the signed bundle of a pushed version; a float32 model differs by no more than `largest_difference`.

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
    agreed = documents.feature_contract()
    agreed_json = _as_json(agreed)
    files: dict[str, bytes] = {CONTRACT_FILE: agreed_json}
    answers = {}
    for litert_format in exports.litert:
        entry = exports.formats[litert_format]
        path = exports.folder / litert_format / entry["file"]
        content = path.read_bytes()
        if _sha256(content) != entry.get("sha256"):
            raise EdgeError("its SHA-256 is not that of parity.json", where=str(path), fix="run the pipeline again")
        described = documents.with_metadata(content, agreed, about, {CONTRACT_FILE: agreed_json})
        files[f"models/{litert_format}/{entry['file']}"] = described
        columns, rows = updates.golden_columns(exports.golden)
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
        tells_broken=updates.NOT_FINITE in exports.golden,
    ).encode()
    manifest = {
        "format": updates.FORMAT,
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
    head = {updates.MANIFEST: signed, updates.SIGNATURE: signer.sign(signed)}
    return Bundle(updates.archive_of(head, files), manifest)


def prove(bundle: Bundle, key: Ed25519PublicKey) -> None:
    """Take a bundle as a device does, golden rows included; raise an EdgeError if a device would refuse it."""
    with tempfile.TemporaryDirectory(prefix="bike-edge-") as aside:
        archive, folder = Path(aside) / "bundle.tar", Path(aside) / "bundle"
        archive.write_bytes(bundle.archive)
        try:
            updates.extract(archive, folder, key)
            updates.verify(folder, key)
            check_in_child(folder)
        except updates.UpdateError as error:
            raise EdgeError(f"a device would refuse the bundle: {error}", fix="run the pipeline again") from None


def program() -> bytes:
    """Return bike-edge.pyz: the device's side as one file that Python runs."""
    # The packages around the two modules are empty there.
    files = {"bike_pipeline/__init__.py": "", "bike_pipeline/edge/__init__.py": ""}
    for name in ("device.py", "updates.py"):
        files[f"bike_pipeline/edge/{name}"] = (_HERE / name).read_text(encoding="utf-8")
    files["__main__.py"] = "import sys\n\nfrom bike_pipeline.edge.device import main\n\nsys.exit(main())\n"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, documents.DATE), files[name])
    return made.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _answers(model: bytes, agreed: Mapping[str, Any], columns: Mapping[str, Any]) -> list[float]:
    """Return a model's answers to rows, in the shortest form that is the same float32."""
    return [float(str(value)) for value in updates.answers(agreed, columns, model_content=model)]


def _check_golden_answers(answers: list[float], exports: DeviceExports, largest: float) -> None:
    expected = np.asarray(exports.golden[features.LABEL], np.float64)
    difference = np.abs(np.asarray(answers) - expected) / np.maximum(np.abs(expected), 1.0)
    if not len(expected) or not float(difference.max()) <= largest:
        raise EdgeError(
            f"{exports.model_format} does not answer the golden rows as the SavedModel does",
            where=str(exports.folder),
            fix="run the pipeline again",
        )
