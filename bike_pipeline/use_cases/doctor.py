"""What is there, which versions, what is missing and how to get it.

Versions are read from the packages' metadata; none of them is imported, so the answer takes less than a second.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bike_pipeline import extras
from bike_pipeline.errors import BikePipelineError, InstallationError, MissingExtraError, StorageError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

DISTRIBUTION = "bike-pipeline"
SUPPORTED_PYTHON = ((3, 11), (3, 13))
# What the wheels of ml-metadata and tensorflow-data-validation are built for.
NEEDED_GLIBC = (2, 39)
# Bytes: room for many runs on the embedded data.
NEEDED_SPACE = 10**9
SET_UP = "run `make setup`"
# Programs beside the environment: first name found counts, arguments that print the version, what it is for.
PROGRAMS = (
    (("c++", "g++", "clang++"), ("--version",), "C++ compiler", "only for `make setup`, which builds pyfarmhash"),
    (("git",), ("--version",), "git", "only for work on the project"),
    (("java",), ("-version",), "Java", "only for Beam on Flink or Spark (17 or newer)"),
    (("go",), ("version",), "Go", "only to check compiled specs with Kubeflow's own compiler"),
    (("docker", "podman"), ("--version",), "containers", "only for images and the official TF Serving"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, under a heading: if it is not there, it is `absent` or a `problem`.

    `fix` is what to do if the state is not `ok`, or what the thing is for; `error` says all of a problem.
    """

    name: str
    state: Literal["ok", "absent", "problem"]
    found: str
    fix: str = ""
    error: BikePipelineError | None = None
    group: str = ""


def examine(
    settings: Settings | None = None,
    *,
    required: Collection[str] = (),
    config: Path | None = None,
    assignments: tuple[str, ...] = (),
) -> list[Check]:
    """Look at the system, the packages, the extras (`required` ones must be there), the programs and the data.

    Without settings, those of an overlay file and of `key.path=value` texts are loaded and checked.
    """
    groups = {
        "system": _system(),
        "packages": _packages(),
        "extras": _extras(required),
        "programs": _programs(),
        "data": _data(settings, config, assignments),
    }
    return [replace(check, group=check.group or group) for group, checks in groups.items() for check in checks]


def _problem(name: str, error: BikePipelineError, group: str = "") -> Check:
    found = f"{error.where}: {error.what}" if error.where else error.what
    return Check(name, "problem", found, error.fix, error, group)


def _glibc() -> tuple[int, int] | None:
    """Return the version of the glibc that this process runs on, or None on another C library."""
    name, version = platform.libc_ver()
    parts = version.split(".")
    return (int(parts[0]), int(parts[1])) if name == "glibc" and len(parts) >= 2 else None


def _system() -> Iterator[Check]:
    lowest, highest = SUPPORTED_PYTHON
    version = platform.python_version()
    if lowest <= sys.version_info[:2] <= highest:
        yield Check("Python", "ok", f"{version} in {sys.prefix}")
    else:
        supported = f"{lowest[0]}.{lowest[1]} to {highest[0]}.{highest[1]}"
        what = f"Python {version} is not supported ({supported} are)"
        yield _problem("Python", InstallationError(what, fix="run `make setup PYTHON=/path/to/python3.12`"))
    machine = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs"
    yield Check("platform", "ok", machine)
    if sys.platform != "linux":
        return
    glibc = _glibc()
    found = "no glibc" if glibc is None else f"glibc {glibc[0]}.{glibc[1]}"
    if glibc is None or glibc < NEEDED_GLIBC:
        fix = "run `make setup`, or use the container image"
        yield _problem("C library", InstallationError(f"{found}: ml-metadata needs glibc 2.39", fix=fix))
        return
    maps = Path("/proc/self/maps")
    own = maps.exists() and f"{Path(sys.prefix).resolve()}/runtime/" in maps.read_text(encoding="utf-8")
    yield Check("C library", "ok", f"{found}, " + ("the environment's own C runtime" if own else "the system's"))


def _packages() -> Iterator[Check]:
    from packaging.requirements import Requirement

    try:
        needed = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        needed = []
    for requirement in map(Requirement, (DISTRIBUTION, *needed)):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = requirement.name, requirement.specifier
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield _problem(name, InstallationError(f"{name} is not installed", fix=SET_UP))
            continue
        if wanted.contains(version, prereleases=True):
            yield Check(name, "ok", version)
        else:
            what = f"{name} {version} is installed, {wanted} is needed"
            yield _problem(name, InstallationError(what, fix=SET_UP))


