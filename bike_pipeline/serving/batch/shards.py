"""One input to answers in partitioned Parquet, put in place whole or not at all, so that no row is there twice.

What is written follows from the input's address and bytes and from the version alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute

from bike_pipeline import features
from bike_pipeline.data.columns import Problem
from bike_pipeline.errors import DataError, ModelError
from bike_pipeline.serving.batch.inputs import Block, blocks, local_input
from bike_pipeline.serving.records import check
from bike_pipeline.settings import Settings
from bike_pipeline.storage.atomic_files import create_folder, one_error
from bike_pipeline.storage.files import Files, local_path, open_files
from bike_pipeline.storage.remote_files import open_file_system, without_credentials

ANSWERS, REJECTED = "answers", "rejected"
# Readers of Parquet pass over what begins so. It is written last.
RECORD = "_record.json"
# Rows that are gathered before they are written: they bound memory, and keep files of many partitions from being tiny.
_GATHERED = 500_000
# Rows of one call of a model that takes any number.
_ROWS_A_CALL = 8192
_TYPES = {"int": np.int64, "float": np.float32}
_NOTHING = {"int": pa.int64(), "float": pa.float64(), "date": pa.date32()}
_PARTITIONS = {"datetime64[M]": "month", "datetime64[D]": "day"}
# What stands in the name of a partition for no value, as Hive has it.
_NONE = "__HIVE_DEFAULT_PARTITION__"
_REPEATED = ["file", "version", features.DATE, features.HOUR]


@dataclass(frozen=True)
class Job:
    """What all inputs of a batch have in common.

    Attributes:
        output: local folder or address.
        model: folder or address of the version, which workers must see.
        fingerprint: of its files.
        partition: "day" or "month".
    """

    output: str
    model: str
    version: int
    fingerprint: str
    partition: str
    settings: Settings


@dataclass
class Shard:
    """What one input came to, as its record has it.

    Attributes:
        input: its address, without credentials.
        sha256: of its bytes.
        rows: rows that were answered.
        rejected: rows that were set aside.
        reasons: how many rows each kind of reason set aside; a row counts once a kind.
        files: SHA-256 by path in the output.
    """

    input: str
    sha256: str
    version: int
    fingerprint: str
    partition: str
    backend: str = ""
    rows: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class _Model(NamedTuple):
    backend: Any
    rows_a_call: int
    answer: str


# A backend is for one thread: each loads it once.
_loaded = threading.local()


def _model(job: Job) -> _Model:
    """Return what the embedded server would answer with."""
    from bike_pipeline.model_registry import local_copy, signing
    from bike_pipeline.serving.server import served_version
    from bike_pipeline.serving.statuses import StatusError

    models: dict[str, _Model] = vars(_loaded)
    if job.fingerprint not in models:
        models.clear()
        signing.use(job.settings)
        server = job.settings.serving.server
        try:
            version = served_version.load(local_copy(job.model), server)
            wanted = (features.SERVING_INTERVALS, features.SERVING_ALL_INPUTS, features.SERVING_DEFAULT)
            name = next((name for name in wanted if name in version.signatures), "")
            if name not in version.backends:
                served_version.add_tensorflow(version, server)
            backend, answer = version.backends[name], features.answer_among(version.signatures[name].outputs)
        except (StatusError, KeyError) as error:
            raise ModelError(f"it cannot answer ({error})", where=job.model, fix="choose another version") from None
        models[job.fingerprint] = _Model(backend, max(backend.sizes, default=_ROWS_A_CALL), answer)
    return models[job.fingerprint]


def name_of(text: str) -> str:
    """Return a short name that follows from a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_of(address: str) -> str:
    """Return the name of an input's folder in the output, as Hive names partitions."""
    return f"input={name_of(without_credentials(address))}"


