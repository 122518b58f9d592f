"""What the product needs to run may be given away with it: the licences of its bill of materials."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from bike_pipeline.lineage.records.bill_of_materials import bill_of_materials

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
# What is needed to work on the product, not to run it.
NOT_RUNTIME = ("dev.txt", "bootstrap.txt")
# Not on every platform, or, for PyTorch and its CUDA, not in this environment: nothing here tells their licences.
NOT_HERE = {"appnope", "colorama", "pywin32", "pywin32-ctypes"}
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|PSFL|MPL|Zlib|CC0|Unlicense|HPND|CNRI-Python|Python Software Foundation"
    r"|TCL|Kiwi|matplotlib|Redistribution and use in source and binary forms)\b",
    re.IGNORECASE,
)
REFUSED = re.compile(
    r"GPL|General Public|Affero|BUSL|Business Source|\bBSL-?1\.1|SSPL|Server Side Public|Commons Clause|Elastic"
    r"|Polyform|CC-BY-NC|NonCommercial",
    re.IGNORECASE,
)
# Read in their own files and classifiers, since Syft finds no licence in their metadata, or a long text that names
# the GPL: pandas' has the history of Python's, SciPy's that of GCC's libraries (libgfortran with the exception that
# lets anybody use it, libquadmath under the LGPL), Matplotlib's the choice that FreeType gives.
REVIEWED = {
    "matplotlib": "PSF-2.0",
    "pandas": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "ai-edge-litert": "Apache-2.0",
    "arrow": "Apache-2.0",
    "backports-tarfile": "MIT",
    "colorama": "BSD-3-Clause",
    "cronsim": "BSD-3-Clause",
    "databricks-sdk": "Apache-2.0",
    "duckdb": "MIT",
    "jaraco-classes": "MIT",
    "jinja2": "BSD-3-Clause",
    "keyrings-google-artifactregistry-auth": "Apache-2.0",
    "kfp": "Apache-2.0",
    "markdown-it-py": "MIT",
    "mdurl": "MIT",
    "multipart": "MIT",
    "namex": "Apache-2.0",
    "prompt-toolkit": "BSD-3-Clause",
    "ptyprocess": "ISC",
    "pyfarmhash": "MIT",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "rouge-score": "Apache-2.0",
    "safetensors": "Apache-2.0",
    "slicer": "MIT",
    "sqlparse": "BSD-3-Clause",
    "wcwidth": "MIT",
}
# The LGPL lets a program use a library that whoever runs it can replace, as every Python package can be.
LESSER = {"pycountry": "LGPL-2.1-only"}


def runtime() -> dict[str, str]:
    """Return the packages of base.txt and of every extra, with the file that pins each."""
    found: dict[str, str] = {}
    for path in sorted(REQUIREMENTS.glob("*.txt")):
        if path.name not in NOT_RUNTIME:
            names = re.findall(r"^([A-Za-z0-9._-]+)==", path.read_text(encoding="utf-8"), re.MULTILINE)
            found |= {canonicalize_name(name): path.name for name in names}
    return found


@pytest.fixture(scope="module")
def licences() -> dict[str, str]:
    """What the bill of materials tells, by package."""

    def text(entry: dict[str, Any]) -> str:
        kinds = (choice.get("expression") or choice["license"] for choice in entry.get("licenses", []))
        return " AND ".join(k if isinstance(k, str) else k.get("id") or k.get("name") or "" for k in kinds)

    return {canonicalize_name(entry["name"]): text(entry) for entry in json.loads(bill_of_materials())["components"]}


def speaks_for_itself(licence: str) -> bool:
    """Return whether a licence's text names one that may be given away, and none that may not."""
    return bool(PERMISSIVE.search(licence)) and not REFUSED.search(licence)


@pytest.mark.parametrize(
    ("licence", "good"),
    [
        ("MIT", True), ("Apache 2.0", True), ("BSD-3-Clause AND Zlib", True), ("MPL-2.0 AND MIT", True),
        ("", False), ("UNKNOWN", False), ("Proprietary", False), ("GPL-3.0-only", False), ("AGPL-3.0 OR MIT", False),
        ("LGPL-2.1-only", False), ("BUSL-1.1", False), ("Business Source License 1.1", False), ("SSPL-1.0", False),
    ],
)  # fmt: skip
def test_what_a_licence_is_taken_for(licence: str, good: bool) -> None:
    assert speaks_for_itself(licence) is good


def test_no_package_of_the_runtime_is_under_a_licence_that_forbids_to_give_the_product_away(
    licences: dict[str, str],
) -> None:
    wrong = {}
    for name in runtime().keys() & licences.keys():
        licence = REVIEWED.get(name) or licences[name]
        if LESSER.get(name) != licence and not speaks_for_itself(licence):
            wrong[name] = licence[:200]
    assert wrong == {}


def test_what_the_bill_of_materials_lacks_is_known(licences: dict[str, str]) -> None:
    absent = {name for name, file in runtime().items() if name not in licences and file != "torch.txt"}
    assert absent <= NOT_HERE


def test_no_review_outlives_its_reason(licences: dict[str, str]) -> None:
    named = {name for name in REVIEWED if speaks_for_itself(licences.get(name, ""))}
    assert named == set()
    assert {name: licences[name] for name in LESSER} == LESSER
