"""The versioned store of rows: `span-0001/version-0001/{train,eval}/data.csv`, or `.parquet`, and a manifest.

A large split is cut into several files, so that a reader holds one of them at a time; they are CSV or Parquet, as the
version's manifest says. The layout is TFX's own, so that its stock CsvExampleGen reads CSV versions with the input
pattern `span-{SPAN:4}/version-{VERSION:4}/train/*`. A version is never changed after its creation; `verify` tells when
somebody did. Which span an upload belongs to is decided in `placement.py`; how a version appears all at once, in
`storage.files`. Arrow is imported where rows are read or written only, so that a re-run does without.

A version that was withdrawn (`withdrawal.py`) counts no longer: neither `spans`, `versions` and `latest` nor
what `add` compares with know it, but its number is taken, and it can be got, read and verified by that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bike_pipeline.data.manifest import (
    MANIFEST,
    QUARANTINE,
    SPLITS,
    DataFormat,
    FileRecord,
    IngestResult,
    SourceRecord,
    SpanVersion,
    Split,
    parse_manifest,
    render_manifest,
)
from bike_pipeline.data.placement import HIGHEST_NUMBER, assign_span
from bike_pipeline.data.withdrawal import WITHDRAWN, Withdrawal, new_withdrawal, parse_withdrawal, render_withdrawal
from bike_pipeline.errors import DataError
from bike_pipeline.storage.atomic_files import write_tree
from bike_pipeline.storage.files import LOCK_SECONDS, Files, open_files

if TYPE_CHECKING:
    import pyarrow as pa

    from bike_pipeline.data.contract import CheckedRows

REFUSED = "refused"
_SPAN = re.compile(r"span-([0-9]{4})")
_VERSION = re.compile(r"version-([0-9]{4})")


class SpanStore:
    """Spans and their versions, at a local path, a file:// address or any address that fsspec writes to."""

    def __init__(self, uri: str, *, lock_timeout: float = LOCK_SECONDS, files: Files | None = None) -> None:
        """Open a store; nothing is made until the first version is added.

        Args:
            uri: local folder or address.
            lock_timeout: seconds to wait for another writer, on a local folder.
            files: the place it stands in, if the caller opened that already.
        """
        self._files = files if files is not None else open_files(uri, lock_timeout)
        self.uri = self._files.uri("")

    def spans(self) -> list[int]:
        """Return the numbers of the spans that have a version, rising."""
        numbers = _numbers(self._files.folders(""), _SPAN)
        return [span for span in numbers if self.versions(span)]

    def versions(self, span: int, *, withdrawn: bool = False) -> list[int]:
        """Return the numbers of a span's versions, rising, on demand also of those that were withdrawn.

        On object storage a version without a manifest is not there yet (see `check_whole`); on a local folder it is an
        error.
        """
        found = self._versions(span)
        if self._files.at_once and (other := [version for version, files in found.items() if MANIFEST not in files]):
            raise self._without_manifest(span, other[0])
        # A mark counts only if it is whole, and is looked into where one was seen.
        return [
            version
            for version, files in found.items()
            if MANIFEST in files and (withdrawn or WITHDRAWN not in files or self.withdrawal(span, version) is None)
        ]

    def _versions(self, span: int) -> dict[int, list[str]]:
        numbers = _numbers(self._files.folders(_folder(span)), _VERSION)
        return {version: self._files.files(_folder(span, version)) for version in numbers}

    def check_whole(self) -> None:
        """Refuse a store with a version that has no manifest: it was taken away, or its upload did not end."""
        for span in _numbers(self._files.folders(""), _SPAN):
            for version, files in self._versions(span).items():
                if MANIFEST not in files:
                    raise self._without_manifest(span, version)

    def _without_manifest(self, span: int, version: int) -> DataError:
        why = "it was taken away" if self._files.at_once else "it was taken away, or an ingest did not come to its end"
        return DataError(
            f"version {version} of span {span} has no {MANIFEST}: {why}",
            where=self._files.uri(_folder(span, version)),
            fix="restore it from a backup, or move the folder away",
        )

    def latest(self, span: int | None = None) -> SpanVersion:
        """Return the highest version of a span, or of the highest span; a DataError if there is none."""
        if span is None:
            numbers = self.spans()
            if not numbers:
                fix = "ingest data first: `bike-pipeline data ingest FILE`"
                raise DataError("the span store is empty", where=self.uri, fix=fix)
            span = numbers[-1]
        versions = self.versions(span)
        if not versions:
            raise DataError(
                f"there is no span {span}", where=self.uri, fix="`bike-pipeline data list` shows what is there"
            )
        return self.get(span, versions[-1])

    def get(self, span: int, version: int) -> SpanVersion:
        """Return a version; a DataError if it does not exist or its manifest was changed."""
        folder = _folder(span, version)
        content = self._files.read(f"{folder}/{MANIFEST}")
        if content is None:
            raise DataError(
                f"there is no version {version} of span {span}",
                where=self.uri,
                fix="`bike-pipeline data list` shows what is there",
            )
        where = self._files.uri(f"{folder}/{MANIFEST}")
        manifest = parse_manifest(content, where)
        if (manifest.span, manifest.version) != (span, version) or render_manifest(manifest) != content:
            raise DataError("the manifest was changed", where=where, fix="restore it from a backup")
        return SpanVersion(span, version, self._files.uri(folder), manifest)

    def all_versions(self, *, withdrawn: bool = False) -> list[SpanVersion]:
        """Return every version of every span, rising, on demand also those that were withdrawn."""
        spans = _numbers(self._files.folders(""), _SPAN)
        return [self.get(span, version) for span in spans for version in self.versions(span, withdrawn=withdrawn)]

    def withdrawal(self, span: int, version: int) -> Withdrawal | None:
        """Return when and why a version was withdrawn; None if it counts, a DataError if that mark was changed."""
        name = f"{_folder(span, version)}/{WITHDRAWN}"
        content = self._files.read(name)
        if content is None:
            return None
        return parse_withdrawal(content, self._files.uri(name), self.get(span, version))

    def withdraw(self, span: int, version: int, reason: str) -> Withdrawal:
        """Let a version count no longer; one that is withdrawn already keeps its first reason.

        Raises:
            DataError: there is no such version, no reason is given, or the version before it, which would count again,
                overlaps another span.
            BusyError: another writer is at work.
            StorageError: the mark cannot be written; the version counts as before.
        """
        with self._files.lock():
            record = new_withdrawal(self.get(span, version), reason)
            if known := self.withdrawal(span, version):
                return known
            rest = [other for other in self.versions(span) if other != version]
            if rest and rest[-1] < version:
                self._check_place(span, rest[-1])
            self._files.replace(f"{_folder(span, version)}/{WITHDRAWN}", render_withdrawal(record))
            return record

    def restore(self, span: int, version: int) -> SpanVersion:
        """Let a withdrawn version count again; errors as of `withdraw`."""
        with self._files.lock():
            found = self.get(span, version)
            if self.withdrawal(span, version) is None:
                raise DataError(f"version {version} of span {span} is not withdrawn", where=found.uri)
            if version > max(self.versions(span), default=0):
                self._check_place(span, version)
            self._files.remove(f"{_folder(span, version)}/{WITHDRAWN}")
            return found

    def _check_place(self, span: int, version: int) -> None:
        """Refuse that a version becomes the latest of its span if spans would overlap or change their order."""
        found = self.get(span, version)
        others = {other: self.latest(other).hours for other in self.spans() if other != span}
        try:
            assign_span(others, found.hours, span, found.uri)
        except DataError as error:
            problem = f"then version {version} of span {span} counts: {error.what}"
            raise DataError(problem, where=found.uri, fix="withdraw or correct the other span first") from None

    def read(self, span: int, version: int, splits: Sequence[Split] = SPLITS) -> pa.Table:
        """Return the rows of the given splits, in time order; every file is checked against its SHA-256."""
        import pyarrow as pa

        found = self.get(span, version)
        return pa.concat_tables(self._rows(found, name) for split in splits for name in found.names(split))

    def read_file(self, span: int, version: int, name: str) -> pa.Table:
        """Return the rows of one file (one of `SpanVersion.names`), checked against its SHA-256."""
        return self._rows(self.get(span, version), name)

    def _rows(self, found: SpanVersion, name: str) -> pa.Table:
        folder = _folder(found.span, found.version)
        content = self._checked(folder, name, found.manifest.files[name])
        from bike_pipeline.data.rows import rows_from_csv, rows_from_parquet

        read = rows_from_parquet if found.manifest.format == "parquet" else rows_from_csv
        return read(content, self._files.uri(f"{folder}/{name}"))

    def check_files(self, span: int, version: int) -> None:
        """Check that every file of a version is the one that was written, by its SHA-256; see `verify` for all else."""
        for name, record in self.get(span, version).manifest.files.items():
            self._checked(_folder(span, version), name, record)

    def verify(self, span: int, version: int) -> SpanVersion:
        """Check a version against its manifest: every file's SHA-256, no file too many, all it says of the rows."""
        from bike_pipeline.data.rows import manifest_mismatch

        found = self.get(span, version)
        folder = _folder(span, version)
        for split in SPLITS:
            for name in self._files.files(f"{folder}/{split}"):
                if f"{split}/{name}" not in found.manifest.files:
                    where = self._files.uri(f"{folder}/{split}/{name}")
                    raise DataError("the file does not belong to this version", where=where, fix="move it away")
        self.check_files(span, version)
        rows = {split: self.read(span, version, (split,)) for split in SPLITS}
        quarantine = self._files.read(f"{folder}/{QUARANTINE}") if QUARANTINE in found.manifest.files else None
        if wrong := manifest_mismatch(found.manifest, rows, quarantine):
            problem = f"the manifest does not describe these rows: it says {wrong}"
            raise DataError(problem, where=self._files.uri(f"{folder}/{MANIFEST}"), fix="restore it from a backup")
        return found

    def export(self, span: int, version: int, folder: Path) -> None:
        """Write a version to a local folder that is a store of its own; every file is checked against its SHA-256."""
        found = self.get(span, version)
        place = _folder(span, version)
        for name, record in found.manifest.files.items():
            target = folder / place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._checked(place, name, record))
        (folder / place / MANIFEST).write_bytes(render_manifest(found.manifest))

    def _checked(self, folder: str, name: str, record: FileRecord) -> bytes:
        content = self._files.read(f"{folder}/{name}")
        where = self._files.uri(f"{folder}/{name}")
        fix = "restore it from a backup, or ingest its source again"
        if content is None:
            raise DataError("the file is gone", where=where, fix=fix)
        if hashlib.sha256(content).hexdigest() != record.sha256 or len(content) != record.size:
            raise DataError("the file was changed: its SHA-256 is not the manifest's", where=where, fix=fix)
        return content

    def add(
        self,
        checked: CheckedRows,
        source: SourceRecord,
        *,
        eval_fraction: float,
        data_format: DataFormat = "csv",
        span: int | None = None,
        least_rows: int = 0,
        before_write: Callable[[], None] = lambda: None,
    ) -> IngestResult:
        """Add the accepted rows of an upload (at least one); the same rows never make two versions.

        `eval_fraction` is the share of the span's days that is the eval split; `span` is what the rows are, if that is
        named (see `placement.py`); fewer than `least_rows` later than everything go on with the newest span.
        `before_write` is called while no other writer can come in between, and raises where the caller may not write.

        Raises:
            DataError: the rows fit into no span, or are of fewer than two days.
            BusyError: another writer is at work.
            StorageError: the version cannot be written; the store is as it was.
        """
        from bike_pipeline.data.rows import build_payload, content_sha256, merge_rows, time_range

        rows = checked.accepted
        with self._files.lock():
            before_write()
            versions = self.all_versions()
            known = {found.manifest.content_sha256: found for found in reversed(versions)}
            address = content_sha256(rows)
            if address in known:
                return self._already_there(known[address], versions, checked, eval_fraction)
            latest = {found.span: found for found in versions}
            existing = {number: version.hours for number, version in latest.items()}
            few = rows.num_rows < least_rows
            number, merges = assign_span(existing, time_range(rows), span, source.location, extend_newest=few)
            parent = latest.get(number)
            from_parent = 0
            if parent is not None and merges:
                rows, from_parent = merge_rows(self.read(parent.span, parent.version), rows)
                address = content_sha256(rows)
                if address in known:
                    return self._already_there(known[address], versions, checked, eval_fraction)
            # What was withdrawn keeps its number, which records of former runs name.
            version = max(self.versions(number, withdrawn=True), default=0) + 1
            if version > HIGHEST_NUMBER:
                raise DataError(f"span {number} has {HIGHEST_NUMBER} versions", where=self.uri, fix="use another store")
            payload = build_payload(
                number,
                version,
                parent,
                rows,
                address,
                from_parent,
                checked,
                source,
                eval_fraction=eval_fraction,
                data_format=data_format,
            )
            self._files.publish(_folder(number, version), lambda folder: write_tree(folder, payload), MANIFEST)
            return IngestResult(self.get(number, version), True, checked.rejected.num_rows)

    def _already_there(
        self, same: SpanVersion, versions: list[SpanVersion], checked: CheckedRows, eval_fraction: float
    ) -> IngestResult:
        notes = [f"span {same.span} version {same.version} holds these rows already; nothing was written"]
        newest = max(found.version for found in versions if found.span == same.span)
        if newest > same.version:
            notes.append(f"span {same.span} has the newer version {newest} with other rows, which stays the latest")
        if same.manifest.eval_fraction != eval_fraction:
            notes.append(
                f"it was split with eval_fraction {same.manifest.eval_fraction:g}, not {eval_fraction:g}; "
                "a version is never split again"
            )
        if checked.rejected.num_rows:
            notes.append(f"the rejected rows of this upload are kept in {self._keep_refused(checked)}")
        return IngestResult(same, False, checked.rejected.num_rows, tuple(notes))

    def keep_refused(self, checked: CheckedRows) -> str:
        """Keep the quarantine of an upload that was refused as a whole, each one once; return its path or address."""
        with self._files.lock():
            return self._keep_refused(checked)

    def _keep_refused(self, checked: CheckedRows) -> str:
        from bike_pipeline.data.contract import quarantine_csv

        content = quarantine_csv(checked.rejected)
        folder = f"{REFUSED}/{hashlib.sha256(content).hexdigest()[:16]}"
        if QUARANTINE not in self._files.files(folder):
            self._files.publish(folder, lambda aside: write_tree(aside, {QUARANTINE: content}), QUARANTINE)
        return self._files.uri(f"{folder}/{QUARANTINE}")


def _numbers(names: list[str], pattern: re.Pattern[str]) -> list[int]:
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)) and int(match[1]))


def _folder(span: int, version: int | None = None) -> str:
    folder = f"span-{span:04d}"
    return folder if version is None else f"{folder}/version-{version:04d}"
