"""The set-up: what it decides, what it refuses and how, and that it does nothing when nothing changed."""

from __future__ import annotations

import ast
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


steps = load("steps")
c_runtime = load("c_runtime")
bootstrap = load("bootstrap")


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def fake_python(folder, name, version, absent=(), base="", glibc="glibc 2.41"):
    answer = {
        "executable": str(folder / name),
        "base": base,
        "version": version,
        "glibc": glibc,
        "absent": list(absent),
        "headers": True,
        "libdir": "",
    }
    return program(folder, name, f"echo '{json.dumps(answer)}'")


def interpreter(glibc=(2, 41), headers=True):
    return bootstrap.Interpreter("/usr/bin/python3.12", (3, 12, 1), glibc, (), headers, "")


@pytest.fixture
def path(tmp_path, monkeypatch):
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    return folder


@pytest.mark.parametrize("name", ["bootstrap", "steps", "c_runtime"])
def test_the_set_up_needs_the_standard_library_only(name):
    tree = ast.parse((TOOLS / f"{name}.py").read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert foreign <= {"steps", "c_runtime"}


class TestFindPython:
    def test_nothing_on_the_path(self, path, capsys):
        with pytest.raises(SystemExit):
            bootstrap.find_python()
        message = capsys.readouterr().err
        assert "the PATH has no usable Python: one of 3.11, 3.12, 3.13" in message
        assert "fix: install one" in message

    def test_says_what_is_wrong_with_each(self, path, capsys):
        fake_python(path, "python3", [3, 9, 18])
        fake_python(path, "python3.11", [3, 11, 2], absent=["ensurepip"])
        with pytest.raises(SystemExit):
            bootstrap.find_python()
        message = capsys.readouterr().err
        assert "python3 is 3.9.18" in message
        assert "python3.11 (3.11.2) lacks ensurepip" in message
        assert "python3-venv" in message

    def test_passes_over_a_shim_of_a_version_that_is_not_there(self, path):
        program(path, "python3", "echo 'version not installed' >&2; exit 127")
        wanted = fake_python(path, "python3.12", [3, 12, 1])
        assert bootstrap.find_python().executable == str(wanted)

    def test_takes_the_one_that_is_asked_for_and_no_other(self, path, capsys):
        fake_python(path, "python3", [3, 12, 1])
        asked = fake_python(path, "mine", [3, 14, 0])
        with pytest.raises(SystemExit):
            bootstrap.find_python(str(asked))
        assert f"PYTHON={asked} has no usable Python" in capsys.readouterr().err

    def test_an_active_environment_stands_for_the_interpreter_below_it(self, path):
        below = fake_python(path, "below", [3, 13, 0], glibc="glibc 2.36")
        fake_python(path, "python3", [3, 13, 0], base=str(below), glibc="glibc 2.41")
        found = bootstrap.find_python()
        assert (found.executable, found.glibc) == (str(below), (2, 36))

    def test_this_interpreter_answers_the_real_questions(self):
        found = bootstrap.probe(sys.executable)
        assert found.version[:2] == sys.version_info[:2]
        assert Path(found.executable).is_relative_to(sys.base_prefix)


class TestCheckMachine:
    @pytest.fixture(autouse=True)
    def _room(self, path, monkeypatch):
        program(path, "g++", "exit 0")
        self.free = 10**12
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: usage(10**12, 0, self.free))

    def test_a_machine_with_everything_passes(self, tmp_path, capsys):
        bootstrap.check_machine(interpreter(), tmp_path / "venv")
        assert capsys.readouterr().err == ""

    def refusal(self, python, tmp_path, capsys):
        with pytest.raises(SystemExit):
            bootstrap.check_machine(python, tmp_path / "venv")
        return capsys.readouterr().err

    def test_no_compiler(self, path, tmp_path, capsys):
        (path / "g++").unlink()
        message = self.refusal(interpreter(), tmp_path, capsys)
        assert "no C++ compiler found" in message
        assert "apt install g++" in message

    def test_no_header_files(self, tmp_path, capsys):
        assert "apt install python3-dev" in self.refusal(interpreter(headers=False), tmp_path, capsys)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has several C libraries")
    def test_another_c_library(self, tmp_path, capsys):
        assert "another C library than glibc" in self.refusal(interpreter(glibc=None), tmp_path, capsys)

    def test_too_little_space(self, tmp_path, capsys):
        self.free = 10**9
        message = self.refusal(interpreter(), tmp_path, capsys)
        assert "1.0 GB are free" in message
        assert "free some space" in message

    def test_another_processor_is_refused_only_where_the_runtime_is_needed(self, path, tmp_path, monkeypatch, capsys):
        program(path, "apt-get", "exit 0")
        program(path, "dpkg", "exit 0")
        release = tmp_path / "os-release"
        release.write_text('PRETTY_NAME="Debian 12"\nVERSION_CODENAME=bookworm\n', encoding="utf-8")
        monkeypatch.setattr(c_runtime, "OS_RELEASE", release)
        monkeypatch.setattr(c_runtime.platform, "machine", lambda: "aarch64")
        bootstrap.check_machine(interpreter(glibc=(2, 39)), tmp_path / "venv")
        message = self.refusal(interpreter(glibc=(2, 36)), tmp_path, capsys)
        assert "Debian 12 (aarch64) has a glibc older than 2.39" in message
        assert "container image" in message
        monkeypatch.setattr(c_runtime.platform, "machine", lambda: "x86_64")
        bootstrap.check_machine(interpreter(glibc=(2, 36)), tmp_path / "venv")