def _extras(required: Collection[str]) -> Iterator[Check]:
    for extra, modules in extras.EXTRAS.items():
        absent = extras.missing(extra)
        if not absent:
            yield Check(extra, "ok", ", ".join(modules))
        elif extra in required:
            try:
                extras.require(extra, f"the check `--require {extra}`")
            except MissingExtraError as error:
                yield _problem(extra, error)
        else:
            yield Check(extra, "absent", f"missing: {', '.join(absent)}", extras.how_to_install(extra))


def _programs() -> list[Check]:
    """Look for the programs that optional parts use, all at once, since each takes a moment to answer."""
    with ThreadPoolExecutor(len(PROGRAMS)) as pool:
        return list(pool.map(lambda program: _program(*program), PROGRAMS))


def _program(names: tuple[str, ...], arguments: tuple[str, ...], title: str, purpose: str) -> Check:
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        return Check(title, "absent", "not on the PATH", purpose)
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(title, "absent", f"{path} does not answer ({type(error).__name__})", purpose)
    lines = (done.stdout or done.stderr).strip().splitlines()
    if done.returncode or not lines:
        return Check(title, "absent", f"{path} does not work (exit code {done.returncode})", purpose)
    return Check(title, "ok", lines[0], purpose)


def _data(settings: Settings | None, config: Path | None, assignments: tuple[str, ...]) -> Iterator[Check]:
    try:
        from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE, EMBEDDED_SHA256, embedded_bytes

        found = f"{EMBEDDED_FILE.name}, {len(embedded_bytes()):,} bytes, SHA-256 {EMBEDDED_SHA256[:12]}…"
        yield Check("embedded data", "ok", found)
    except BikePipelineError as error:
        yield _problem("embedded data", error)
    try:
        from bike_pipeline.settings import load_settings

        settings = settings or load_settings(config, assignments)
    except BikePipelineError as error:
        yield _problem("configuration", error)
        return
    except ImportError as error:
        yield _problem("configuration", InstallationError(f"{error.name or error} cannot be imported", fix=SET_UP))
        return
    yield Check("configuration", "ok", f"valid ({config or 'configs/base.yaml'})")
    yield _workspace(settings)
    yield from _volumes(settings)
    yield from _engines(settings)


def _workspace(settings: Settings) -> Check:
    folder = existing = settings.workspace_path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    other = "choose another with `--set workspace=FOLDER`"
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        what = f"cannot write there: {(error.strerror or str(error)).lower()}"
        fix = f"give this user the right to write there, or {other}"
        return _problem("workspace", StorageError(what, where=str(folder), fix=fix))
    if free < NEEDED_SPACE:
        what = f"only {free / 1e9:.2f} GB are free"
        return _problem("workspace", StorageError(what, where=str(folder), fix=f"free some space, or {other}"))
    return Check("workspace", "ok", f"{folder}, writable, {free / 1e9:.0f} GB free")


def _volumes(settings: Settings) -> Iterator[Check]:
    """Look at the volumes of a cluster's stages if they are mounted: in a container of the pipeline's image."""
    from bike_pipeline.storage import cluster_volumes

    if mounts := cluster_volumes.mounted(settings.kubeflow):
        problems = [_problem("volume", error) for error in cluster_volumes.problems(settings.kubeflow)]
        yield from problems or [Check("volume", "ok", f"{', '.join(mounts)}, writable")]


def _engines(settings: Settings) -> Iterator[Check]:
    """Look for the job servers of the Beam engines; only the engine of the settings needs its own."""
    from bike_pipeline.runners.beam import job_server_programs

    beam = settings.beam
    for engine in job_server_programs.ENGINES:
        name = f"{engine.capitalize()} job server"
        if beam.engine == engine and beam.job_server.endpoint:
            yield Check(name, "ok", f"expected at {beam.job_server.endpoint}", group="engines")
            continue
        try:
            jar = job_server_programs.require(beam, engine)
        except MissingExtraError as error:
            if beam.engine == engine:
                yield _problem(name, error, "engines")
            else:
                yield Check(name, "absent", f"{error.where}: {error.what}", error.fix, group="engines")
        else:
            yield Check(name, "ok", str(jar), group="engines")
