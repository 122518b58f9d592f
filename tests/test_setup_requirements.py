"""The pinned requirement files: complete, hashed, free of addresses, and consistent with each other."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bike_pipeline.extras import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
FILES = ("base", "bootstrap", "dev", *EXTRAS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13")


def blocks(name):
    """Return the pinned requirements of a file, each with its hashes."""
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    found = [block for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE) if block.strip()]
    return {Requirement(block.partition("\\")[0].strip()): re.findall(r"--hash=(\S+)", block) for block in found}


def pins(name, python):
    """Return what a file installs on Linux with one Python: distribution -> version."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
        "extra": "",
    }
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in blocks(name)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


def declared(*extras):
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    found = [Requirement(text) for text in texts]
    # `dev` takes whole extras in by the project's own name.
    taken_in = [extra for requirement in found if requirement.name == PROJECT["name"] for extra in requirement.extras]
    own = [requirement for requirement in found if requirement.name != PROJECT["name"]]
    return own + (declared(*taken_in)[len(PROJECT["dependencies"]) :] if taken_in else [])


def test_every_extra_has_its_file():
    assert {path.stem for path in REQUIREMENTS.glob("*.txt")} == {
        "base",
        "bootstrap",
        *PROJECT["optional-dependencies"],
    }


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_and_hashed(name):
    found = blocks(name)
    assert found
    for requirement, hashes in found.items():
        assert re.fullmatch(r"==[\w.!+]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_no_file_holds_an_address(path):
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE), "an option other than --hash"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", FILES)
def test_the_files_agree_where_they_overlap(name, python):
    mine = pins(name, python)
    for other in FILES:
        theirs = pins(other, python)
        assert {key: mine[key] for key in mine.keys() & theirs} == {key: theirs[key] for key in mine.keys() & theirs}


@pytest.mark.parametrize("python", PYTHONS)
def test_dev_covers_base(python):
    assert pins("base", python).items() <= pins("dev", python).items()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", [None, "dev", *EXTRAS])
def test_the_pins_are_what_the_project_declares(extra, python):
    pinned = pins("base", python) | (pins(extra, python) if extra else {})
    for requirement in declared(*([extra] if extra else [])):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: {version}"


# PyPI's build of torch carries CUDA, so that one extra is of several GB and in no default set.
@pytest.mark.parametrize("name", sorted({*FILES} - {"torch"}))
def test_nothing_needs_a_graphics_card(name):
    heavy = [
        requirement.name
        for requirement in blocks(name)
        # NVIDIA's bindings of 50 kB ask a driver, where there is one.
        if re.match(r"torch|triton|nvidia(?!-ml-py$)|cuda|cupy", requirement.name)
    ]
    assert heavy == []


def imported_modules():
    """Return every module that the package and the runners import from outside, and where."""
    for path in sorted([*(ROOT / "bike_pipeline").rglob("*.py"), *(ROOT / "runners").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "google":
                names = [f"google.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in {"bike_pipeline", "runners"}:
                    yield name, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_everything_that_is_imported_is_declared():
    names = {canonicalize_name(requirement.name) for requirement in declared()}
    # NVIDIA's packages come with the graphics card's software; Flower, Airflow and Feast are in environments of their
    # own. The first two are asked for before they are imported, the others run the modules that import them.
    optional = {module.partition(".")[0] for modules in EXTRAS.values() for module in modules} | {
        "airflow",
        "cuda",
        "feast",
        "flwr",
        "tensorrt",
    }
    distributions = importlib.metadata.packages_distributions()
    undeclared = {}
    for module, where in imported_modules():
        top = module.partition(".")[0]
        # `google` is shared by many distributions; protobuf is the one of them that is declared.
        found = ["protobuf"] if module.startswith("google.protobuf") else distributions.get(top, [top])
        if top not in optional and names.isdisjoint(map(canonicalize_name, found)):
            undeclared.setdefault(module, []).append(where)
    assert undeclared == {}
