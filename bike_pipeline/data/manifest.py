"""A version of a span and its manifest: what is in it, where it came from, and the SHA-256 of every file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bike_pipeline.errors import DataError

# 2 says in which format the rows are stored; in 1 they are always CSV. 3 says by which mapping they were read, and is
# written where there is one.
SCHEMA_VERSION: Final = 3
Split = Literal["train", "eval"]
DataFormat = Literal["csv", "parquet"]
SPLITS: tuple[Split, ...] = ("train", "eval")
MANIFEST = "manifest.json"
QUARANTINE = "quarantine.csv"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Rows = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=1, le=9999)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceFileRecord(_Record):
    """A file that was read: name without credentials, size in bytes and SHA-256 as stored."""

    name: str
    size: int
    sha256: Sha256


class MappingRecord(_Record):
    """The mapping profile that rows were read by: its name, the SHA-256 of its file, and the files of the weather."""

    name: str
    sha256: Sha256
    weather: tuple[SourceFileRecord, ...] = ()


class SourceRecord(_Record):
    """Where the rows came from, without any credential.

    Attributes:
        kind: "file", "folder", "http", "object_storage" or "sql".
        location: path or address without user, password and query string.
        query: the SQL text, for SQL sources.
        files: what was read, in this order; empty for SQL.
        ignored_columns: columns of the source that the feature contract, or the mapping, does not know.
        mapping: what made the contract's columns of it; None if it had them itself.
    """

    kind: str
    location: str
    query: str | None = None
    files: tuple[SourceFileRecord, ...] = ()
    ignored_columns: tuple[str, ...] = ()
    mapping: MappingRecord | None = None


class RowCounts(_Record):
    """Rows of the version, rows of the upload (`read` counts rejected ones, too), and rows kept from the parent."""

    total: Rows
    train: Rows
    eval: Rows
    read: Rows
    rejected: Rows
    from_parent: Rows

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if self.total != self.train + self.eval or self.total != self.from_parent + self.read - self.rejected:
            raise ValueError("the row counts do not add up")
        return self


class TimeRange(_Record):
    """First and last hour, inclusive, local time without a zone."""

    first: datetime
    last: datetime

    def __str__(self) -> str:
        return f"{self.first:%Y-%m-%d %H:00} to {self.last:%Y-%m-%d %H:00}"


class FileRecord(_Record):
    """Size in bytes and SHA-256 of a file of the version."""

    size: int
    sha256: Sha256


class VersionNumber(_Record):
    """A version of a span."""

    span: Number
    version: Number


class Manifest(_Record):
    """The manifest: every version of it (`schema_version`) stays readable.

    Attributes:
        format: format of the files that hold its rows; both may stand in one store.
        created_at: UTC.
        feature_contract_sha256: the feature contract that the rows were checked against.
        content_sha256: content address of the rows of both splits.
        parent: the version that this one corrects, if any.
        eval_fraction: the setting that the split was cut by.
        rejected_by_reason: rejected rows of the upload by kind of reason.
        time_range: first and last hour of each split.
        files: every other file of the version, by its path in it.
    """

    schema_version: Literal[1, 2, 3]
    format: DataFormat = "csv"
    span: Number
    version: Number
    created_at: datetime
    source: SourceRecord
    feature_contract_sha256: Sha256
    content_sha256: Sha256
    parent: VersionNumber | None
    eval_fraction: float
    rows: RowCounts
    rejected_by_reason: dict[str, Rows]
    time_range: dict[Split, TimeRange]
    files: dict[str, FileRecord]

    @property
    def first(self) -> datetime:
        """First hour of the version."""
        return self.time_range["train"].first

    @property
    def last(self) -> datetime:
        """Last hour of the version."""
        return self.time_range["eval"].last


def render_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON text, always the same bytes for the same manifest, in the manifest's own version."""
    content = manifest.model_dump(mode="json")
    if manifest.schema_version == 1:
        del content["format"]
    if manifest.schema_version < SCHEMA_VERSION:
        del content["source"]["mapping"]
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Return the manifest that `render_manifest` wrote; a DataError if it is damaged or of a newer format."""
    fix = "restore it from a backup or ingest the rows again into a new store"
    try:
        raw = json.loads(content)
        found = raw.get("schema_version") if isinstance(raw, dict) else None
        if isinstance(found, int) and found > SCHEMA_VERSION:
            raise DataError(
                f"the manifest has format {found}; this release reads up to {SCHEMA_VERSION}",
                where=where,
                fix="upgrade bike-pipeline",
            )
        return Manifest.model_validate(raw)
    except ValueError as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else error
        raise DataError(f"the manifest is damaged ({reason})", where=where, fix=fix) from error


@dataclass(frozen=True)
class SpanVersion:
    """One version of one span; `uri` is the absolute path or address of its folder."""

    span: int
    version: int
    uri: str
    manifest: Manifest

    def names(self, split: Split) -> list[str]:
        """Return the paths of a split's files in the version, in the order of their rows."""
        return [name for name in sorted(self.manifest.files) if name.startswith(f"{split}/")]

    def files(self, split: Split) -> list[str]:
        """Return the absolute paths or addresses of a split's files, in the order of their rows."""
        return [f"{self.uri}/{name}" for name in self.names(split)]

    @property
    def hours(self) -> TimeRange:
        """First and last hour of the version."""
        return TimeRange(first=self.manifest.first, last=self.manifest.last)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this version the same as another: span, version, content hash and rows by split."""
        rows = self.manifest.rows
        return {
            "span": self.span,
            "version": self.version,
            "content_sha256": self.manifest.content_sha256,
            "rows": {"train": rows.train, "eval": rows.eval},
        }

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of the manifest's file: with it, everything that the manifest names is fixed."""
        return hashlib.sha256(render_manifest(self.manifest)).hexdigest()

    @property
    def quarantine(self) -> str | None:
        """Absolute path or address of the quarantine file; None if no row was rejected."""
        return f"{self.uri}/{QUARANTINE}" if QUARANTINE in self.manifest.files else None


@dataclass(frozen=True)
class IngestResult:
    """What became of an upload.

    Attributes:
        version: the version that holds its rows.
        created: whether it is new.
        rejected: how many rows broke the contract.
        notes: what the user should know.
    """

    version: SpanVersion
    created: bool
    rejected: int
    notes: tuple[str, ...] = ()
