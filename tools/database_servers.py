"""Fetch MariaDB for the tests that need a real server, without installing anything on the machine.

The packages are the distribution's own, taken with the system's package manager (signatures checked) and unpacked into
`.databases/`. It needs no rights beyond this folder. Where a server is installed already, nothing is fetched; where
there is none to be had, one line says so, and the tests of that server are skipped with the same words.
Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".databases"
PACKAGES = {"mariadb": "mariadb-server-core"}
PROGRAMS = {"mariadb": "mariadbd"}
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/libexec")


def find(server: str, folder: Path = FOLDER) -> Path | None:
    """Return the server's main program (`mariadbd`), or None where it is neither installed nor fetched.

    Args:
        server: "mariadb".
        folder: where `fetch` unpacks to.
    """
    name = PROGRAMS[server]
    on_path = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS)))
    if on_path:
        return Path(on_path)
    return next(iter(sorted((folder / server).rglob(f"sbin/{name}"))), None)


def fetch(server: str, folder: Path = FOLDER) -> str:
    """Unpack a server and the libraries that it lacks on this machine into `folder`.

    Args:
        server: "mariadb".
        folder: where to.

    Returns:
        "" where it is there now, else why it is not.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return "there is no apt-get to fetch it with"
    target = folder / server
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-apt-") as name:
        state = Path(name)
        for below in ("cache/archives/partial", "lists/partial"):
            (state / below).mkdir(parents=True)
        settings = {"Dir::Cache": str(state / "cache"), "Debug::NoLocking": "1", "Acquire::Languages": "none"}
        if os.geteuid() == 0:
            # apt's own unprivileged user may not read a folder that belongs to root alone.
            settings["APT::Sandbox::User"] = "root"
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        install = ["--download-only", "--no-install-recommends", "-y", "install", PACKAGES[server]]
        reason = _run(["apt-get", *options, *install])
        if reason:
            # Container images ship without package lists, and old lists name packages that are gone.
            options += ["-o", f"Dir::State::lists={state / 'lists'}"]
            reason = _run(["apt-get", *options, "update"]) or _run(["apt-get", *options, *install])
        packages = sorted((state / "cache" / "archives").glob("*.deb"))
        if reason or not packages:
            return reason or "apt-get fetched nothing"
        unpacked = state / "unpacked"
        for package in packages:
            reason = _run(["dpkg", "-x", str(package), str(unpacked)])
            if reason:
                return reason
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        # Symbolic links into the system (alternatives, certificates) are not needed and may lead nowhere.
        shutil.copytree(unpacked, target, symlinks=True)
    return "" if find(server, folder) else f"the package {PACKAGES[server]} holds no {PROGRAMS[server]}"


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


def main() -> None:
    """Fetch what is missing; never fail, since every test of a server says for itself that it is missing."""
    for server in PACKAGES:
        found = find(server)
        if found is None:
            reason = fetch(server)
            if reason:
                print(f"databases: {server}: not to be had here ({reason}); its tests are skipped", flush=True)
                continue
            found = find(server)
        print(f"databases: {server}: {found}", flush=True)


if __name__ == "__main__":
    main()
