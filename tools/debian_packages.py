"""Unpack packages of the distribution into a folder, without installing anything on the machine.

They are taken with the system's package manager (signatures checked) and need no rights beyond the folder. Standard
library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def fetch(packages: Sequence[str], target: Path) -> str:
    """Unpack packages, and the libraries that they lack on this machine, into `target`.

    Args:
        packages: names of Debian packages.
        target: where to; what is there is replaced.

    Returns:
        "" where they are there now, else why they are not.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return "there is no apt-get to fetch it with"
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-apt-") as name:
        state = Path(name)
        for below in ("cache/archives/partial", "lists/partial"):
            (state / below).mkdir(parents=True)
        settings = {"Dir::Cache": str(state / "cache"), "Debug::NoLocking": "1", "Acquire::Languages": "none"}
        if os.geteuid() == 0:
            # apt's own unprivileged user may not read a folder that belongs to root alone.
            settings["APT::Sandbox::User"] = "root"
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        install = ["--download-only", "--no-install-recommends", "-y", "install", *packages]
        reason = _run(["apt-get", *options, *install])
        if reason:
            # Container images ship without package lists, and old lists name packages that are gone.
            options += ["-o", f"Dir::State::lists={state / 'lists'}"]
            reason = _run(["apt-get", *options, "update"]) or _run(["apt-get", *options, *install])
        files = sorted((state / "cache" / "archives").glob("*.deb"))
        if reason or not files:
            return reason or "apt-get fetched nothing"
        unpacked = state / "unpacked"
        for file in files:
            reason = _run(["dpkg", "-x", str(file), str(unpacked)])
            if reason:
                return reason
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        # Symbolic links into the system (alternatives, certificates) are not needed and may lead nowhere.
        shutil.copytree(unpacked, target, symlinks=True)
    return ""


def _run(command: list[str]) -> str:
    """Run a command; return "" where it went well, else the last thing that it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} failed ({error})"
    said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return "" if done.returncode == 0 else (said[-1] if said else f"{command[0]} ended with {done.returncode}")
