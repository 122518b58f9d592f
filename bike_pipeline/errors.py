"""What can go wrong, said once: what happened, where, how to mend it, and the exit code that scripts may rely on."""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterable, Sized
from enum import IntEnum
from pathlib import Path

# What the operating system says where there is no room; such an error often names no file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Less than this is no room for anything, in bytes.
_ROOM = 1024 * 1024
# What SQLite and the operating system say where the file cannot be written; TensorFlow and ML Metadata pass it on in
# errors of their own kinds.
_STORAGE_PHRASES = (
    *(os.strerror(number) for number in (*NO_ROOM, errno.EACCES, errno.EROFS)),
    "disk I/O error",
    "database or disk is full",
    "attempt to write a readonly database",
)
# Where a database's error goes on with the statement, and a message with its fields.
_STATEMENT = re.compile(
    r"\s*(?:\bquery:\s*(?=[A-Z]{4})|\[SQL:|\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE)\s"
    r"|\b(?:type_id|uri): ?[\"\d]|\b(?:custom_properties|properties|artifact|execution|context) \{).*"
)
# How TensorFlow names the graph's node and the operation that an error comes from.
_NODES = re.compile(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:\w+\](\s*name:\s*\S*)?")


def first_words(error: BaseException, most: int = 300) -> str:
    """Return at most `most` characters of the first line of what a library says of an error, without its innards.

    Those are TensorFlow's names of nodes, statements of a database, fields of a message.
    """
    lines = (" ".join(_STATEMENT.sub("", line).split()) for line in _NODES.sub(" ", str(error)).splitlines())
    return (next(filter(None, lines), "") or type(error).__name__)[:most]


def full_place(places: Iterable[str | os.PathLike[str]]) -> str:
    """Return where there is no room, for an error that does not say it: the places that are full, else all of them."""
    local = [os.fspath(place) for place in places if os.fspath(place) and "://" not in os.fspath(place)]
    full = [place for place in local if _free(Path(place)) < _ROOM]
    return " or ".join(dict.fromkeys(full or local))


def _free(place: Path) -> float:
    import shutil

    for folder in (place, *place.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return float("inf")


def is_of_storage(error: BaseException) -> bool:
    """Return whether an error's text says that there was no room or no right to write."""
    return any(phrase in str(error) for phrase in _STORAGE_PHRASES)


def and_more(problems: Sized) -> str:
    """Return what stands behind the first of several problems: how many more there are."""
    return f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""


class ExitCode(IntEnum):
    """Exit codes of the command line: 0 success, 1 an unforeseen error, 2 a wrong command line."""

    OK = 0
    UNFORESEEN = 1
    USAGE = 2
    CONFIGURATION = 3
    DATA = 4
    DATA_GATE = 5
    NOT_PUSHED = 6
    BUSY = 7
    STORAGE = 8
    MISSING_EXTRA = 9
    STAGE = 10
    MODEL = 11
    METADATA = 12
    BASELINE = 13
    INSTALLATION = 14
    CLUSTER = 15
    VERIFICATION = 16
    TRACKING = 17
    EXPORT = 18
    EDGE = 19
    SERVER = 20
    MONITORING = 21
    CHANGED = 22
    NOT_JUDGED = 23
    INTERRUPTED = 130


class BikePipelineError(Exception):
    """An error that a user can act on: printed as one line, without a traceback.

    Attributes:
        what: what is wrong, as a sentence without a full stop.
        where: the file, setting, row or address it is wrong in; empty where `what` says it already.
        fix: what the user can do about it.
        exit_code: the process exit code.
    """

    exit_code: ExitCode = ExitCode.UNFORESEEN

    def __init_subclass__(cls, exit_code: ExitCode | None = None) -> None:
        cls.exit_code = exit_code or cls.exit_code

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        """Keep the three parts; none of them ends with a full stop."""
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        """Return the three parts as one line."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}. {self.fix[:1].upper()}{self.fix[1:]}." if self.fix else line

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: one line in a notebook too.
        return [f"error: {self}"]

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: Beam and multiprocessing send exceptions between processes."""
        return functools.partial(type(self), self.what, where=self.where, fix=self.fix), ()


class ConfigurationError(BikePipelineError, exit_code=ExitCode.CONFIGURATION):
    """A setting is unknown, missing, of the wrong type, or contradicts another."""


class DataError(BikePipelineError, exit_code=ExitCode.DATA):
    """A source cannot be read, breaks the feature contract, or the span store does not hold what was asked for."""


class DataGateError(BikePipelineError, exit_code=ExitCode.DATA_GATE):
    """The data gate refused the span: training on it would not be sound."""


class NotPushedError(BikePipelineError, exit_code=ExitCode.NOT_PUSHED):
    """The run came to its end but the candidate was not blessed, so the serving model stays."""


class BusyError(BikePipelineError, exit_code=ExitCode.BUSY):
    """Another process holds the lock."""


class StorageError(BikePipelineError, exit_code=ExitCode.STORAGE):
    """A folder or file cannot be read or written: permission, space, absence."""


class MissingExtraError(BikePipelineError, exit_code=ExitCode.MISSING_EXTRA):
    """An optional part of the product is not installed."""


class StageError(BikePipelineError, exit_code=ExitCode.STAGE):
    """A stage of the pipeline failed."""


class ModelError(BikePipelineError, exit_code=ExitCode.MODEL):
    """There is no served model, it cannot be loaded, or it cannot answer the request."""


class MetadataError(BikePipelineError, exit_code=ExitCode.METADATA):
    """The metadata store cannot be opened or does not hold what was asked for."""


class BaselineError(BikePipelineError, exit_code=ExitCode.BASELINE):
    """The candidate cannot be compared with the serving model: signature or metric set changed."""


class InstallationError(BikePipelineError, exit_code=ExitCode.INSTALLATION):
    """Something that every command needs is not installed, or in a version that does not fit."""


class ClusterError(BikePipelineError, exit_code=ExitCode.CLUSTER):
    """A cluster cannot be reached, refuses who we are or what we ask, or does not end a run in time."""


class VerificationError(BikePipelineError, exit_code=ExitCode.VERIFICATION):
    """A pushed model, or what it was made of, is not what its record says, or cannot be proved to be."""


class TrackingError(BikePipelineError, exit_code=ExitCode.TRACKING):
    """A run could not be told to a tracking server."""


class ExportError(BikePipelineError, exit_code=ExitCode.EXPORT):
    """A model cannot be written in a format, or what was written is not the same model."""


class EdgeError(BikePipelineError, exit_code=ExitCode.EDGE):
    """An edge bundle or channel cannot be read, is not what its signature says, or fails its golden rows."""


class ServerError(BikePipelineError, exit_code=ExitCode.SERVER):
    """A model server cannot be started or reached, or refuses what it was asked."""


class MonitoringError(BikePipelineError, exit_code=ExitCode.MONITORING):
    """What the monitor keeps is damaged, or holds nothing that could be looked at."""


class ChangedError(BikePipelineError, exit_code=ExitCode.CHANGED):
    """The monitor's verdict: the model, or what it is asked, has changed, and that costs something."""


class NotJudgedError(BikePipelineError, exit_code=ExitCode.NOT_JUDGED):
    """The monitor's verdict: there is nothing that could be judged, which is not the same as fine."""
