"""The Make targets that people, pre-commit and CI share."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bike_pipeline import __version__

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = ROOT / "Makefile"
TARGETS = re.findall(r"^([a-z][a-z-]*):", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE)
# Variables of a make that runs these tests, and of the environment, that would reach into the ones below.
OUTER = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "ARGS", "EXTRAS", "UPGRADE", "PYTHON")


def make(*arguments, folder=ROOT, path=None):
    environment = {name: value for name, value in os.environ.items() if name not in OUTER}
    if path is not None:
        environment["PATH"] = str(path)
    command = [shutil.which("make"), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def project(tmp_path):
    """The real Makefile over programs that only write down how they were called."""
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "bootstrap.py").write_text("", encoding="utf-8")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "ruff", "zizmor", "hadolint", "mypy", "lint-imports", "bike-pipeline"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/calls"\nexit 0\n', encoding="utf-8")
        program.chmod(0o755)
    return tmp_path


def calls(project):
    return (project / "calls").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("arguments", [(), ("help",)])
def test_help_lists_every_target_with_a_sentence(arguments):
    done = make(*arguments)
    assert done.returncode == 0
    listed = dict(re.findall(r"^  make (\S+) +(.+)$", done.stdout, re.MULTILINE))
    assert list(listed) == TARGETS
    assert all(re.fullmatch(r"[A-Z].{10,}[.)]", sentence) for sentence in listed.values()), listed
    # The sentences stand in line, however long a target's name is.
    assert len({re.match(r"  make \S+ +", line).end() for line in done.stdout.splitlines()}) == 1


def test_every_target_is_phony():
    assert re.findall(r"^\.PHONY: (\S+)$", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE) == TARGETS


def test_every_target_that_uses_the_environment_makes_it_first():
    rules = re.findall(r"^([a-z][a-z-]*):(.*?)##.*\n((?:\t.*\n)+)", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE)
    using = {
        name: prerequisites.split()
        for name, prerequisites, recipe in rules
        if "$(BIN)" in recipe or "$(MAKE)" in recipe
    }
    assert {"run", "retrain", "test", "lint", "types", "imports", "doctor", "benchmark", "lock"} <= set(using)
    assert all(prerequisites == ["setup"] for prerequisites in using.values()), using


def test_without_any_python_setup_says_so(tmp_path):
    done = make("setup", path=tmp_path)
    assert done.returncode != 0
    assert "no Python 3.8 or newer on the PATH" in done.stderr
    assert "fix: install Python 3.11, 3.12 or 3.13" in done.stderr


def python(folder, name, script):
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def test_a_python3_that_is_too_old_is_passed_over_for_a_newer_one(tmp_path):
    python(tmp_path, "python3", "exit 1")  # what Python 3.7 answers to the question for 3.8
    newer = python(tmp_path, "python3.12", 'case "$1" in -c) exit 0;; *) echo "set up with $0 $1";; esac')
    done = make("setup", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"set up with {newer} tools/bootstrap.py\n"


def test_nothing_but_old_pythons_is_one_error_and_no_traceback(tmp_path):
    python(tmp_path, "python3", "exit 1")
    done = make("setup", path=tmp_path)
    assert done.returncode != 0
    assert "no Python 3.8 or newer on the PATH" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_that_is_named_sets_up_where_the_path_has_none(tmp_path):
    named = python(tmp_path, "mine", 'case "$1" in -c) exit 0;; *) echo "set up with $0";; esac')
    done = make("setup", f"PYTHON={named}", path=tmp_path / "nothing")
    assert done.stdout == f"set up with {named}\n"


def test_nothing_lies_at_the_top_that_no_one_put_there():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git: what belongs to the project is not known")
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
    assert {name.partition("/")[0] for name in listed.splitlines()} == {
        ".ci", ".dockerignore", ".gitattributes", ".github", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md",
        "CONTRIBUTING.md", "Dockerfile", "Jenkinsfile", "LICENSE", "Makefile", "README.md", "benchmarks",
        "bike_pipeline", "cloudbuild.yaml", "configs", "data", "docs", "notebooks", "pyproject.toml", "requirements",
        "runners", "setup.py", "tests", "tools",
    }  # fmt: skip


def test_run_and_retrain_are_the_two_halves(project):
    assert make("run", folder=project).returncode == 0
    assert make("retrain", "ARGS=--no-cache", folder=project).returncode == 0
    assert [call.strip() for call in calls(project)] == [
        "bike-pipeline run --demo first",
        "bike-pipeline run --demo second --no-cache",
    ]


def test_test_runs_every_check_and_is_quiet_about_itself(project):
    done = make("test", folder=project)
    assert done.returncode == 0, done.stderr
    called = [call.split()[0] for call in calls(project)]
    # What fetches databases, the browser, Prometheus and load generators comes first.
    assert called == [
        "python",
        "python",
        "python",
        "python",
        "ruff",
        "ruff",
        "zizmor",
        "hadolint",
        "mypy",
        "lint-imports",
        "python",
    ]
    assert re.findall(r"^  (\w+) +(\w+) +\d+ s$", done.stdout, re.MULTILINE) == [
        ("lint", "ok"),
        ("types", "ok"),
        ("imports", "ok"),
        ("pytest", "ok"),
    ]
    assert "Entering directory" not in done.stdout


@pytest.mark.parametrize(
    ("program", "step"),
    [
        ("ruff", "lint"),
        ("zizmor", "lint"),
        ("hadolint", "lint"),
        ("mypy", "types"),
        ("lint-imports", "imports"),
        ("python", "pytest"),
    ],
)
def test_one_failing_check_fails_the_whole_and_hides_none(project, program, step):
    (project / ".venv" / "bin" / program).write_text("#!/bin/sh\necho 'what is wrong'\nexit 1\n", encoding="utf-8")
    done = make("test", folder=project)
    assert done.returncode != 0
    assert "what is wrong" in done.stdout + done.stderr
    results = dict(re.findall(r"^  (\w+) +(\w+) +\d+ s$", done.stdout, re.MULTILINE))
    assert results == {name: "FAILED" if name == step else "ok" for name in ("lint", "types", "imports", "pytest")}


ENGINES = ("flink", "prism", "boot")
# In their order; one that fails ends it.
DECIDING = (
    "test", "demo", "test-tracking", "test-signing", "test-federated", "test-feast", "test-workflows",
    "test-airflow", "test-lit", "test-rai", "test-opensearch", "test-cluster", "referee",
)  # fmt: skip


@pytest.mark.parametrize("failing", ["", *ENGINES, *DECIDING])
def test_ci_runs_the_tests_and_the_referee_wherever_it_is_called_from(project, failing):
    last = DECIDING.index(failing) + 1 if failing in DECIDING else len(DECIDING)
    steps = [*ENGINES, *DECIDING[:last]]
    if failing == "":
        steps[-1] += " ARGS=--report-absent --timeout 900"
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    (project / ".ci").mkdir()
    shutil.copy(script, project / ".ci" / "run")
    fake = project / "path" / "make"
    fake.parent.mkdir()
    (project / ".cluster-tools").mkdir()
    (project / ".cluster-tools" / "complete").touch()
    fake.write_text(f'#!/bin/sh\necho "make $* in $PWD"\n[ "$1" != "{failing}" ] || exit 7\n', encoding="utf-8")
    fake.chmod(0o755)
    for name in ("mvn", "java", "go"):
        (fake.parent / name).symlink_to("/bin/true")
    environment = {**os.environ, "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [project / ".ci" / "run"], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    called = [line for line in done.stdout.splitlines() if line.startswith("make ")]
    assert len(called) == len(steps)
    assert all(line.startswith(f"make {step}") for line, step in zip(called, steps, strict=True))
    assert all(line.endswith(f" in {project}") for line in called)
    # An engine that cannot be had only leaves tests out.
    assert done.returncode == (7 if failing in DECIDING else 0)
    assert ("Flink's job server cannot be had" in done.stdout) == (failing == "flink")


@pytest.mark.parametrize(
    ("go", "made", "called"),
    [
        (True, "touch .cluster-tools/complete", ["make cluster-tools", "make test-cluster"]),
        (True, "exit 1", ["make cluster-tools"]),
        (False, "touch .cluster-tools/complete", []),
    ],
    ids=["built", "not in time", "no Go"],
)
def test_ci_builds_the_servers_of_kubernetes_where_it_can_and_says_so_where_not(project, go, made, called):
    (project / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", project / ".ci" / "run")
    tools = project / "path"
    tools.mkdir()
    (project / ".cluster-tools").mkdir()
    fake = f'#!/bin/sh\necho "make $*"\n[ "$1" != cluster-tools ] || {{ {made}; }}\n'
    (tools / "make").write_text(fake, encoding="utf-8")
    (tools / "make").chmod(0o755)
    for name in ("bash", "dirname", "env", "sh", "timeout", "touch"):
        (tools / name).symlink_to(shutil.which(name))
    if go:
        (tools / "go").symlink_to("/bin/true")
    done = subprocess.run(
        [project / ".ci" / "run"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("make ") and "cluster" in line] == called
    assert ("the manifests were not applied to any" in done.stdout) == ("make test-cluster" not in called)


def test_the_image_is_built_by_what_is_there_and_its_absence_is_told(project, tmp_path):
    shutil.copy(ROOT / "pyproject.toml", project)
    tools = tmp_path / "only"
    tools.mkdir()
    for name in ("bash", "sed", "make"):
        (tools / name).symlink_to(shutil.which(name))
    done = make("image", folder=project, path=tools)
    assert done.returncode != 0
    assert "neither docker nor podman" in done.stderr
    (tools / "podman").write_text('#!/bin/bash\necho "podman $*"\n', encoding="utf-8")
    (tools / "podman").chmod(0o755)
    done = make("image", "ARGS=--pull", folder=project, path=tools)
    # Without git, as here, the commit is unknown.
    assert done.stdout == f"podman build --build-arg GIT_COMMIT= --tag bike-pipeline:{__version__} --pull .\n"


@pytest.mark.parametrize(
    ("program", "arguments", "called"),
    [
        ("grype", (), "--fail-on high sbom:build/sbom.cdx.json"),
        ("grype", ("IMAGE=bike:1",), "--fail-on high bike:1"),
        ("trivy", (), "sbom build/sbom.cdx.json"),
        ("trivy", ("IMAGE=bike:1", "ARGS=--offline-scan"), "image bike:1 --offline-scan"),
    ],
)
@pytest.mark.parametrize("found", [False, True])
def test_a_scan_asks_who_is_there_and_fails_where_something_was_found(
    project, tmp_path, program, arguments, called, found
):
    tools = tmp_path / "only"
    tools.mkdir()
    for name in ("bash", "make", "mkdir"):
        (tools / name).symlink_to(shutil.which(name))
    shutil.copy(tmp_path / ".venv" / "bin" / "python", tools / "python3")
    done = make("scan", *arguments, folder=project, path=tools)
    assert done.returncode != 0
    assert "neither grype nor trivy is on the PATH, so nothing was looked for" in done.stderr
    (tools / program).write_text(f"#!/bin/bash\nexit {int(found)}\n", encoding="utf-8")
    (tools / program).chmod(0o755)
    done = make("scan", *arguments, folder=project, path=tools)
    assert (done.returncode != 0) == found
    assert re.search(rf"^scan: {program} .*{re.escape(called)}$", done.stdout, re.MULTILINE), done.stdout
    assert ("it found something, or has no database" in done.stderr) == found


def test_pre_commit_and_the_workflow_call_the_same_targets():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    assert entries == ["make lint", "make types", "make imports"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("module", ["bike_pipeline.cli", "bike_pipeline.commands.*"])
def test_the_command_line_loads_nothing_heavy(module):
    heavy = ("apache_beam", "google.protobuf", "keras", "ml_metadata", "numpy", "pandas", "pyarrow", "pydantic", "rich")
    heavy += ("sqlalchemy", "tensorflow", "tensorflow_data_validation", "tensorflow_transform", "tfx", "yaml")
    code = f"""
import importlib, sys
package, _, rest = {module!r}.partition(".*") if {module!r}.endswith("*") else ({module!r}, "", "")
loaded = importlib.import_module(package)
if hasattr(loaded, "__path__"):
    from bike_pipeline.cli import GROUPS
    for name in GROUPS:
        importlib.import_module(f"{{package}}.{{name.lower().replace('-', '_')}}")
print(" ".join(sorted(set({heavy!r}) & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
