"""What a pushed version holds for devices: the exports that passed, and the verdict of the edge gate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.edge.unpacking import NOT_FINITE
from bike_pipeline.errors import EdgeError
from bike_pipeline.model_registry import signing, verification
from bike_pipeline.model_registry.layout import EXPORTS_FOLDER, PARITY_FILE

if TYPE_CHECKING:
    from bike_pipeline.model_registry.signing import PublicKey

_GOLDEN = "golden.json"
_LITERT_SUFFIX = ".tflite"
_EXPORT_AGAIN = "run the pipeline again, with a LiteRT format in exporting.formats"


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


def read(version: Path, trusted: Mapping[str, PublicKey], force: bool) -> DeviceExports:
    """Return the exports of the version in a folder for devices.

    `force` goes against the edge gate, never against a signature or a format's own check.

    Raises:
        EdgeError: the version is not what was signed, has no LiteRT export that passed, or the edge gate did not bless
            it.
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
    report, golden = _json(folder / PARITY_FILE), _json(folder / _GOLDEN)
    formats = {
        name: entry
        for name, entry in dict(report.get("formats") or {}).items()
        if isinstance(entry, dict) and entry.get("passed") is True and (folder / name).is_dir()
    }
    litert = [name for name, entry in formats.items() if str(entry.get("file", "")).endswith(_LITERT_SUFFIX)]
    if not litert:
        raise EdgeError("no LiteRT format of this model passed its check", where=str(folder), fix=_EXPORT_AGAIN)
    gate = report.get("edge_gate")
    gate = gate if isinstance(gate, dict) else {"blessed": False, "format": "", "reason": "there is no verdict"}
    wanted = gate.get("format")
    reason = ""
    if gate.get("blessed") is not True:
        reason = gate.get("reason") or "no reason is given"
    elif NOT_FINITE not in golden:
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


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise EdgeError("this version was pushed without exports", where=str(path), fix=_EXPORT_AGAIN) from None
    except (OSError, ValueError) as error:
        raise EdgeError(f"cannot read it ({error})", where=str(path), fix=_EXPORT_AGAIN) from None
    if not isinstance(content, dict):
        raise EdgeError("it is damaged", where=str(path), fix=_EXPORT_AGAIN)
    return content
