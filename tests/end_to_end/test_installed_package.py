"""What a wheel holds, and that it works in an environment and a folder where no checkout is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT

pytestmark = pytest.mark.slow
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "bike_pipeline", "runners", "configs")


def run(*command: object, folder: Path, **variables: str) -> str:
    """Return what a command prints; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder, env={**environment, **variables}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def sources() -> list[str]:
    """Return the files of the project that a package is built of, as a clone holds them."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SOURCES, folder=ROOT)
    return [name for name in listed.split("\0") if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, made of the source distribution that Beam's `--setup_file` makes of a clone."""
    folder = tmp_path_factory.mktemp("build")
    for name in sources():
        (folder / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "clone" / name, follow_symlinks=False)
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", folder, folder=folder / "clone")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
        "--wheel-dir", folder, unpacked, folder=folder,
    )  # fmt: skip
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and with the libraries of this one but not its editable install."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    # Where the libraries need a newer C runtime than the system's, this interpreter is the one that has it.
    (folder / "bin" / "python").unlink()
    shutil.copy(Path(sys.executable).resolve(), folder / "bin" / "python")
    (site,) = (folder / "lib").glob("python*/site-packages")
    # A path in such a file is added as it is: the hooks that lie there, the editable install among them, do not run.
    (site / "beside.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    run(
        sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet", "--no-index",
        "--no-deps", "--force-reinstall", "--ignore-installed", wheel, folder=folder,
    )  # fmt: skip
    return folder


def test_a_wheel_holds_every_file_of_the_package_and_no_other_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    expected = {}
    for name in sources():
        path = ROOT / name
        if name.partition("/")[0] in ("bike_pipeline", "runners", "configs") and path.is_file():
            expected[name if name.startswith("bike_pipeline/") else f"bike_pipeline/{name}"] = path.read_bytes()
    assert sorted(held) == sorted(expected)
    assert held == expected


def test_the_installed_package_runs_the_main_job_from_another_folder(environment: Path, tmp_path: Path) -> None:
    program = environment / "bin" / "bike-pipeline"
    shown = run(program, "config", "show", folder=tmp_path)
    assert "schema_file: configs/schema.pbtxt" in shown
    found = json.loads(
        run(
            environment / "bin" / "python", "-c",
            "import importlib.util, json, bike_pipeline; from bike_pipeline.settings import PROJECT_ROOT, FETCHED_ROOT;"
            "print(json.dumps([bike_pipeline.__file__, str(PROJECT_ROOT), str(FETCHED_ROOT),"
            " importlib.util.find_spec('runners') is None]))",
            folder=tmp_path,
        )
    )  # fmt: skip
    package = next(environment.glob("lib/python*/site-packages/bike_pipeline"))
    assert found == [str(package / "__init__.py"), str(package), str(tmp_path), True]
    first = json.loads(run(program, "run", "--demo", "first", "--json", folder=tmp_path))
    assert {stage["state"] for stage in first["stages"]} == {"done"}
    assert first["newly_pushed"]
    assert Path(first["destination"]).is_relative_to(tmp_path / "workspace")
    again = json.loads(run(program, "run", "--json", folder=tmp_path))
    assert {stage["state"] for stage in again["stages"]} == {"cached"}
    # The record names the files as a checkout does.
    recorded = run(
        environment / "bin" / "python", "-c",
        "from bike_pipeline.lineage.records.run_record import source_files; print(*source_files(), sep='\\n')",
        folder=tmp_path,
    ).split()  # fmt: skip
    assert {"bike_pipeline/pipeline.py", "runners/local_runner.py"} <= set(recorded)
    assert not [name for name in recorded if name.startswith("bike_pipeline/runners/")]
