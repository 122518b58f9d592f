"""Beam's job servers for Flink and Spark: which ones, where their jars are, and what they need to run.

A job server takes Beam jobs and hands them to its engine; `make flink` and `make spark` fetch them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bike_pipeline.errors import MissingExtraError
from bike_pipeline.settings import FETCHED_ROOT
from bike_pipeline.settings.beam import BeamSettings

ENGINES: Final = ("flink", "spark")
OLDEST_JAVA: Final = 17


def artifact(beam: BeamSettings, engine: str) -> str:
    """Return the Maven coordinates of an engine's job server: group:artifact:version."""
    name = f"flink-{beam.flink.version}" if engine == "flink" else "spark-3"
    return f"org.apache.beam:beam-runners-{name}-job-server:{beam.job_server.version or version('apache-beam')}"


def jar_path(beam: BeamSettings, engine: str) -> Path:
    """Return where the jar of an engine's job server is, or would be."""
    named = (beam.flink if engine == "flink" else beam.spark).job_server_jar
    if named:
        return Path(named).expanduser()
    folder = Path(beam.job_server.folder).expanduser() if beam.job_server.folder else FETCHED_ROOT / ".job-servers"
    _, name, number = artifact(beam, engine).split(":")
    return folder / f"{name}-{number}.jar"


def java_problem(java: str) -> str:
    """Return what is wrong with the Java program, or "" where it is new enough."""
    path = shutil.which(java)
    if path is None:
        return f"there is no program '{java}'"
    try:
        said = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} does not start ({error})"
    found = re.search(r'version "(\d+)', said.stderr + said.stdout)
    if said.returncode or not found:
        return f"{path} does not tell its version"
    number = int(found.group(1))
    return f"{path} is Java {number}" if number < OLDEST_JAVA else ""


def require(beam: BeamSettings, engine: str) -> Path:
    """Return the jar to start."""
    if problem := java_problem(beam.job_server.java):
        raise MissingExtraError(
            f"engine {engine} needs Java {OLDEST_JAVA} or newer: {problem}",
            where="beam.job_server.java",
            fix=f"install it (Debian, Ubuntu: apt install openjdk-{OLDEST_JAVA}-jre-headless) or name the program",
        )
    jar = jar_path(beam, engine)
    if not jar.is_file():
        raise MissingExtraError(
            f"engine {engine} needs Beam's job server, which is not there",
            where=str(jar),
            fix=f"run `make {engine}`, or name a jar in beam.{engine}.job_server_jar, or a server that runs already in "
            "beam.job_server.endpoint",
        )
    return jar
