"""The model that serves: its answers, which version it is, whether it is what was signed, its bundle for devices."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.errors import ConfigurationError, EdgeError, ModelError, VerificationError, and_more
from bike_pipeline.use_cases.lineage import lineage_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from bike_pipeline.edge.channel import PublishedBundle
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.model_registry.model_signature import Check
    from bike_pipeline.model_registry.signing import PublicKey
    from bike_pipeline.serving.clients.connection import Protocol
    from bike_pipeline.serving.predictor import Predictor
    from bike_pipeline.serving.records import Record
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
        raise VerificationError(
            f"the model is not verified: {failed[0].name}: {failed[0].detail.rstrip('.')}{and_more(failed)}",
            where=self.folder,
            fix=_OTHER_KEY if all(check.other_key for check in failed) else _ORIGIN if self.sound else _DAMAGED,
        )


def predict(
    settings: Settings,
    records: Sequence[Record],
    *,
    version: int | None = None,
    server: str | None = None,
    protocol: Protocol | None = None,
    label: str = "",
    source: str = "the records",
    last_day: Sequence[Record] = (),
) -> list[float]:
    """Return what the model answers, one number a record; a ModelError if one is wrong or there is no model.

    That is the rentals an hour or, with settings of the target `busy`, the probability of a busy hour.

    A record is what is known of an hour; its date stands for year, month, weekday and, with holiday, working day.
    The promoted version answers if none is named. A server is one that speaks TF Serving's protocols, such as
    "host:8501" or "grpc://host:8500", and `protocol` is what it is asked in if that does not say it; without one the
    model is loaded into this process, and with it TensorFlow. Messages say that the records come from `source`.

    With records of the `last_day`, which name their rentals (`cnt`) as well, an answer is moved by how far off the
    model was in the hours before its own: of the hours whose rentals are known, those of the 24 before it count.
    """
    from bike_pipeline.serving.records import to_columns

    columns = to_columns(records, source)
    if server is not None:
        from bike_pipeline.serving.clients import connect, connection

        with connect(connection(settings, server, protocol=protocol, version=version, label=label)) as client:
            factors = _factors(settings, records, source, last_day, client.predict)
            return [float(value) * factor for value, factor in zip(client.predict(columns), factors, strict=True)]
    with _predictor(settings, version) as predictor:
        factors = _factors(settings, records, source, last_day, predictor.predict)
        return [float(value) * factor for value, factor in zip(predictor.predict(columns), factors, strict=True)]


def predict_intervals(
    settings: Settings,
    records: Sequence[Record],
    *,
    version: int | None = None,
    source: str = "the records",
    last_day: Sequence[Record] = (),
) -> list[dict[str, float]]:
    """Return for each record the predicted rentals, as "cnt", and their quantiles by name; NaN where none is known.

    The model answers in this process; arguments and errors as of `predict`.
    """
    from bike_pipeline.serving.records import to_columns

    columns = to_columns(records, source)
    with _predictor(settings, version) as predictor:
        factors = _factors(settings, records, source, last_day, predictor.predict)
        found = dict(sorted(predictor.predict_intervals(columns).items()))
    if last_day:
        from bike_pipeline.modeling import hour_ahead

        # Of the answer itself it is the answer, moved.
        answers = found[features.LABEL]
        moved = {name: hour_ahead.moved_quantiles(answers, values, factors) for name, values in found.items()}
        return _rows(moved)
    return _rows(found)


def _rows(columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, float]]:
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def _factors(
    settings: Settings,
    records: Sequence[Record],
    source: str,
    last_day: Sequence[Record],
    ask: Callable[[Mapping[str, Any]], Any],
) -> list[float]:
    """Return what the answers to records are multiplied with for what the last day's records tell, (records,)."""
    if not last_day:
        return [1.0] * len(records)
    if settings.training.target != "rentals":
        raise ConfigurationError(
            f"the last day's rentals move rentals, and the model answers {settings.training.target}",
            where="training.target",
            fix="ask a model of rentals, or without the last day",
        )
    from bike_pipeline.modeling import hour_ahead
    from bike_pipeline.modeling.feedback import Labels
    from bike_pipeline.serving.records import hours_of, labels_of, to_columns

    where = "the last day"
    hours, columns = hours_of(records, source), to_columns(last_day, where)
    with_rentals = columns | {features.LABEL: labels_of(last_day, where)}
    known = Labels.of(with_rentals, hours_of(last_day, where), ask(columns))
    return [float(factor) for factor in hour_ahead.factors(hours, known)]


@contextmanager
def _predictor(settings: Settings, version: int | None) -> Iterator[Predictor]:
    from bike_pipeline.lean_imports import lean_imports

    with lean_imports(google_cloud=True):
        from bike_pipeline.model_registry import signing
        from bike_pipeline.serving.predictor import Predictor

        signing.use(settings)
        yield Predictor(settings.serving_path, version, settings.training.target)


