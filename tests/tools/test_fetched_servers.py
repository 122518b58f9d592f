"""Servers that tests fetch: where they are looked for, and what is said where they are not."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import monitoring_servers
import opensearch_node


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    """A path on which no program is."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_what_is_installed_comes_before_what_was_fetched(nothing_installed, tmp_path):
    assert monitoring_servers.find("promtool", tmp_path) is None
    fetched = program(tmp_path / "usr" / "bin" / "promtool")
    assert monitoring_servers.find("promtool", tmp_path) == fetched
    installed = program(nothing_installed / "promtool")
    assert monitoring_servers.find("promtool", tmp_path) == installed


def test_a_program_by_its_makers_name_is_found_too(nothing_installed, tmp_path):
    installed = program(nothing_installed / "alertmanager")
    assert monitoring_servers.command("prometheus-alertmanager", tmp_path / "fetched") == [str(installed)]


def test_where_it_cannot_have_its_own_view_alertmanager_is_not_there(nothing_installed, tmp_path):
    if monitoring_servers.SHARED.is_dir():
        pytest.skip("Prometheus is installed on this machine")
    program(tmp_path / "usr" / "bin" / "prometheus-alertmanager")
    assert monitoring_servers.find("prometheus-alertmanager", tmp_path)
    # `unshare` is not on the path.
    assert monitoring_servers.command("prometheus-alertmanager", tmp_path) is None


def test_without_apt_one_line_a_program_says_that_its_tests_are_skipped(nothing_installed, tmp_path, capsys):
    monitoring_servers.main(tmp_path / "fetched")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(monitoring_servers.PACKAGES)
    assert all("not to be had here (there is no apt-get" in line for line in lines)


def test_opensearch_says_what_it_lacks(nothing_installed, tmp_path):
    assert "mvn is not installed" in opensearch_node.fetch(tmp_path / "opensearch")
    program(nothing_installed / "mvn")
    assert "javac is not installed" in opensearch_node.fetch(tmp_path / "opensearch")
    assert opensearch_node.command(tmp_path, 9200, tmp_path / "opensearch") is None
