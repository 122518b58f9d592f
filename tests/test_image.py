"""The container image, as far as it can be checked without an engine that builds it."""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from bike_pipeline import __version__
from bike_pipeline.extras import EXTRAS
from tools import job_servers

ROOT = Path(__file__).resolve().parent.parent
IN_IMAGE = ("base", "kubeflow", "object-storage")


def instructions():
    """Return (instruction, rest) of the Dockerfile in order, without comments and with lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.strip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages():
    """Return the instructions of each stage; those before the first FROM stand alone."""
    found = [[]]
    for instruction in instructions():
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def stage_named(name):
    """Return the instructions of the stage that a target names."""
    [found] = [stage for stage in stages()[1:] if stage[0][1].endswith(f" AS {name}")]
    return found


def rest_of(stage, name):
    return [rest for instruction, rest in stage if instruction == name]


def copied():
    """Return (source, target) of everything that comes from the project's folder."""
    found = []
    for rest in rest_of(instructions(), "COPY"):
        words = shlex.split(rest)
        if not any(word.startswith("--from=") for word in words):
            *sources, target = [word for word in words if not word.startswith("--")]
            found += [(source.rstrip("/"), target) for source in sources]
    return found


def ignored(path):
    """Return whether .dockerignore keeps a path of the project away; the last pattern that matches it counts."""
    result = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        kept, pattern = pattern.startswith("!"), pattern.lstrip("!")
        parts = Path(path).parts
        prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        anywhere = pattern.removeprefix("**/")
        if any(
            (fnmatch.fnmatch(prefix, pattern) and prefix.count("/") == pattern.count("/"))
            or (pattern.startswith("**/") and fnmatch.fnmatch(Path(prefix).name, anywhere))
            for prefix in prefixes
        ):
            result = not kept
    return result


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout, so nobody knows which files belong to the project")
    return listed.stdout.split()


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_hadolint_would_say_something(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp && apt-get install curl\n", encoding="utf-8")
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DL3007" in done.stdout


def test_every_source_exists_and_reaches_the_builder():
    assert copied()
    for source, _ in copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


def test_the_builder_gets_the_package_whole_and_nothing_else():
    files = tracked()
    folders = {source for source, _ in copied()}
    sent = {file for file in files if not ignored(file)}
    wanted = {file for file in files if file in folders or file.split("/")[0] in folders}
    assert sent == wanted
    assert {"configs/base.yaml", "configs/schema.pbtxt", "bike_pipeline/data/embedded/hour.csv"} <= sent
    for private in (".venv/bin/python", "workspace/metadata.sqlite", ".git/config", "token", "bike_pipeline/x.pyc"):
        assert ignored(private), private


def test_the_image_is_where_the_settings_say():
    settings = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text(encoding="utf-8"))["kubeflow"]
    assert {target for source, target in copied() if source == "configs"} == {f"{settings['project_folder']}/configs/"}
    assert settings["image"] == f"bike-pipeline:{__version__}"
    (setup,) = [rest for rest in rest_of(stage_named("pipeline"), "RUN") if "useradd" in rest]
    for volume in settings["volumes"]:
        assert volume["mount_path"] in setup.split("chmod")[1].split()


def test_all_stages_are_one_debian_and_one_supported_python():
    (tag,) = [rest.partition("=")[2] for rest in rest_of(stages()[0], "ARG") if rest.startswith("PYTHON_TAG=")]
    metadata = importlib.metadata.metadata("bike-pipeline")
    assert SpecifierSet(metadata["Requires-Python"]).contains(tag)
    bases = [rest_of(stage, "FROM")[0].split()[0] for stage in stages()[1:]]
    pythons = ["python:${PYTHON_TAG}-trixie", "python:${PYTHON_TAG}-slim-trixie"]
    assert bases == ["golang:${GO_TAG}-trixie", *pythons, "pipeline", "pipeline"]


