"""When the set-up makes an environment, brings it up to date, or does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple

import pytest

from bike_pipeline import extras
from tests.set_up.programs import ROOT, TOOLS, bootstrap, fake_python


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


def test_every_extra_that_the_product_names_can_be_set_up():
    assert set(bootstrap.EXTRAS) == set(extras.EXTRAS)


def test_unknown_extras_are_refused(tmp_path):
    command = [
        sys.executable,
        str(TOOLS / "bootstrap.py"),
        "--venv",
        str(tmp_path / "venv"),
        "--extras",
        "exports no-such",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unknown extras: no-such" in done.stderr
    assert not (tmp_path / "venv").exists()


class TestInstall:
    @pytest.fixture
    def commands(self, monkeypatch):
        done = []
        monkeypatch.setattr(bootstrap, "uv_environment", lambda venv: {})
        monkeypatch.setattr(bootstrap, "run", lambda command, doing, **_: done.append((doing, command)))
        return done

    def test_byte_code_is_left_to_the_first_import(self, commands, tmp_path, monkeypatch, capsys):
        monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        bootstrap.install(tmp_path, [])
        assert [doing for doing, _ in commands] == ["installing", "installing the project"]
        assert not any("--compile-bytecode" in command for _, command in commands)
        assert "1.2 GB to download" in capsys.readouterr().out

    def test_where_python_may_not_write_it_it_is_a_step_that_says_so(self, commands, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        bootstrap.install(tmp_path, [])
        assert [doing for doing, command in commands if "--compile-bytecode" in command] == ["writing byte code"]
        assert "writing byte code of every package" in capsys.readouterr().out


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, str(TOOLS / "bootstrap.py"), "--venv", str(tmp_path / "file" / "venv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "setup: error:" in done.stderr
    assert "Traceback" not in done.stderr