def record_in(files: Files, folder: str) -> Shard | None:
    """Return the record of an input's folder; None if there is none."""
    content = files.read(path := f"{ANSWERS}/{folder}/{RECORD}")
    try:
        return None if content is None else Shard(**json.loads(content))
    except (ValueError, TypeError):
        fix = "remove the output and run it again"
        raise DataError("it is no record of a batch", where=files.uri(path), fix=fix) from None


def write_file(target: str, content: bytes) -> None:
    """Write a file of the output."""
    files, path = open_file_system(target)
    with one_error("write", target):
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, content)


def answer(address: str, job: Job) -> None:
    """Answer one input and put its files in place; if they are there, see that they are as they were.

    Raises:
        DataError: the input cannot be read, or is not what it was when it was answered before.
    """
    name, place, files = without_credentials(address), folder_of(address), open_files(job.output)
    with local_input(address) as (path, sha256):
        done = record_in(files, place)
        if done is not None and done.sha256 != sha256:
            fix = f"answer it into another folder, or remove {job.output}"
            raise DataError("it has changed since it was answered", where=name, fix=fix)
        if done is not None and all(_sha256(files.read(each) or b"") == then for each, then in done.files.items()):
            return
        shard = Shard(name, sha256, job.version, job.fingerprint, job.partition)
        with tempfile.TemporaryDirectory(prefix="bike-batch-") as aside:
            _fill(shard, path, _model(job), Path(aside))
            for kind in (REJECTED, ANSWERS):
                _publish(Path(aside, kind, place), f"{job.output}/{kind}/{place}")


def _publish(source: Path, target: str) -> None:
    """Let a folder appear, in place of what is there: on object storage file by file, its record last."""
    folder, (files, path) = local_path(target), open_file_system(target)
    with one_error("write", target):
        if files.exists(path):
            files.rm(path, recursive=True)
        if folder is not None and source.exists():
            create_folder(folder, partial(_copy, source))
        elif source.exists():
            for file in sorted(source.rglob("*"), key=lambda each: each.name == RECORD):
                if file.is_file():
                    files.put_file(str(file), f"{path}/{file.relative_to(source).as_posix()}")


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fill(shard: Shard, path: Path, model: _Model, folder: Path) -> None:
    """Write the answers to an input below a folder, with their record."""
    # The same content at two places is two inputs.
    prefix, place = name_of(f"{shard.input}\0{shard.sha256}") + "-", folder_of(shard.input)
    answers, rejected = _Gathered(folder / ANSWERS / place), _Gathered(folder / REJECTED / place)
    reasons: Counter[str] = Counter()

    def named(table: pa.Table) -> pa.Table:
        ids = compute.binary_join_element_wise(prefix, table["line"].cast(pa.string()), "")
        files = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int8)), [shard.input])
        return table.add_column(0, "request_id", ids).add_column(1, "file", files)

    for block in blocks(path, shard.input):
        values, _, problems = check(_column_of(block), lambda _, block=block: block.columns, shard.input)  # type: ignore[misc]
        sound = np.ones(len(block.lines), bool)
        for problem in problems:
            sound &= ~problem.mask
        for kind in {problem.kind for problem in problems}:
            reasons[kind] += int(np.any([problem.mask for problem in problems if problem.kind == kind], axis=0).sum())
        reasons["fields"] += len(block.broken)
        if block.broken or not sound.all():
            table = named(_set_aside(block, problems, np.flatnonzero(~sound)))
            rejected.add(table, np.zeros(len(table), "datetime64[Y]"))
            values = {column: found[sound] for column, found in values.items()}
        if sound.any():
            table, months, days = _answered(values, block.lines[sound], model)
            table = table.append_column("version", pa.array(np.full(len(table), shard.version, np.int64)))
            answers.add(named(table), months if shard.partition == "month" else days)
    answers.write()
    rejected.write()
    shard.backend, shard.rows, shard.rejected = model.backend.name, answers.rows, rejected.rows
    shard.reasons = {kind: count for kind, count in sorted(reasons.items()) if count}
    written = sorted(folder.rglob("*.parquet"))
    shard.files = {file.relative_to(folder).as_posix(): _sha256(file.read_bytes()) for file in written}
    (folder / ANSWERS / place).mkdir(parents=True, exist_ok=True)
    (folder / ANSWERS / place / RECORD).write_text(json.dumps(asdict(shard), indent=1), encoding="utf-8")


