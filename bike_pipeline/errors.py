"""What can go wrong, said once: what happened, where, how to mend it, and the exit code that scripts may rely on."""

from __future__ import annotations

import errno
import re
from enum import IntEnum

# What the operating system says where there is no room; such an error often names no file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Where a database's error goes on with the statement, and a message with its fields.
_STATEMENT = re.compile(
    r"\s*(?:\bquery:\s*(?=[A-Z]{4})|\[SQL:|\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE)\s"
    r"|\b(?:type_id|uri): ?[\"\d]|\b(?:custom_properties|properties|artifact|execution|context) \{).*"
)
# How TensorFlow names the graph's node and the operation that an error comes from.
_NODES = re.compile(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:\w+\](\s*name:\s*\S*)?")


def first_words(error: BaseException, most: int = 300) -> str:
    """Return the first line of what a library says of an error, without its innards.

    That is: TensorFlow's names of nodes, statements of a database, fields of a message.

    Args:
        error: the library's error.
        most: characters that are kept.
    """
    lines = (" ".join(_STATEMENT.sub("", line).split()) for line in _NODES.sub(" ", str(error)).splitlines())
    return (next(filter(None, lines), "") or type(error).__name__)[:most]


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
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[BikePipelineError], what: str, where: str, fix: str) -> BikePipelineError:
    return kind(what, where=where, fix=fix)


class ConfigurationError(BikePipelineError):
    """A setting is unknown, missing, of the wrong type, or contradicts another."""

    exit_code = ExitCode.CONFIGURATION


class DataError(BikePipelineError):
    """A source cannot be read, breaks the feature contract, or the span store does not hold what was asked for."""

    exit_code = ExitCode.DATA


class DataGateError(BikePipelineError):
    """The data gate refused the span: training on it would not be sound."""

    exit_code = ExitCode.DATA_GATE


class NotPushedError(BikePipelineError):
    """The run came to its end but the candidate was not blessed, so the serving model stays."""

    exit_code = ExitCode.NOT_PUSHED


class BusyError(BikePipelineError):
    """Another process holds the lock."""

    exit_code = ExitCode.BUSY


class StorageError(BikePipelineError):
    """A folder or file cannot be read or written: permission, space, absence."""

    exit_code = ExitCode.STORAGE


class MissingExtraError(BikePipelineError):
    """An optional part of the product is not installed."""

    exit_code = ExitCode.MISSING_EXTRA


class StageError(BikePipelineError):
    """A stage of the pipeline failed."""

    exit_code = ExitCode.STAGE


class ModelError(BikePipelineError):
    """There is no served model, it cannot be loaded, or it cannot answer the request."""

    exit_code = ExitCode.MODEL


class MetadataError(BikePipelineError):
    """The metadata store cannot be opened or does not hold what was asked for."""

    exit_code = ExitCode.METADATA


class BaselineError(BikePipelineError):
    """The candidate cannot be compared with the serving model: signature or metric set changed."""

    exit_code = ExitCode.BASELINE


class InstallationError(BikePipelineError):
    """Something that every command needs is not installed, or in a version that does not fit."""

    exit_code = ExitCode.INSTALLATION


class ClusterError(BikePipelineError):
    """A cluster cannot be reached, refuses who we are or what we ask, or does not end a run in time."""

    exit_code = ExitCode.CLUSTER


class VerificationError(BikePipelineError):
    """A pushed model, or what it was made of, is not what its record says, or cannot be proved to be."""

    exit_code = ExitCode.VERIFICATION


class TrackingError(BikePipelineError):
    """A run could not be told to a tracking server."""

    exit_code = ExitCode.TRACKING


class ExportError(BikePipelineError):
    """A model cannot be written in a format, or what was written is not the same model."""

    exit_code = ExitCode.EXPORT


class EdgeError(BikePipelineError):
    """An edge bundle or channel cannot be read, is not what its signature says, or fails its golden rows."""

    exit_code = ExitCode.EDGE


class ServerError(BikePipelineError):
    """A model server cannot be started or reached, or refuses what it was asked."""

    exit_code = ExitCode.SERVER
