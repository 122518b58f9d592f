"""The pushed versions of one model, and which of them serves: the one place to ask, on a folder or object storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bike_pipeline.model_registry import promotion_log, verification, version_folders
from bike_pipeline.model_registry.phases import STABLE, Change, Deployment
from bike_pipeline.model_registry.verification import Verification


class ModelRegistry:
    """A model's base path, as TF Serving watches it: numeric version folders, complete or absent.

    Attributes:
        base_path: local folder or address (s3://, gs://, …).
    """

    def __init__(self, base_path: str | Path) -> None:
        self.base_path = str(base_path).rstrip("/")

    @classmethod
    def of_version(cls, uri: str | Path) -> tuple[ModelRegistry, int]:
        """Return the registry and the version of a version's folder or address.

        Raises:
            ValueError: it does not end with a version.
        """
        base_path, _, version = str(uri).rstrip("/").rpartition("/")
        return cls(base_path), int(version)

    def uri(self, version: int) -> str:
        """Return the folder or the address of a version."""
        return version_folders.at(self.base_path, version)

    def versions(self) -> list[int]:
        """Return the version numbers, ascending."""
        return version_folders.versions(self.base_path)

    def folder(self, version: int, *, fresh: bool = False) -> Path:
        """Return a local folder with a version's files: its own, or a cached copy of an address.

        Args:
            version: the version.
            fresh: whether a copy must be what is there now, byte for byte; else its fingerprint is enough.

        Raises:
            StorageError: an address cannot be read, or holds no such version.
        """
        return version_folders.local_folder(self.base_path, version, fresh)

    def push_record(self, version: int) -> dict[str, Any] | None:
        """Return what was recorded at a version's push; None without such a record.

        Raises:
            StorageError: it cannot be read.
        """
        return version_folders.push_record(self.base_path, version)

    def add(
        self,
        model: str | Path,
        version: int,
        record: Mapping[str, Any],
        complete: Callable[[Path], None] | None = None,
    ) -> str:
        """Copy a SavedModel to a new version, so that a watching server sees all of it or nothing.

        Args:
            model: folder of the SavedModel.
            version: the new version number.
            record: the push record.
            complete: writes what must appear with the rest, such as the signature, into the folder that is still aside.

        Returns:
            The version's folder or address.

        Raises:
            StorageError: it cannot be written (permission, space), or the version exists.
            BusyError: another process is pushing.
        """
        return str(version_folders.add_version(self.base_path, model, version, record, complete))

    def fingerprint(self, version: int) -> str:
        """Return the SHA-256 over names and contents of a version's model, without its exports and push files."""
        return version_folders.fingerprint(self.uri(version))

    def is_intact(self, version: int, fingerprint: str, exports: str | None = None) -> bool:
        """Return whether a version holds the very bytes that `fingerprint` names.

        Args:
            version: the version.
            fingerprint: of the model.
            exports: fingerprint of its exports, "" if there must be none; None if they do not matter.
        """
        return version_folders.is_intact(self.uri(version), fingerprint, exports)

    def signature_sha256(self, version: int) -> str:
        """Return the SHA-256 over a version's manifest and signature; absent ones count as empty."""
        return version_folders.signed_as(self.base_path, version)

    def verify(self, version: int) -> Verification:
        """Check every byte of a version, its signature and its number against what was pushed.

        Raises:
            ConfigurationError: a trusted key cannot be read, or a signature is required and there is no key.
            StorageError: the version cannot be read.
        """
        return verification.verify(self.folder(version, fresh=True))

    def require_sound(self, version: int) -> None:
        """Refuse a version that is absent, changed, or lacks a proof that is required.

        Raises:
            ModelError: that is so.
            ConfigurationError: a trusted key cannot be read.
            StorageError: the version cannot be read.
        """
        promotion_log.check_sound(self.base_path, version)

    def problem(self, version: int) -> str:
        """Return why a version cannot serve; "" if nothing speaks against it. One on object storage is not fetched.

        Raises:
            ConfigurationError: a trusted key cannot be read.
        """
        return verification.wrong_where(self.uri(version))

    def deployment(self) -> Deployment | None:
        """Return labels and phases; None if no promotion was ever recorded, so that the newest version serves.

        Raises:
            StorageError: the state is damaged or cannot be read.
        """
        return promotion_log.read(self.base_path)

    def serving(self) -> int | None:
        """Return the version that serves: the promoted one, or the newest if no promotion was ever recorded.

        Raises:
            StorageError: the state cannot be read.
        """
        return promotion_log.promoted_version(self.base_path)

    def history(self) -> list[Change]:
        """Return every change of what is promoted, oldest first, as far as the log can be read.

        Raises:
            StorageError: the log cannot be read.
        """
        return promotion_log.history(self.base_path)

    def begin(self) -> None:
        """Record what serves now, before the first push of a version that does not serve at once.

        Raises:
            BusyError: another process is changing it.
            StorageError: the state cannot be read or written.
        """
        promotion_log.begin(self.base_path)

    def set_validated(self, version: int, *, passed: bool, reason: str) -> None:
        """Record the outcome of a version's validation; a version that serves is left as it is.

        Raises:
            ModelError: there is no such version.
            BusyError: another process is changing it.
            StorageError: the state cannot be read or written.
        """
        promotion_log.set_validated(self.base_path, version, passed, reason)

    def promote(self, version: int, label: str = STABLE, reason: str = "") -> Change | None:
        """Give a label to a validated version; None if it has it already.

        Raises:
            ModelError: the version is absent, changed or not validated.
            BusyError: another process is changing it.
            StorageError: the state cannot be read or written.
        """
        return promotion_log.promote(self.base_path, version, label, reason)

    def rollback(self, to: int | None = None, label: str = STABLE, reason: str = "") -> Change:
        """Give a label back to a version that had it before: `to`, or the newest earlier one that is still there.

        Raises:
            ModelError: nothing had it before, or that version is gone or damaged.
            BusyError: another process is changing it.
            StorageError: the state cannot be read or written.
        """
        return promotion_log.rollback(self.base_path, to, label, reason)


def is_intact(folder: str | Path, fingerprint: str, exports: str | None = None) -> bool:
    """Return whether a model's folder, or a version's address, holds the very bytes that `fingerprint` names."""
    return version_folders.is_intact(folder, fingerprint, exports)


def local_copy(uri: str | Path) -> Path:
    """Return a local folder with the files of a version's folder or address.

    Raises:
        StorageError: an address cannot be read, or holds no such version.
    """
    return version_folders.local_copy(uri)