def test_the_image_is_not_root_and_installs_nothing():
    # The last stage is what is built where no target is named.
    assert stages()[-1] == [("FROM", "pipeline")]
    last = stage_named("pipeline")
    (user,) = rest_of(last, "USER")
    assert re.fullmatch(r"[1-9][0-9]+:0", user), "a number that Kubernetes can check, in the group that OpenShift gives"
    assert not re.search(r"\b(apt-get|pip|uv|gcc|g\+\+|curl)\b", " ".join(rest_of(last, "RUN")))
    assert not rest_of(last, "ENTRYPOINT")
    assert rest_of(last, "CMD") == ['["bike-pipeline", "--help"]']


def test_the_runtime_that_lightgbm_was_built_for_comes_along():
    (library,) = (Path(sys.prefix) / "lib").glob("python*/site-packages/lightgbm/lib/lib_lightgbm.so")
    assert b"libgomp.so.1" in library.read_bytes()
    folder = "/usr/lib/x86_64-linux-gnu/"
    assert f"--from=build {folder}libgomp.so.1 {folder}" in rest_of(stage_named("pipeline"), "COPY")


def test_workers_of_beam_are_started_as_beam_starts_containers():
    worker, boot = stage_named("beam-worker"), stage_named("boot")
    assert rest_of(worker, "FROM") == ["pipeline AS beam-worker"]
    assert rest_of(worker, "ENTRYPOINT") == ['["/opt/apache/beam/boot"]']
    assert rest_of(worker, "COPY") == ["--from=boot /opt/apache/beam/boot /opt/apache/beam/boot"]
    assert rest_of(worker, "USER")[-1] == rest_of(stage_named("pipeline"), "USER")[-1]
    # It asks pip for Beam, which the environment of the image lacks, and must not make another environment.
    assert rest_of(worker, "RUN") == ["python -m ensurepip"]
    assert rest_of(worker, "ENV") == ["RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1"]
    [pinned_beam] = re.findall(
        r"^apache-beam(?:\[.*\])?==(\S+)", (ROOT / "requirements/base.txt").read_text(), re.MULTILINE
    )
    assert f"BEAM_VERSION={pinned_beam}" in rest_of(boot, "ARG")
    [built] = rest_of(boot, "RUN")
    package, name = job_servers.GO_PROGRAMS["boot"]
    assert f"{job_servers.BEAM_MODULE}/{package}@v${{BEAM_VERSION}}" in built
    assert f"mv /opt/apache/beam/{name} /opt/apache/beam/boot" in built


def test_only_packages_that_are_pinned_by_hash_are_installed():
    installs = re.findall(r"pip install[^;&\n]*", "\n".join(rest_of(instructions(), "RUN")))
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--editable /app" in install, install
    for name in (*IN_IMAGE, "bootstrap"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        assert all("--hash=" in entry for entry in re.split(r"\n(?=\S)", text) if "==" in entry.partition("\n")[0])


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(*names):
    text = "\n".join((ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8") for name in names)
    return {normal(name) for name in re.findall(r"^([\w.-]+)(?:\[\S+\])?==", text, re.MULTILINE)}


def imported():
    """Return the top-level modules that the package and the runners import anywhere."""
    found = set()
    for path in [*(ROOT / "bike_pipeline").rglob("*.py"), *(ROOT / "runners").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"bike_pipeline", "runners"}


def test_the_extras_are_those_that_clusters_need():
    (extras,) = [
        rest.partition("=")[2].strip('"').split() for rest in rest_of(stage_named("build"), "ARG") if "EXTRAS=" in rest
    ]
    assert tuple(extras) == IN_IMAGE[1:]
    assert set(extras) <= set(EXTRAS)


def test_what_the_package_and_the_runners_import_is_in_the_image():
    optional = {module for extra, modules in EXTRAS.items() if extra not in IN_IMAGE for module in modules}
    # NVIDIA's own packages come with the graphics card's software, and are asked for before they are imported.
    optional |= {"cuda", "tensorrt"}
    # In environments of their own, since they need other versions of packages: docs/federated.md, ci.md, feast.md.
    optional |= {"airflow", "feast", "flwr"}
    owners = importlib.metadata.packages_distributions()
    installed = pinned(*IN_IMAGE)
    missing = {
        module: owners.get(module)
        for module in imported() - optional
        if not {normal(owner) for owner in owners.get(module, ())} & installed
    }
    assert missing == {}
