"""The mark beside a version's manifest that says it counts no longer, though it stays readable: lineage needs it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bike_pipeline.data.manifest import Number, Sha256, SpanVersion
from bike_pipeline.errors import DataError

WITHDRAWN: Final = "withdrawn.json"


class Withdrawal(BaseModel):
    """A version that was withdrawn: why, when (UTC), and the SHA-256 of the manifest that it had then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    span: Number
    version: Number
    reason: Annotated[str, Field(min_length=1)]
    withdrawn_at: datetime
    manifest_sha256: Sha256


def new_withdrawal(version: SpanVersion, reason: str) -> Withdrawal:
    """Return the record of a version that is withdrawn now; a DataError if no reason is given."""
    words = " ".join(reason.split())
    if not words:
        raise DataError("a version is not withdrawn without a reason", fix="say why: --because TEXT")
    return Withdrawal(
        span=version.span,
        version=version.version,
        reason=words,
        withdrawn_at=datetime.now(UTC).replace(microsecond=0),
        manifest_sha256=version.manifest_sha256,
    )


def render_withdrawal(record: Withdrawal) -> bytes:
    """Return the record as the text of its file, with the SHA-256 of all else in it."""
    content = record.model_dump(mode="json")
    return (json.dumps(content | {"sha256": _digest(content)}, indent=2, ensure_ascii=False) + "\n").encode()


def parse_withdrawal(content: bytes, where: str, version: SpanVersion) -> Withdrawal:
    """Return the record that `render_withdrawal` wrote of a version; a DataError if it is damaged or of another one."""
    try:
        raw = json.loads(content)
        digest = raw.pop("sha256", "") if isinstance(raw, dict) else ""
        record = Withdrawal.model_validate(raw)
        if digest != _digest(raw):
            raise ValueError("its SHA-256 is another one")
        about = (version.span, version.version, version.manifest_sha256)
        if (record.span, record.version, record.manifest_sha256) != about:
            raise ValueError("it was written for another version")
    except ValueError as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else error
        fix = "restore it from a backup, or remove it and withdraw the version again"
        raise DataError(f"the mark of a withdrawn version is damaged ({reason})", where=where, fix=fix) from error
    return record


def _digest(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
