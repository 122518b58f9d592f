"""Fetches what other Beam engines than the direct runner need: `make flink`, `make spark`, `make prism`, `make boot`.

Flink's and Spark's job servers come from Maven, by the user's own Maven with its mirrors and settings; Prism, Beam's
runner in Go, and boot, which starts Python workers, are built by Go from the Go module registry. They lie in
`.job-servers`, where the settings find them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bike_pipeline.errors import BikePipelineError
from bike_pipeline.runners.beam import job_server_programs
from bike_pipeline.settings import load_settings

DRIVERS = {
    "flink": "org/apache/beam/runners/flink/FlinkJobServerDriver.class",
    "spark": "org/apache/beam/runners/spark/SparkJobServerDriver.class",
}
BEAM_MODULE = "github.com/apache/beam/sdks/v2"
# By the name that the program gets here: its package, and the name that Go gives it.
GO_PROGRAMS = {"prism": ("go/cmd/prism", "prism"), "boot": ("python/container", "container")}


def _stop(what: str, fix: str) -> NoReturn:
    print(f"job-servers: error: {what}\n             fix: {fix}", file=sys.stderr)
    sys.exit(1)


def _need(program: str, fix: str) -> str:
    path = shutil.which(program)
    if path is None:
        _stop(f"there is no program '{program}' on the PATH", fix)
    return path


def fetch_jar(engine: str, coordinates: str, target: Path) -> None:
    """Copy a job server's jar from Maven to `target`, whole and checked, or not at all."""
    maven = _need("mvn", "install Maven (Debian, Ubuntu: apt install maven)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as folder:
        # --strict-checksums: a file whose checksum is not the repository's is an error and not a warning.
        # --update-snapshots: what was not served once is asked for again.
        arguments = ["--batch-mode", "--quiet", "--strict-checksums", "--update-snapshots", "dependency:copy"]
        done = subprocess.run(
            [maven, *arguments, f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"],
            capture_output=True,
            text=True,
            check=False,
        )
        jars = list(Path(folder).glob("*.jar"))
        if done.returncode or len(jars) != 1:
            lines = (done.stdout + done.stderr).splitlines()
            said = [line.rpartition(": ")[2][:300] for line in lines if "ERROR" in line and ": " in line]
            _stop(
                f"Maven did not deliver {coordinates} ({said[0] if said else f'exit code {done.returncode}'})",
                "see whether your Maven repository serves it; another Beam version: "
                f"make {engine} ARGS='--set beam.job_server.version=X.Y.Z', and the same in your settings",
            )
        _check_jar(engine, jars[0])
        os.replace(jars[0], target)


def _check_jar(engine: str, jar: Path) -> None:
    try:
        with zipfile.ZipFile(jar) as content:
            damaged = content.testzip()
            holds_driver = DRIVERS[engine] in content.namelist()
    except zipfile.BadZipFile as error:
        _stop(f"what Maven delivered is no jar ({error})", "remove it from the local Maven repository and try again")
    if damaged or not holds_driver:
        _stop(
            f"what Maven delivered is damaged ({damaged or 'no ' + DRIVERS[engine]})",
            "remove it from the local Maven repository and try again",
        )


def build(name: str, target: Path) -> None:
    """Build one of `GO_PROGRAMS` with Go, of the installed Beam's version."""
    package, made = GO_PROGRAMS[name]
    go = _need("go", "install Go (Debian, Ubuntu: apt install golang)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as folder:
        done = subprocess.run(
            [go, "install", f"{BEAM_MODULE}/{package}@v{version('apache-beam')}"],
            # Without C, so that it runs on machines and in images with another C library.
            env={**os.environ, "GOBIN": folder, "GOFLAGS": "", "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            _stop(f"Go did not build {name} ({lines[-1][:300]})", "see whether your Go module proxy serves it")
        os.replace(Path(folder) / made, target)


def main() -> None:
    """Fetch one engine, unless it is there already."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("engine", choices=[*DRIVERS, *GO_PROGRAMS])
    parser.add_argument("--config", default=None, help="an overlay of the settings")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="a single setting")
    options = parser.parse_args()
    try:
        beam = load_settings(options.config, tuple(options.assignments)).beam
    except BikePipelineError as error:
        _stop(error.what, error.fix)
    engine = options.engine
    program = job_server_programs.jar_path(beam, "flink").parent / f"{engine}-{version('apache-beam')}"
    target = program if engine in GO_PROGRAMS else job_server_programs.jar_path(beam, engine)
    if not target.is_file():
        print(f"job-servers: fetching {engine} (some minutes the first time)")
        if engine in GO_PROGRAMS:
            build(engine, target)
        else:
            fetch_jar(engine, job_server_programs.artifact(beam, engine), target)
    print(f"job-servers: {engine} is there: {target} ({target.stat().st_size / 1e6:.0f} MB)")
    if engine in DRIVERS and (problem := job_server_programs.java_problem(beam.job_server.java)):
        print(f"job-servers: {engine} needs Java {job_server_programs.OLDEST_JAVA} or newer as well: {problem}")


if __name__ == "__main__":
    main()