def promote(settings: Settings, version: int | None = None, label: str = "stable", reason: str = "") -> Change | None:
    """Validate a pushed version if that was not done, let it serve, and tell the servers of the settings.

    It is the newest if none is named; the label "stable" is the one that serves; the reason is for the history. Returns
    the change, None if the version has the label already.

    Raises:
        ModelError: there is no such version, or its files are not those that were pushed.
        ServerError: it does not pass, or a server does not follow.
    """
    from bike_pipeline.model_registry import signing
    from bike_pipeline.rollout import promotion

    _check_label(label)
    signing.use(settings)
    chosen = version_to_promote(settings, version)
    return promotion.promote(settings.serving_path, chosen, promotion.RolloutTargets.of(settings), label, reason)


def version_to_promote(settings: Settings, version: int | None) -> int:
    """Return the version, or the newest pushed one for None."""
    from bike_pipeline.model_registry import ModelRegistry

    if version is None:
        version = max(ModelRegistry(settings.serving_path).versions(), default=None)
    if version is None:
        raise ModelError("nothing is pushed", where=settings.serving_path, fix="run the pipeline: `bike-pipeline run`")
    return version


def rollback(settings: Settings, to: int | None = None, label: str = "stable", reason: str = "") -> Change:
    """Give a label back to a version that had it before; None is the one before. Nothing is loaded for it."""
    from bike_pipeline.model_registry import signing
    from bike_pipeline.rollout import promotion

    _check_label(label)
    signing.use(settings)
    return promotion.rollback(settings.serving_path, promotion.RolloutTargets.of(settings), to, label, reason)


def history(settings: Settings) -> list[Change]:
    """Return what was validated, promoted and rolled back, oldest first."""
    from bike_pipeline.model_registry import ModelRegistry

    return ModelRegistry(settings.serving_path).history()


def _check_label(label: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", label):
        raise ConfigurationError(
            f"'{label}' is no label",
            where="--label",
            fix="begin with a letter; letters, digits, '_', '.' and '-' follow",
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
    from bike_pipeline.lineage.queries.reproducibility import checks_of
    from bike_pipeline.model_registry import verification

    own = str(folder.resolve().parent) == os.path.realpath(settings.serving_path)
    evidence = verification.evidence_of(folder) if own else None
    if evidence is None or (settings.metadata.mysql is None and not settings.metadata_file.is_file()):
        return []
    model_id = (evidence.get("model") or {}).get("model_id")
    if not isinstance(model_id, int):
        return []
    return checks_of(lineage_of(settings), model_id, settings.store_uri)


def _folder(settings: Settings, model: str | None) -> Path:
    from bike_pipeline.lineage.queries.model_lookup import find_model, pushed_folder
    from bike_pipeline.model_registry import local_copy

    found = pushed_folder(settings.serving_path, model)
    if found is not None:
        return found
    chosen = find_model(lineage_of(settings), settings.serving_path, model)
    if chosen.push is None:
        raise ModelError(f"model {chosen.model_id} was never pushed", fix="`bike-pipeline models` lists what is served")
    return local_copy(chosen.push.destination)


def serving_configuration(settings: Settings, output: Path, *, check: bool = False) -> list[Path]:
    """Write TF Serving's own configuration files and the compose.yaml that runs it into a folder; return the files.

    With the version policy `promoted` they follow from what is promoted, too. With `check` nothing is written, and a
    ConfigurationError names the files that are not what would be written.
    """
    from bike_pipeline.rollout import configuration, promotion

    promoted = None
    if settings.serving.configuration.versions.policy == "promoted":
        promoted = promotion.served_versions(settings.serving_path, settings.serving.promotion.keep_loaded)
    content = configuration.files(settings, output, promoted)
    return configuration.write_or_check(content, output, "serving-config", check=check)


def push_edge(
    settings: Settings,
    channel: str = "stable",
    *,
    version: int | None = None,
    force: bool = False,
    output: Path | None = None,
    sequence: int | None = None,
) -> PublishedBundle:
    """Build a bundle of a pushed version, the promoted one by default, take it as a device does, and publish it.

    The channels are in edge.base_path if no folder is named. With `force`, what the edge gate did not bless is pushed,
    and the bundle marked. `sequence` is the channel file's number, if the file of now was lost.

    Raises:
        EdgeError: it is not what was signed, the edge gate refused it, or a device would refuse the bundle.
    """
    from bike_pipeline.edge import bundle
    from bike_pipeline.edge import channel as channels
    from bike_pipeline.lineage.queries.model_lookup import pushed_folder
    from bike_pipeline.model_registry import ModelRegistry, signing

    folder = pushed_folder(settings.serving_path, None if version is None else str(version))
    if folder is None:
        present = ", ".join(map(str, ModelRegistry(settings.serving_path).versions()))
        fix = f"choose one of {present}" if present else "run the pipeline first"
        raise ModelError(f"version {version} is not there", where=settings.serving_path, fix=fix)
    trusted = trusted_keys(settings)
    signer = signing.signer()
    if signer is None:
        raise EdgeError(
            "there is no key to sign with", where="signing.key_file", fix="run the pipeline, which makes one"
        )
    found = bundle.read_exports(folder, trusted, force)
    device_keys = signing.ed25519_keys(trusted)
    largest = settings.exporting.max_relative_difference
    built = bundle.build(found, settings.serving.model_name, int(folder.name), settings.edge, largest, signer)
    bundle.prove(built, device_keys[signer.key_id])
    base = output.expanduser().absolute() if output else settings.edge_path
    return channels.publish(base, channel, built, signer, device_keys, settings.edge.valid_days, sequence)
