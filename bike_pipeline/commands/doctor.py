"""`bike-pipeline doctor`: what is there, which versions, what is missing and how to get it.

Versions are read from the packages' metadata; none of them is imported, so the answer takes less than a second.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

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
# Programs beside the environment: first name found counts, arguments that print the version, what it is for.
PROGRAMS = (
    (
        ("c++", "g++", "clang++"),
        ("--version",),
        "C++ compiler",
        "only for `make setup`, which builds pyfarmhash",
    ),
    (("git",), ("--version",), "git", "only for work on the project"),
    (("java",), ("-version",), "Java", "only for Beam on Flink or Spark (17 or newer)"),
    (("go",), ("version",), "Go", "only to check compiled specs with Kubeflow's own compiler"),
    (("docker", "podman"), ("--version",), "containers", "only for images and the official TF Serving"),
)
LABELS = {"ok": "[green]ok[/green]", "absent": "[yellow]absent[/yellow]", "problem": "[bold red]PROBLEM[/bold red]"}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        group: the heading it stands under.
        name: what was looked at.
        state: `ok`; `absent` for an optional thing that is not there; `problem` for a needed one.
        found: what was found.
        fix: what to do where the state is not `ok`, or what the thing is for.
        error: for a problem, the error that the command ends with.
    """

    group: str
    name: str
    state: Literal["ok", "absent", "problem"]
    found: str
    fix: str = ""
    error: BikePipelineError | None = None


def _problem(group: str, name: str, error: BikePipelineError) -> Check:
    found = f"{error.where}: {error.what}" if error.where else error.what
    return Check(group, name, "problem", found, error.fix, error)


def _glibc() -> tuple[int, int] | None:
    """Return the version of the glibc that this process runs on, or None on another C library."""
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return None
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    parts = version.split(".")
    return (int(parts[0]), int(parts[1])) if name == "glibc" and len(parts) >= 2 else None


def _uses_own_runtime() -> bool:
    """Return whether this process runs on a C runtime that belongs to the environment and not to the system."""
    maps = Path("/proc/self/maps")
    return maps.exists() and f"{Path(sys.prefix).resolve()}/runtime/" in maps.read_text(encoding="utf-8")


def system_checks() -> Iterator[Check]:
    """Look at the interpreter and at what it runs on."""
    group = "system"
    lowest, highest = SUPPORTED_PYTHON
    if lowest <= sys.version_info[:2] <= highest:
        yield Check(group, "Python", "ok", f"{platform.python_version()} in {sys.prefix}")
    else:
        supported = f"{lowest[0]}.{lowest[1]} to {highest[0]}.{highest[1]}"
        error = InstallationError(
            f"Python {platform.python_version()} is not supported ({supported} are)",
            fix="run `make setup PYTHON=/path/to/python3.12`",
        )
        yield _problem(group, "Python", error)
    yield Check(
        group,
        "platform",
        "ok",
        f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs",
    )
    glibc = _glibc()
    if sys.platform != "linux":
        return
    if glibc is None or glibc < NEEDED_GLIBC:
        found = "no glibc" if glibc is None else f"glibc {glibc[0]}.{glibc[1]}"
        error = InstallationError(
            f"{found}: ml-metadata needs glibc 2.39", fix="run `make setup`, or use the container image"
        )
        yield _problem(group, "C library", error)
    else:
        owner = "the environment's own C runtime" if _uses_own_runtime() else "the system's"
        yield Check(group, "C library", "ok", f"glibc {glibc[0]}.{glibc[1]}, {owner}")


def package_checks() -> Iterator[Check]:
    """Compare every package that the product needs with the version that is installed."""
    from packaging.requirements import Requirement

    group = "packages"
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield _problem(
            group, DISTRIBUTION, InstallationError(f"{DISTRIBUTION} is not installed", fix="run `make setup`")
        )
        return
    yield Check(group, DISTRIBUTION, "ok", distribution.version)
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = requirement.name
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield _problem(group, name, InstallationError(f"{name} is not installed", fix="run `make setup`"))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield Check(group, name, "ok", version)
        else:
            what = f"{name} {version} is installed, {requirement.specifier} is needed"
            yield _problem(group, name, InstallationError(what, fix="run `make setup`"))


def extra_checks(required: Iterable[str]) -> Iterator[Check]:
    """Look for the optional parts; those that are `required` are a problem where they are absent."""
    for extra, modules in extras.EXTRAS.items():
        absent = extras.missing(extra)
        if not absent:
            yield Check("extras", extra, "ok", ", ".join(modules))
        elif extra in required:
            try:
                extras.require(extra, f"the check `--require {extra}`")
            except MissingExtraError as error:
                yield _problem("extras", extra, error)
        else:
            yield Check("extras", extra, "absent", f"missing: {', '.join(absent)}", extras.how_to_install(extra))


def _program(names: tuple[str, ...], arguments: tuple[str, ...], title: str, purpose: str) -> Check:
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        return Check("programs", title, "absent", "not on the PATH", purpose)
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("programs", title, "absent", f"{path} does not answer ({type(error).__name__})", purpose)
    lines = (done.stdout or done.stderr).strip().splitlines()
    if done.returncode or not lines:
        return Check("programs", title, "absent", f"{path} does not work (exit code {done.returncode})", purpose)
    return Check("programs", title, "ok", lines[0], purpose)


