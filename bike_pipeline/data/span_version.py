"""One version of one span, as the store hands it out, and what became of an upload."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from bike_pipeline.data.manifest import Manifest, Split, render_manifest
from bike_pipeline.data.payload import QUARANTINE


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
class Addition:
    """What became of an upload: the version that holds its rows, whether it is new, and what the user should know."""

    version: SpanVersion
    created: bool
    notes: tuple[str, ...] = ()
