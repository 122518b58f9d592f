"""What a run was made of, written down beside it in ML Metadata: code, settings, environment, features, schema, seed.

It belongs to the run's own context (`pipeline_run`), so that runs on every runner and runs that were answered from the
cache carry it, and it is part of no cache key. What stays the same from run to run is stored once, under its SHA-256.
The data are recorded with the Examples artifact, by the stage that read them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from ml_metadata import errors as mlmd_errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline import features
from bike_pipeline.settings import PROJECT_ROOT, Settings
from bike_pipeline.version import __version__

RUN_CONTEXT = "pipeline_run"
# One context for each different content, named by the content's SHA-256.
CONTENT_CONTEXT = "bike.Content"
_CONTENT, _RECORD = "content", "run_record"
_FORMAT = 1
# What computes the numbers or reads and writes the data; others cannot change a result.
PACKAGES = (
    "apache-beam",
    "keras",
    "ml-metadata",
    "numpy",
    "pandas",
    "protobuf",
    "pyarrow",
    "tensorflow",
    "tensorflow-data-validation",
    "tensorflow-model-analysis",
    "tensorflow-transform",
    "tfx",
    "tfx-bsl",
)
_PROGRAM = "bike-pipeline"
_ACCOUNT = re.compile(r"://[^/@\s]+@")
# Set when an image is built: there is no git in a container.
COMMIT_VARIABLE = "BIKE_PIPELINE_GIT_COMMIT"
# What a run executes or reads, relative to the project; a change elsewhere does not make the tree dirty.
_ROOMS = ("bike_pipeline", "runners", "configs")


@dataclass(frozen=True)
class CodeVersion:
    """The code of a run: its git commit ("" if it is not known), and the SHA-256 of every source file and over all.

    `dirty` says whether the code differs from that commit; None if that is not known.
    """

    version: str
    commit: str
    dirty: bool | None
    source_sha256: str
    files: dict[str, str]


@dataclass(frozen=True)
class RunSource:
    """What a run was made of: resolved settings and environment as plain values, the feature contract by column.

    `command` is how `bike-pipeline` was called, "" if something else began the run; `environment` has "python",
    "platform" and the version of each of `PACKAGES`; the SHA-256 are of the settings' canonical JSON and of the curated
    schema's file.
    """

    run_id: str
    runner: str
    code: CodeVersion
    settings: dict[str, Any]
    settings_sha256: str
    environment: dict[str, str]
    features: list[dict[str, Any]]
    schema_sha256: str
    seed: int
    command: str = ""


def canonical(content: Any) -> str:
    """Return plain values as JSON, always the same text for the same values."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def sha256_of(content: Any) -> str:
    """Return the SHA-256 of the canonical JSON of plain values."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return nested settings with dotted names; what is no text, as JSON: lists stay whole."""
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return found


def environment() -> dict[str, str]:
    """Return the interpreter, the machine's kind, and the versions of the packages that matter ("" if absent)."""
    here = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    return here | {n: next((found.version for found in metadata.distributions(name=n)), "") for n in PACKAGES}


def command_line(argv: Sequence[str] | None = None) -> str:
    """Return how `bike-pipeline` was called, in one line; "" if this process is another program.

    Nothing in it may be a secret: of `--set NAME=VALUE` only the name is recorded, since the run's record holds the
    resolved settings, and user and password in a URL are left out.
    """
    program, *given = sys.argv if argv is None else argv
    path = PurePath(program)
    if path.name != _PROGRAM and path.parts[-2:] != ("bike_pipeline", "cli.py"):
        return ""
    words, is_setting = [_PROGRAM], False
    for argument in given:
        text = argument
        if is_setting or argument.startswith("--set="):
            start = len("--set=") if not is_setting else 0
            name, sign, _ = argument[start:].partition("=")
            text = f"{argument[:start]}{name}{sign}…" if sign else f"{argument[:start]}…"
        is_setting = argument == "--set"
        words.append(_ACCOUNT.sub("://", text))
    return " ".join(argument if "…" in argument else shlex.quote(argument) for argument in words)


def source_files(root: Path = PROJECT_ROOT) -> dict[str, str]:
    """Return the SHA-256 of every Python file of the package and the runners, by its path in the project."""
    # In a checkout the package's `runners` is a link to the folder beside it; installed, it is a folder of its own.
    checkout = (root / "bike_pipeline").is_dir()
    # An installed package is a root itself.
    top, rooms = (root, ("bike_pipeline", "runners")) if checkout else (root.parent, (root.name,))
    found = sorted(path for room in rooms for path in (top / room).rglob("*.py"))
    names = [re.sub("^bike_pipeline/runners/", "runners/", path.relative_to(top).as_posix()) for path in found]
    pairs = sorted(zip(names, found, strict=True))
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in pairs}


def code_version(root: Path = PROJECT_ROOT) -> CodeVersion:
    """Return the version of the code in `root`, the folder that holds configs/."""
    files = source_files(root)
    over_all = hashlib.sha256("".join(f"{name}\0{files[name]}\n" for name in sorted(files)).encode()).hexdigest()
    return CodeVersion(__version__, *_commit(root), over_all, files)