def program_checks() -> Iterator[Check]:
    """Look for the programs that optional parts use, all at once, since each takes a moment to answer."""
    with ThreadPoolExecutor(len(PROGRAMS)) as pool:
        yield from pool.map(lambda program: _program(*program), PROGRAMS)


def _workspace(settings: Settings) -> Check:
    folder = settings.workspace_path
    standing = folder
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    try:
        with tempfile.TemporaryFile(dir=standing):
            free = shutil.disk_usage(standing).free
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        fix = "give this user the right to write there, or choose another with `--set workspace=FOLDER`"
        return _problem("data", "workspace", StorageError(f"cannot write there: {reason}", where=str(folder), fix=fix))
    if free < NEEDED_SPACE:
        what = f"only {free / 1e9:.2f} GB are free"
        error_space = StorageError(
            what, where=str(folder), fix="free some space, or choose another with `--set workspace=FOLDER`"
        )
        return _problem("data", "workspace", error_space)
    return Check("data", "workspace", "ok", f"{folder}, writable, {free / 1e9:.0f} GB free")


def _volumes(settings: Settings) -> Iterator[Check]:
    """Look at the volumes of a cluster's stages where they are mounted: in a container of the pipeline's image."""
    from bike_pipeline.storage import cluster_volumes

    mounts = cluster_volumes.mounted(settings.kubeflow)
    if not mounts:
        return
    found = [_problem("data", "volume", problem) for problem in cluster_volumes.problems(settings.kubeflow)]
    yield from found or [Check("data", "volume", "ok", f"{', '.join(mounts)}, writable")]


def data_checks(config: Path | None, assignments: tuple[str, ...]) -> Iterator[Check]:
    """Look at the embedded data, the configuration and the workspace that it names."""
    try:
        from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE, EMBEDDED_SHA256, embedded_bytes

        content = embedded_bytes()
        yield Check(
            "data",
            "embedded data",
            "ok",
            f"{EMBEDDED_FILE.name}, {len(content):,} bytes, SHA-256 {EMBEDDED_SHA256[:12]}…",
        )
    except BikePipelineError as error:
        yield _problem("data", "embedded data", error)
    try:
        from bike_pipeline.settings import load_settings

        settings = load_settings(config, assignments)
    except BikePipelineError as error:
        yield _problem("data", "configuration", error)
        return
    except ImportError as error:
        missing = InstallationError(f"{error.name or error} cannot be imported", fix="run `make setup`")
        yield _problem("data", "configuration", missing)
        return
    yield Check("data", "configuration", "ok", f"valid ({config or 'configs/base.yaml'})")
    yield _workspace(settings)
    yield from _volumes(settings)
    yield from _engine_checks(settings)


def _engine_checks(settings: Settings) -> Iterator[Check]:
    """Look for the job servers of the Beam engines; that of the engine in the settings is a problem where it lacks."""
    from bike_pipeline.runners.beam import job_server_programs

    beam = settings.beam
    for engine in job_server_programs.ENGINES:
        name = f"{engine.capitalize()} job server"
        if beam.engine == engine and beam.job_server.endpoint:
            yield Check("engines", name, "ok", f"expected at {beam.job_server.endpoint}")
            continue
        try:
            jar = job_server_programs.require(beam, engine)
        except MissingExtraError as error:
            if beam.engine == engine:
                yield _problem("engines", name, error)
            else:
                yield Check("engines", name, "absent", f"{error.where}: {error.what}", error.fix)
        else:
            yield Check("engines", name, "ok", str(jar))


def _print_table(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "found", "what to do, or what it is for"):
        table.add_column(title, overflow="fold")
    group = ""
    for check in checks:
        if check.group != group:
            table.add_row("", f"\n[bold]{check.group}[/bold]", "", "")
            group = check.group
        table.add_row(LABELS[check.state], check.name, escape(check.found), escape(check.fix))
    # A pipe or a file has no width of its own; rich would otherwise break the lines at 80.
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)


@click.command("doctor", short_help="What is there, which versions, what is missing and how to get it.")
@click.option("--config", type=click.Path(path_type=Path), help="An overlay file to check in place of the defaults.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A single setting to check; repeatable.")
@click.option(
    "--require",
    "required",
    multiple=True,
    type=click.Choice(list(extras.EXTRAS)),
    help="An extra that must be there; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def command(config: Path | None, assignments: tuple[str, ...], required: tuple[str, ...], as_json: bool) -> None:
    """Print what is there, which versions, what is missing and how to get it.

    The exit code is 0 where all that is needed is there. Optional parts may be absent, unless named with --require.
    """
    checks = [
        *system_checks(),
        *package_checks(),
        *extra_checks(required),
        *program_checks(),
        *data_checks(config, assignments),
    ]
    errors = [check.error for check in checks if check.error is not None]
    if as_json:
        fields = ("group", "name", "state", "found", "fix")
        report = {"ok": not errors, "checks": [{field: getattr(check, field) for field in fields} for check in checks]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print_table(checks)
    if errors:
        raise errors[0]
