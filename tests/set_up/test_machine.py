"""What the set-up asks of a machine: a Python, a compiler, space, and a C runtime that is new enough."""

from __future__ import annotations

import ast
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from tests.set_up.programs import TOOLS, bootstrap, c_runtime, disk_space, fake_python, interpreter, program


@pytest.mark.parametrize("name", ["bootstrap", "steps", "c_runtime", "disk_space"])
def test_the_set_up_needs_the_standard_library_only(name):
    tree = ast.parse((TOOLS / f"{name}.py").read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert foreign <= {"steps", "c_runtime", "disk_space"}


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
        # What is missing is named first, not a whole Python.
        assert "fix: install what it lacks (Debian, Ubuntu: `apt install python3-venv`)" in message

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

    @pytest.mark.parametrize(("kept_from", "fits"), [("", True), ("1", False)])
    def test_what_is_asked_for_covers_the_byte_code_that_is_written(self, tmp_path, monkeypatch, kept_from, fits):
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", kept_from)
        self.free = 4.9e9
        if fits:
            disk_space.check(tmp_path / "venv")
        else:
            with pytest.raises(SystemExit):
                disk_space.check(tmp_path / "venv")

    def test_a_download_cache_on_a_disk_of_its_own_is_asked_for_too(self, path, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("UV_CACHE_DIR", "/proc/uv")
        free = {"/proc": 10**9}
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda at: usage(0, 0, free.get(str(at), 10**12)))
        message = self.refusal(interpreter(), tmp_path, capsys)
        assert "1.0 GB are free in /proc; the download cache needs about 4.4 GB" in message
        assert "UV_CACHE_DIR" in message

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