def _column_of(block: Block) -> Callable[[str], Any]:
    def column(name: str) -> Any:
        return block.columns.get(name, pa.nulls(len(block.lines), _NOTHING[features.BY_NAME[name].kind]))

    return column


def _answered(values: Mapping[str, Any], lines: Any, model: _Model) -> tuple[pa.Table, Any, Any]:
    """Return the answers to sound rows, their months and their days, NaT where no day of the month is known."""
    inputs = {f.name: values[f.name].astype(_TYPES[f.kind], copy=False) for f in features.MODEL_INPUTS}
    parts = [
        model.backend.run({name: column[start : start + model.rows_a_call] for name, column in inputs.items()})
        for start in range(0, len(lines), model.rows_a_call)
    ]
    months = ((values["yr"] + features.FIRST_YEAR - 1970) * 12 + values["mnth"] - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (values["day"] - 1)
    days[values["day"] <= 0] = np.datetime64("NaT")
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns = {"line": lines, features.DATE: days, features.HOUR: values[features.HOUR].astype(np.int8)}
    columns[f"predicted_{model.answer}"] = found.pop(model.answer)
    return pa.table(columns | dict(sorted(found.items()))), months, days


def _set_aside(block: Block, problems: Sequence[Problem], rows: Any) -> pa.Table:
    """Return rows that are not answered, as they stood there, with all that is wrong with each."""
    reasons: dict[int, list[str]] = {int(row): [] for row in rows}
    for problem in problems:
        for row in np.flatnonzero(problem.mask):
            reasons[int(row)].append(problem.describe(int(row)))
    columns: dict[str, Any] = {
        "line": [*block.lines[rows].tolist(), *(line for line, _ in block.broken)],
        "reasons": [*map("; ".join, reasons.values()), *(reason for _, reason in block.broken)],
    }
    gap = pa.chunked_array([pa.nulls(len(block.broken), pa.string())])
    for name, column in block.columns.items():
        texts = pa.chunked_array(column.chunks if isinstance(column, pa.ChunkedArray) else [column]).take(rows)
        columns[name] = pa.chunked_array([*texts.cast(pa.string()).chunks, *gap.chunks], pa.string())
    return pa.table(columns)


class _Gathered:
    """Rows until there are enough to be written; each partition's are put into a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: list[pa.Table] = []
        self._keys: list[npt.NDArray[np.datetime64]] = []
        self._waiting = self._files = self.rows = 0

    def add(self, table: pa.Table, keys: npt.NDArray[np.datetime64]) -> None:
        """Add rows and what they are partitioned by: the month or the day of each, NaT where there is none."""
        self._tables.append(table)
        self._keys.append(keys)
        self._waiting += len(table)
        self.rows += len(table)
        if self._waiting >= _GATHERED:
            self.write()

    def write(self) -> None:
        """Write what is gathered."""
        if not self._waiting:
            return
        table, keys = pa.concat_tables(self._tables, promote_options="permissive"), np.concatenate(self._keys)
        numbers = keys.astype(np.int64)
        if (np.diff(numbers) < 0).any():
            order = np.argsort(numbers, kind="stable")
            table, keys, numbers = table.take(order), keys[order], numbers[order]
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1)]
        name = _PARTITIONS.get(str(keys.dtype))
        for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
            place = self._folder / (f"{name}={_NONE if np.isnat(keys[start]) else keys[start]}" if name else "")
            place.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.slice(start, end - start), place / f"{self._files}.parquet", use_dictionary=_REPEATED)
        self._files += 1
        self._tables, self._keys, self._waiting = [], [], 0