@pytest.mark.parametrize(
    ("glibc", "needed"),
    [((2, 36), True), ((2, 38), True), ((2, 39), False), ((2, 41), False), ((3, 0), False), (None, False)],
)
def test_the_runtime_is_needed_on_an_older_glibc_only(glibc, needed):
    assert c_runtime.is_needed(glibc) is needed


class TestAptSources:
    def test_an_unknown_distribution_is_sent_to_the_image(self, path, tmp_path, monkeypatch, capsys):
        release = tmp_path / "os-release"
        release.write_text('NAME="Rocky"\nPRETTY_NAME="Rocky Linux 9.5"\n', encoding="utf-8")
        monkeypatch.setattr(c_runtime, "OS_RELEASE", release)
        with pytest.raises(SystemExit):
            c_runtime.successor()
        message = capsys.readouterr().err
        assert "Rocky Linux 9.5" in message
        assert "container image" in message

    def test_the_mirror_stays_and_the_suite_changes(self, path):
        rows = (
            "mirror://a/debian/|bookworm|main",
            "mirror://a/debian/|bookworm|contrib",
            "mirror://a/debian/|bookworm-updates|main",
            "mirror://b/security/|bookworm-security|main",
            "mirror://c/debian/|oldstable|main",
        )
        program(path, "apt-get", "\n".join(f"echo '{row}'" for row in rows))
        sources = c_runtime.apt_sources("bookworm", "trixie", [])
        assert sources.splitlines() == ["deb mirror://a/debian/ trixie main", "deb mirror://c/debian/ trixie main"]

    def test_without_package_lists_they_are_read_aside_first(self, path, tmp_path):
        seen = tmp_path / "seen"
        program(
            path,
            "apt-get",
            f'echo "$*" >> {seen}\n'
            f'case "$*" in *update) : > {tmp_path}/lists;; '
            f"*indextargets*) [ ! -e {tmp_path}/lists ] || echo 'mirror://a/debian/|bookworm|main';; esac",
        )
        assert (
            c_runtime.apt_sources("bookworm", "trixie", ["-o", "Dir::Cache=aside"])
            == "deb mirror://a/debian/ trixie main\n"
        )
        calls = seen.read_text(encoding="utf-8").splitlines()
        assert calls[1] == "-o Dir::Cache=aside update"
        assert all(call.startswith("-o Dir::Cache=aside") for call in calls[1:])

    def test_no_source_of_this_release(self, path, capsys):
        program(path, "apt-get", "echo 'mirror://a/|sid|main'")
        with pytest.raises(SystemExit):
            c_runtime.apt_sources("bookworm", "trixie", [])
        assert "no apt source for bookworm main" in capsys.readouterr().err


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A project with an environment whose making and filling is recorded and not done."""
    root = tmp_path / "project"
    (root / "requirements").mkdir(parents=True)
    for name in ("bootstrap", "dev", *bootstrap.EXTRAS):
        (root / "requirements" / f"{name}.txt").write_text(f"{name}==1\n", encoding="utf-8")
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n\n[tool.ruff]\nline-length = 120\n", encoding="utf-8")
    (root / "setup.py").write_text("", encoding="utf-8")
    recipe = root / "recipe.py"
    recipe.write_text("1", encoding="utf-8")
    monkeypatch.setattr(bootstrap, "ROOT", root)
    monkeypatch.setattr(bootstrap, "REQUIREMENTS", root / "requirements")
    monkeypatch.setattr(bootstrap, "RECIPE", [recipe])
    monkeypatch.delenv("PYTHON", raising=False)
    python = fake_python(root, "python3.12", [3, 12, 1])
    monkeypatch.setattr(bootstrap, "find_python", lambda asked=None: bootstrap.probe(asked or str(python)))
    done = []

    def build(venv, found, unfinished):
        bootstrap.clear(venv, unfinished)
        (venv / "bin").mkdir()
        (venv / "bin" / "python").touch()
        done.append("build")

    monkeypatch.setattr(bootstrap, "build", build)
    monkeypatch.setattr(bootstrap, "install", lambda venv, extras: done.append(("install", *extras)))

    def ensure(*extras):
        done.clear()
        bootstrap.ensure(root / ".venv", list(extras))
        return list(done)

    return namedtuple("Tree", "root ensure done")(root, ensure, done)


class TestStamp:
    def test_nothing_is_done_when_nothing_changed(self, tree, monkeypatch):
        assert tree.ensure() == ["build", ("install",)]
        monkeypatch.setattr(bootstrap, "find_python", None)  # not even a look for an interpreter
        assert tree.ensure() == []

    def test_changed_pins_are_brought_in_without_making_it_again(self, tree):
        tree.ensure()
        (tree.root / "requirements" / "dev.txt").write_text("dev==2\n", encoding="utf-8")
        assert tree.ensure() == [("install",)]
        assert tree.ensure() == []

    def test_the_settings_of_linters_and_an_extra_that_is_not_installed_change_nothing(self, tree):
        tree.ensure()
        (tree.root / "requirements" / "exports.txt").write_text("exports==2\n", encoding="utf-8")
        metadata = tree.root / "pyproject.toml"
        metadata.write_text(metadata.read_text(encoding="utf-8").replace("120", "100"), encoding="utf-8")
        assert tree.ensure() == []
        metadata.write_text(metadata.read_text(encoding="utf-8").replace("'x'", "'y'"), encoding="utf-8")
        assert tree.ensure() == [("install",)]

    def test_extras_that_were_asked_for_once_stay(self, tree):
        tree.ensure("kubeflow")
        assert tree.ensure() == []
        assert tree.ensure("exports") == [("install", "exports", "kubeflow")]
        assert tree.ensure("kubeflow") == []

    def test_a_changed_recipe_makes_it_again(self, tree):
        tree.ensure("exports")
        (tree.root / "recipe.py").write_text("2", encoding="utf-8")
        assert tree.ensure() == ["build", ("install", "exports")]

    def test_another_interpreter_makes_it_again_and_is_kept(self, tree, monkeypatch):
        tree.ensure()
        other = fake_python(tree.root, "python3.13", [3, 13, 0])
        monkeypatch.setenv("PYTHON", str(other))
        assert tree.ensure() == ["build", ("install",)]
        assert tree.ensure() == []
        monkeypatch.delenv("PYTHON")
        assert tree.ensure() == []

    def test_an_interpreter_that_went_away_makes_it_again(self, tree, monkeypatch):
        other = fake_python(tree.root, "python3.13", [3, 13, 0])
        monkeypatch.setenv("PYTHON", str(other))
        tree.ensure()
        monkeypatch.delenv("PYTHON")
        other.unlink()
        assert tree.ensure() == ["build", ("install",)]

    @pytest.mark.parametrize("step", ["build", "install"])
    def test_what_is_cut_off_is_made_again_with_its_extras(self, tree, monkeypatch, step):
        tree.ensure()
        (tree.root / "recipe.py").write_text("2", encoding="utf-8")
        genuine = getattr(bootstrap, step)

        def cut_off(*arguments):
            genuine(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(bootstrap, step, cut_off)
        with pytest.raises(KeyboardInterrupt):
            tree.ensure("exports")
        monkeypatch.setattr(bootstrap, step, genuine)
        assert tree.ensure() == ["build", ("install", "exports")]
        assert tree.ensure() == []

    def test_a_cut_off_change_of_interpreter_never_passes_for_the_old_environment(self, tree, monkeypatch):
        tree.ensure()
        other = fake_python(tree.root, "python3.13", [3, 13, 0])
        monkeypatch.setenv("PYTHON", str(other))
        monkeypatch.setattr(bootstrap, "install", lambda *_: (_ for _ in ()).throw(SystemExit(1)))
        with pytest.raises(SystemExit):
            tree.ensure()
        monkeypatch.delenv("PYTHON")
        monkeypatch.setattr(bootstrap, "install", lambda venv, extras: tree.done.append("install"))
        assert tree.ensure() == ["build", "install"]
        assert bootstrap.read_stamp(tree.root / ".venv")["python"] == str(other)

    @pytest.mark.parametrize("content", ["", "{", "[]", "c1550411\n\n"])
    def test_an_unreadable_stamp_makes_it_again(self, tree, content):
        tree.ensure()
        (tree.root / ".venv" / "made-from").write_text(content, encoding="utf-8")
        assert tree.ensure() == ["build", ("install",)]

    def test_a_folder_that_is_no_environment_is_left_alone(self, tree, capsys):
        precious = tree.root / ".venv" / "precious.txt"
        precious.parent.mkdir()
        precious.write_text("mine", encoding="utf-8")
        with pytest.raises(SystemExit):
            tree.ensure()
        assert "is no virtual environment" in capsys.readouterr().err
        assert precious.read_text(encoding="utf-8") == "mine"

    def test_the_project_keeps_its_metadata_above_the_settings_of_its_tools(self):
        before, found, after = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition(bootstrap.TOOL_SETTINGS)
        assert found
        for table in ("[build-system]", "[project]", "[project.optional-dependencies]", "[tool.setuptools"):
            assert table in before
            assert f"\n{table}" not in after


class TestRun:
    def test_a_long_step_gives_signs_of_life(self, monkeypatch, capsys):
        monkeypatch.setattr(steps, "HEARTBEAT", 0.05)
        output = steps.run(["sh", "-c", "echo half way; sleep 0.5"], "sleeping")
        assert output == "half way\n"
        assert "setup:   sleeping: 0 s (half way)" in capsys.readouterr().out

    def test_a_failure_shows_the_end_of_the_output_and_a_fix(self, capsys):
        with pytest.raises(SystemExit):
            steps.run(["sh", "-c", "seq 50; echo 'write: No space left on device' >&2; exit 28"], "unpacking")
        message = capsys.readouterr().err
        assert "unpacking failed with exit code 28" in message
        assert "  | 50" in message
        assert "  | 5\n" not in message
        assert "error: the disk is full" in message

    def test_a_program_that_is_not_there(self, capsys):
        with pytest.raises(SystemExit):
            steps.run(["no-such-program"], "trying")
        assert "trying: cannot run no-such-program" in capsys.readouterr().err

    def test_what_would_lead_an_installation_astray_is_kept_out(self, monkeypatch):
        monkeypatch.setenv("PIP_TARGET", "/elsewhere")
        monkeypatch.setenv("PYTHONPATH", "/elsewhere")
        assert steps.run([sys.executable, "-c", "import os; print('PIP_TARGET' in os.environ)"], "looking") == "False\n"

    @pytest.mark.parametrize(
        ("output", "meaning"),
        [
            ("OSError: [Errno 28] No space left on device", "the disk is full"),
            ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "differs from the one"),
            ("error: Hash mismatch for `absl-py==1.4.0`", "differs from the one"),
            ("NewConnectionError(...): Failed to establish a new connection: Connection refused", "cannot be reached"),
            ("Caused by: dns error: failed to lookup address information", "cannot be reached"),
            ("E: Could not resolve 'mirror'", "cannot be reached"),
            ("invalid peer certificate: UnknownIssuer", "cannot be trusted"),
            ("fatal error: Python.h: No such file or directory", "header files"),
            ("because tensorflow==2.21.0 has no wheels with a matching platform tag", "no build for this platform"),
        ],
    )
    def test_known_failures_are_explained(self, output, meaning):
        what, fix = steps.diagnose(output)
        assert meaning in what
        assert fix

    def test_an_unknown_failure_is_not_explained_away(self):
        assert steps.diagnose("Segmentation fault") is None


def test_uv_learns_what_pip_is_told(tmp_path, monkeypatch):
    listing = (
        ":env:.extra-index-url='first\\nsecond'\n:env:.default-timeout='90'\n"
        "global.index-url='mirror'\nglobal.cert='/bundle.pem'\nglobal.retries='3'\n"
    )
    monkeypatch.setattr(bootstrap, "run", lambda *_, **__: listing)
    for name in bootstrap.PIP_TO_UV.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/mine.pem")
    environment = bootstrap.uv_environment(tmp_path)
    wanted = {
        "UV_DEFAULT_INDEX": "mirror",
        "UV_INDEX": "first second",
        "UV_HTTP_TIMEOUT": "90",
        "SSL_CERT_FILE": "/mine.pem",
    }
    assert {name: environment[name] for name in wanted} == wanted


def test_unknown_extras_are_refused(tmp_path):
    command = [
        sys.executable,
        str(TOOLS / "bootstrap.py"),
        "--venv",
        str(tmp_path / "venv"),
        "--extras",
        "exports torch",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unknown extras: torch" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_second_set_up_waits_for_the_first(tmp_path):
    venv = tmp_path / "venv"
    command = [sys.executable, str(TOOLS / "bootstrap.py"), "--venv", str(venv)]
    with (tmp_path / "venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            command, env={**os.environ, "PYTHON": "none"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert "another set-up of this environment is under way" in second.stdout.readline()
        assert second.poll() is None
        fcntl.flock(lock, fcntl.LOCK_UN)
        _, errors = second.communicate(timeout=60)
    assert "PYTHON=none has no usable Python" in errors
    assert not venv.exists()


def test_the_lock_outlives_a_killed_set_up_as_long_as_its_command_runs(tmp_path):
    code = """
import fcntl, pathlib, sys
sys.path.insert(0, sys.argv[1])
import steps
with open(sys.argv[2], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    steps.kept_open.append(lock.fileno())
    script = "echo $$ > pid.new; mv pid.new pid; exec sleep 300"
    steps.run(["sh", "-c", script], "sleeping", cwd=pathlib.Path(sys.argv[3]))
"""
    arguments = [str(TOOLS), str(tmp_path / "lock"), str(tmp_path)]
    first = subprocess.Popen([sys.executable, "-c", code, *arguments])
    while not (tmp_path / "pid").exists():
        assert first.poll() is None
        time.sleep(0.01)
    orphan = int((tmp_path / "pid").read_text(encoding="utf-8"))
    try:
        first.kill()
        first.wait()
        with (tmp_path / "lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(orphan, signal.SIGKILL)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, str(TOOLS / "bootstrap.py"), "--venv", str(tmp_path / "file" / "venv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "setup: error:" in done.stderr
    assert "Traceback" not in done.stderr