def _commit(root: Path) -> tuple[str, bool | None]:
    # An installed package may lie inside of somebody else's repository, in its ignored .venv.
    if _git(root, "ls-files", "--error-unmatch", "bike_pipeline/__init__.py") is None:
        return os.environ.get(COMMIT_VARIABLE, ""), None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", *_ROOMS)
    return (commit or "").strip(), None if changes is None else bool(changes.strip())


def _git(root: Path, *arguments: str) -> str | None:
    # Taking the lock of the index, only to refresh it, could get in the way of somebody's commit.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, errors="replace", timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def source_of_this_run(settings: Settings, run_id: str, runner: str) -> RunSource:
    """Return what a run that begins now, in this process, is made of."""
    resolved = settings.model_dump(mode="json")
    schema = settings.schema_path
    return RunSource(
        run_id=run_id,
        runner=runner,
        code=code_version(),
        settings=resolved,
        settings_sha256=sha256_of(resolved),
        environment=environment(),
        features=[features.as_record(feature) for feature in features.BY_NAME.values()],
        schema_sha256=hashlib.sha256(schema.read_bytes()).hexdigest() if schema.is_file() else "",
        seed=settings.seed,
        command=command_line(),
    )


def record_run(store: metadata_store.MetadataStore, source: RunSource) -> None:
    """Write down what a run is made of, before its first stage, so that a run that fails has its record too.

    Done twice for a run, the first record stays. MLMD's StatusError says that the store cannot be written.
    """
    made_of = asdict(source)
    record = {
        "format": _FORMAT,
        "source_files": _keep(store, made_of["code"].pop("files")),
        **{key: _keep(store, made_of[key]) for key in ("settings", "environment", "features")},
        **{key: made_of[key] for key in ("runner", "command", "seed", "schema_sha256", "code")},
    }
    context = _context(store, RUN_CONTEXT, source.run_id)
    if _RECORD not in context.custom_properties:
        context.custom_properties[_RECORD].string_value = canonical(record)
        store.put_contexts([context])


def _context(store: metadata_store.MetadataStore, type_name: str, name: str) -> pb.Context:
    """Return a context, made if it is not there; two writers at once make one."""
    found = store.get_context_by_type_and_name(type_name, name)
    if found is None:
        type_id = store.put_context_type(pb.ContextType(name=type_name), can_add_fields=True, can_omit_fields=True)
        # Where another process was a moment faster, its context is the one.
        with contextlib.suppress(mlmd_errors.AlreadyExistsError):
            store.put_contexts([pb.Context(type_id=type_id, name=name)])
        found = store.get_context_by_type_and_name(type_name, name)
    assert found is not None
    return found


def _keep(store: metadata_store.MetadataStore, content: Any) -> str:
    """Store content under its SHA-256, once; return that."""
    name = sha256_of(content)
    context = _context(store, CONTENT_CONTEXT, name)
    if _CONTENT not in context.custom_properties:
        context.custom_properties[_CONTENT].string_value = canonical(content)
        store.put_contexts([context])
    return name


def runner_of(run: pb.Context) -> str:
    """Return the name of a run's runner, "" if its record does not tell."""
    try:
        return str(json.loads(run.custom_properties[_RECORD].string_value)["runner"])
    except (ValueError, KeyError, TypeError):
        return ""


def source_of_run(store: metadata_store.MetadataStore, run_id: str) -> tuple[RunSource | None, tuple[str, ...]]:
    """Return what a run was made of, and what is missing or damaged in its record.

    Runs of releases before there were records have none; a record that a crash or an edit left incomplete counts as
    damaged, and its sound parts are given.
    """
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    if context is None or _RECORD not in context.custom_properties:
        return None, ("the record of the run",)
    try:
        record = json.loads(context.custom_properties[_RECORD].string_value)
        contents = {key: record[key] for key in ("source_files", "settings", "environment", "features")}
        code = dict(record["code"])
        runner, seed, schema = str(record["runner"]), int(record["seed"]), str(record["schema_sha256"])
        command = str(record.get("command", ""))
    except (ValueError, KeyError, TypeError):
        return None, ("the record of the run (damaged)",)
    kept = {key: _kept(store, str(name)) for key, name in contents.items()}
    missing = (f"the {key.replace('_', ' ')} of the run's record" for key, found in kept.items() if found is None)
    source = RunSource(
        run_id=run_id,
        runner=runner,
        code=CodeVersion(**code, files=kept["source_files"] or {}),
        settings=kept["settings"] or {},
        settings_sha256=str(contents["settings"]),
        environment=kept["environment"] or {},
        features=kept["features"] or [],
        schema_sha256=schema,
        seed=seed,
        command=command,
    )
    return source, tuple(missing)


def _kept(store: metadata_store.MetadataStore, name: str) -> Any:
    """Return stored content; None if it is gone or is not what its SHA-256 says."""
    context = store.get_context_by_type_and_name(CONTENT_CONTEXT, name)
    text = context.custom_properties[_CONTENT].string_value if context is not None else ""
    return json.loads(text) if hashlib.sha256(text.encode()).hexdigest() == name else None
