"""Fetch Chromium for the tests that look at pages, without installing anything on the machine.

The packages are the distribution's own, unpacked into `.browser/`. Where a Chromium is installed already, nothing is
fetched; where there is none to be had, one line says so, and the tests of pages in a browser are skipped with the same
words. Standard library only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import debian_packages

FOLDER = Path(__file__).resolve().parents[1] / ".browser"
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")
ABSENT = "no Chromium on this machine: neither installed (Debian: apt install chromium) nor fetched (`make browser`)"


def find(folder: Path = FOLDER) -> tuple[Path, Mapping[str, str]] | None:
    """Return Chromium's program and the environment that it runs in; None where it is neither installed nor fetched.

    Args:
        folder: where `fetch` unpacks to.
    """
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    if installed:
        return Path(installed), dict(os.environ)
    program = folder / "usr" / "lib" / "chromium" / "chromium"
    if not program.is_file():
        return None
    libraries = sorted({str(path.parent) for path in folder.rglob("lib*.so*")})
    return program, {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def main() -> None:
    """Fetch it where it is missing; never fail, since every test that needs it says for itself that it is missing."""
    reason = "" if find() else debian_packages.fetch(["chromium"], FOLDER)
    found = find()
    if found is None:
        reason = reason or "the package chromium holds no chromium"
        print(f"browser: not to be had here ({reason}); its tests are skipped", flush=True)
        return
    print(f"browser: {found[0]}", flush=True)


if __name__ == "__main__":
    main()
