"""A pushed version with exports, made of a model that is there at once: what bundles are built from."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bike_pipeline.edge import bundle
from bike_pipeline.edge.updates import read_channel
from bike_pipeline.model_registry import ModelRegistry, model_signature, signing
from bike_pipeline.modeling.golden import golden_rows
from bike_pipeline.settings import load_settings

ROWS = 300
LARGEST = 1e-5
DAYS = 30
GATE = {"blessed": True, "format": "tflite_float32", "reason": ""}


@dataclass(frozen=True)
class Key:
    """A key pair.

    Attributes:
        signer: what signs.
        public: what a device believes.
        trusted: the same, by its id.
        pem: the public key as PEM.
    """

    signer: signing.Signer
    public: Any
    trusted: dict[str, Any]
    pem: bytes


def new_key() -> Key:
    """Return a fresh key pair."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    name = signing.key_id_of(public)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Key(signing.Signer(name, "test", False, private), public, {name: public}, pem)


def sign_channel(path: Path, key: Key, **changes: Any) -> None:
    """Sign a channel file anew with other entries; None leaves one out."""
    payload = {**read_channel(path.read_bytes(), key.public), **changes}
    text = json.dumps({name: value for name, value in payload.items() if value is not None})
    signature = base64.b64encode(key.signer.sign(text.encode())).decode()
    path.write_text(json.dumps({"payload": text, "signature": signature}))


def export_small_model(folder: Path) -> None:
    """Write a SavedModel with the served signature and its exports: `folder/model` and `folder/exports`."""
    import tensorflow as tf

    from bike_pipeline.exporting.acceptance.report import write_golden
    from bike_pipeline.exporting.formats.base import Source
    from bike_pipeline.exporting.formats.c.c_source import CSource
    from bike_pipeline.exporting.formats.tflite import Float32
    from bike_pipeline.modeling.saved_model import input_signature, zero_or_nan

    class Small(tf.Module):
        @tf.function(input_signature=[input_signature()])
        def predict(self, raw):
            warm = tf.exp(2.0 * raw["temp"] - raw["hum"] * raw["windspeed"] + tf.sin(raw["atemp"]))
            codes = sum(
                tf.clip_by_value(tf.cast(raw[name], tf.float32), 0.0, 24.0)
                for name in ("yr", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit")
            )
            return {"cnt": tf.maximum(warm * codes - 5.0, 0.0) + zero_or_nan(raw)}

    small = Small()
    tf.saved_model.save(small, str(folder / "model"), {"serving_default": small.predict})
    rows = golden_rows(ROWS)
    answers = small.predict({name: tf.constant(values) for name, values in rows.items()})["cnt"].numpy()
    formats = {}
    for made in (Float32(), CSource()):
        target = folder / "exports" / made.name
        target.mkdir(parents=True)
        made.export(Source(folder / "model", rows), target)
        content = (target / made.file).read_bytes()
        formats[made.name] = {
            "passed": True, "reason": "", "file": made.file, "precision": made.precision, "mae": 30.0,
            "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content),
        }  # fmt: skip
    report = {"formats": formats, "edge_gate": GATE}
    (folder / "exports" / "parity.json").write_text(json.dumps(report))
    write_golden(folder / "exports", rows, np.asarray(answers, np.float32))


def push(made: Path, base: Path, version: int, key: Key | None, **changes: Any) -> Path:
    """Return the folder of a version pushed from what `export_small_model` wrote.

    Args:
        made: that folder.
        base: the model's base path.
        version: the version.
        key: what signs; None for no signature.
        changes: entries of parity.json instead of its own.
    """

    def complete(folder: Path) -> None:
        target = folder / "assets.extra" / "exports"
        shutil.copytree(made / "exports", target)
        report = {**json.loads((target / "parity.json").read_text()), **changes}
        (target / "parity.json").write_text(json.dumps(report))
        model_signature.write(folder, {"gates": {}}, key.signer if key else None, version)

    return Path(ModelRegistry(base).add(made / "model", version, {"model_id": 7}, complete))


def build(version: Path, key: Key, force: bool = False) -> bundle.Bundle:
    """Return the bundle of a pushed version."""
    found = bundle.read_exports(version, key.trusted, force)
    return bundle.build(found, "bike_demand", int(version.name), load_settings().edge, LARGEST, key.signer)
