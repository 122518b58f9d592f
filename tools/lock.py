"""Make the pinned requirement files again: `make lock`, or `make lock UPGRADE=1` for the newest versions that fit.

Everything is resolved together once, for all supported Pythons; the files are cut out of that one answer. So every
extra can be installed beside every other, and none of them changes a version that another file pins:

- `base.txt`: what the product needs to run (for images);
- `dev.txt`: that and the tools of development;
- one file an extra: what the extra adds to `base.txt`;
- `bootstrap.txt`: what makes the environment.

Pins that still fit are kept. The files hold names, versions and hashes, never an address.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
OLDEST_PYTHON = "3.11"


def blocks(text: str) -> dict[str, str]:
    """Return the requirements of a file: the line with name, version and marker -> that line with its hashes."""
    found = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return {block.partition(" \\\n")[0].strip(): block for block in found if block.strip()}


def resolve(source: Path, output: Path, *flags: str) -> None:
    """Resolve `source` into `output` with hashes; pins that `output` holds already are kept where they fit.

    Raises:
        SystemExit: it does not resolve; uv's own words are printed.
    """
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "compile", str(source), "--output-file", str(output), *flags]
    command += ["--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
    command += ["--no-annotate", "--no-header", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"lock: {source.name} {' '.join(flags)} does not resolve:\n{done.stderr.strip()}")


def lock(upgrade: bool) -> dict[str, str]:
    """Return the content of every requirement file by its name."""
    source = ROOT / "pyproject.toml"
    extras = sorted(tomllib.loads(source.read_text(encoding="utf-8"))["project"]["optional-dependencies"])
    texts: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-lock-") as folder:
        everything = Path(folder) / "everything.txt"
        if not upgrade:
            pinned = [path.read_text(encoding="utf-8") for path in sorted(REQUIREMENTS.glob("*.txt"))]
            everything.write_text("".join(blocks("".join(pinned)).values()), encoding="utf-8")
        resolve(source, everything, "--all-extras")

        def cut(name: str, origin: Path, *flags: str) -> str:
            output = Path(folder) / f"{name}.txt"
            resolve(origin, output, "--constraint", str(everything), *flags)
            return output.read_text(encoding="utf-8")

        texts["base"] = cut("base", source)
        texts["bootstrap"] = cut("bootstrap", REQUIREMENTS / "bootstrap.in")
        base = blocks(texts["base"])
        for extra in extras:
            text = cut(extra, source, "--extra", extra)
            # The marker counts too: what base.txt pins for some Pythons only may be needed on all of them here.
            added = {key: block for key, block in blocks(text).items() if key not in base}
            texts[extra] = text if extra == "dev" else "".join(added.values())
            print(f"lock: {extra}: {len(added)} requirements beside base.txt", flush=True)
    return texts


def main() -> None:
    """Resolve first, then write: where something does not resolve, no file has changed."""
    parser = argparse.ArgumentParser(description="Make the pinned requirement files again.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    for name, text in lock(parser.parse_args().upgrade).items():
        (REQUIREMENTS / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
