"""What every step of the set-up shares: one line a message, no silent waits, and failures that say how to mend them.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn, TextIO

# Seconds between two signs of life of a step that takes long.
HEARTBEAT = 10.0
IMAGE_OR_NEWER = (
    "use a system with glibc 2.39 or newer (Debian 13, Ubuntu 24.04, Fedora 40) on x86-64, "
    "or the project's container image"
)
# Variables that would send an installation elsewhere than into the environment that is being made.
MISLEADING = (
    *("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"),
    *("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV"),
)

# File descriptors that every command keeps open. With the lock among them it stays taken until the last command ended,
# also when this process is killed and a command outlives it.
kept_open: list[int] = []

# What a failed command's output means: pattern, what is wrong, how to mend it. The first match counts.
DIAGNOSES = (
    (
        r"no space left on device|disk quota exceeded",
        "the disk is full",
        "free some space (the environment and the download cache take about 5 GB) and run the same command again",
    ),
    (
        r"do not match the hashes|hash mismatch|hashsum mismatch",
        "a package differs from the one that is pinned by its hash, so it was not installed",
        "empty the caches (`pip cache purge`, `uv cache clean`); where it stays, ask who runs your package mirror",
    ),
    (
        r"certificate|ssl error|unknownissuer",
        "the package index cannot be trusted: its certificate is not known here",
        "name your organisation's certificate bundle: PIP_CERT=/path/to/bundle.pem",
    ),
    (
        (
            r"name resolution|dns error|could not resolve|connection (refused|reset|timed out)|network is unreachable"
            r"|no route to host|operation timed out|error sending request|failed to fetch|max retries exceeded"
            r"|newconnectionerror|proxyerror|tunnel|from versions: none"
        ),
        "the package index cannot be reached",
        "check the network and the proxy (HTTPS_PROXY); a mirror is named with PIP_INDEX_URL or in pip's configuration",
    ),
    (
        r"python\.h: no such file",
        "the header files of this Python are missing, and pyfarmhash is built from source",
        "install them (Debian, Ubuntu: `apt install python3-dev`; Fedora: `dnf install python3-devel`)",
    ),
    (
        r"no wheels? with a matching|wheels? (usable|for the current platform)|not a supported wheel",
        "a pinned package has no build for this platform",
        IMAGE_OR_NEWER,
    ),
)


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"setup: {message}", flush=True)


def fail(what: str, fix: str) -> NoReturn:
    """Stop with what is wrong and how to mend it."""
    print(f"setup: error: {what}\n       fix: {fix}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def diagnose(output: str) -> tuple[str, str] | None:
    """Return what is wrong and how to mend it, read from a failed command's output, or None where it is not known."""
    for pattern, what, fix in DIAGNOSES:
        if re.search(pattern, output, re.IGNORECASE):
            return what, fix
    return None


def clean_environment() -> dict[str, str]:
    """Return this process's variables without those that would send an installation elsewhere."""
    return {name: value for name, value in os.environ.items() if name not in MISLEADING}


def run(command: list[str], doing: str, *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run `command` and return its output; give a sign of life every ten seconds; explain a failure and stop.

    Args:
        command: program and arguments.
        doing: what the command is for, as it is told to the user while they wait or when it fails.
        cwd: the folder to run in.
        env: its variables, `clean_environment()` where None.

    Raises:
        SystemExit: the command could not be started or failed.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            pass_fds=kept_open,
            env=clean_environment() if env is None else env,
        )
    except OSError as error:
        fail(f"{doing}: cannot run {command[0]} ({error.strerror})", "check that it is installed and on the PATH")
    lines: list[str] = []
    # A thread of its own empties the pipe, so that a talkative command never blocks on it.
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    began, shown = time.monotonic(), 0
    try:
        while process.returncode is None:
            try:
                process.wait(HEARTBEAT)
            except subprocess.TimeoutExpired:
                # A line that was shown before would tell of work that is long over.
                latest = lines[-1].strip()[:80] if len(lines) > shown else ""
                shown = len(lines)
                say(f"  {doing}: {time.monotonic() - began:.0f} s" + (f" ({latest})" if latest else ""))
    except BaseException:
        process.terminate()
        process.wait()
        raise
    reader.join()
    output = "".join(lines)
    if process.returncode:
        tail = "\n".join(f"  | {line[:200]}" for line in output.strip().splitlines()[-12:])
        print(f"setup: {doing} failed with exit code {process.returncode}:\n{tail}", file=sys.stderr, flush=True)
        what, fix = diagnose(output) or (f"{doing} failed", "see the lines above, then run the same command again")
        fail(what, fix)
    return output


def take(lock: TextIO) -> None:
    """Take the lock of an environment, with a sign of life every ten seconds while somebody else has it.

    Args:
        lock: the lock file, open to read and to write; it holds the process that took it last.
    """
    began = time.monotonic()
    told = began
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            now = time.monotonic()
            if told == began:
                say(f"{_holder(lock)}; waiting for it to end")
                told = now
            elif now - told >= HEARTBEAT:
                say(f"  waiting: {now - began:.0f} s ({_holder(lock)})")
                told = now
            time.sleep(0.1)
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    kept_open.append(lock.fileno())


def _holder(lock: TextIO) -> str:
    """Return who has the lock, in words: a killed set-up leaves it to the command that it had started."""
    lock.seek(0)
    process = lock.read().strip()
    if process.isdigit():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return f"an earlier set-up (process {process}) was killed, and a command that it had started still runs"
        except PermissionError:
            pass
        return f"another set-up of this environment is under way (process {process})"
    return "another set-up of this environment is under way"
