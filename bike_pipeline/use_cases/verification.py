"""Whether a pushed model is what was signed, and whether all evidence for it is there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bike_pipeline.errors import ModelError, VerificationError

if TYPE_CHECKING:
    from bike_pipeline.model_registry.manifest import Check
    from bike_pipeline.model_registry.signing import PublicKey
    from bike_pipeline.settings import Settings

_DAMAGED = "serve another version, or run the pipeline again, which pushes a damaged model anew"
_ORIGIN = (
    "what serves is as it was pushed; find out what changed the rest, then `bike-pipeline run --no-cache` makes "
    "a model whose evidence is whole"
)
_OTHER_KEY = (
    "nothing else is wrong with it; if that key was used here before, name its public key in signing.trusted_keys or "
    "with --public-key, else do not believe the model"
)


@dataclass(frozen=True)
class Verification:
    """The checks of a pushed model: those of its folder, which is `sound` if they pass, and of what it was made of."""

    folder: str
    passed: bool
    checks: list[Check]
    sound: bool

    def require(self) -> None:
        """Raise VerificationError if a check failed."""
        failed = [check for check in self.checks if not check.passed]
        if not failed:
            return
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise VerificationError(
            f"the model is not verified: {failed[0].name}: {failed[0].detail.rstrip('.')}{more}",
            where=self.folder,
            fix=_OTHER_KEY if all(check.other_key for check in failed) else _ORIGIN if self.sound else _DAMAGED,
        )


def verify(settings: Settings, model: str | None = None, public_keys: Sequence[Path] = ()) -> Verification:
    """Check a pushed model against its signed manifest; a version of this workspace also against what it was made of.

    `public_keys` are PEM files, the only keys that are believed then; without them those of the settings are.
    """
    from bike_pipeline.model_registry import signing, verification

    folder = _folder(settings, model)
    trusted = signing.read_public_keys(public_keys) if public_keys else trusted_keys(settings)
    own = verification.checks(folder, trusted, bound=settings.signing.require_signature)
    checks = [*own, *_origin(settings, folder)]
    passed = all(check.passed for check in checks)
    return Verification(str(folder), passed, checks, sound=all(check.passed for check in own))


def trusted_keys(settings: Settings) -> dict[str, PublicKey]:
    """Return the public keys that count if nobody names others: the signing key's own and the settings'."""
    from bike_pipeline.model_registry import signing

    signing.use(settings)
    return signing.trusted_keys()


def _origin(settings: Settings, folder: Path) -> list[Check]:
    """Return the checks of what a version of this workspace was made of; none if its records are not here."""
    from bike_pipeline.lineage.queries import origin_checks
    from bike_pipeline.model_registry import verification
    from bike_pipeline.use_cases.metadata import lineage_of

    own = str(folder.resolve().parent) == os.path.realpath(settings.serving_path)
    evidence = verification.evidence_of(folder) if own else None
    if evidence is None or (settings.metadata.mysql is None and not settings.metadata_file.is_file()):
        return []
    model_id = (evidence.get("model") or {}).get("model_id")
    if not isinstance(model_id, int):
        return []
    return origin_checks.checks_of(lineage_of(settings), model_id, settings.store_uri)


def _folder(settings: Settings, model: str | None) -> Path:
    from bike_pipeline.lineage.queries.model_lookup import find_model, pushed_folder
    from bike_pipeline.model_registry import local_copy
    from bike_pipeline.use_cases.metadata import lineage_of

    found = pushed_folder(settings.serving_path, model)
    if found is not None:
        return found
    chosen = find_model(lineage_of(settings), settings.serving_path, model)
    if chosen.push is None:
        raise ModelError(f"model {chosen.model_id} was never pushed", fix="`bike-pipeline models` lists what is served")
    return local_copy(chosen.push.destination)
