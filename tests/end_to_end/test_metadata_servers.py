"""The whole pipeline on a real metadata server: two workspaces at once, the server lost in the middle, and back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import database_servers
from tests.database_servers import ACCOUNT, PASSWORD, Server
from tests.end_to_end.conftest import Called, Product

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class OnServer(Product):
    """The product on one workspace, with its metadata in a server."""

    setting: str = ""

    def command(self, *arguments: str) -> list[str]:
        """Return the command; the server goes with it where the command takes settings."""
        command = super().command(*arguments)
        return [*command, "--set", self.setting] if "--set" in command else command

    def environment(self) -> dict[str, str]:
        """Return the environment with the account."""
        return {**super().environment(), **ACCOUNT}

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line and go on."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.source, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A MariaDB server."""
    with database_servers.mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, mysql: Server) -> tuple[list[OnServer], list[Called]]:
    """Two workspaces that ran at once on one server, from an empty store, and what both runs came to."""
    products = [OnServer(tmp_path_factory.mktemp(name) / "workspace", setting=mysql.setting) for name in "ab"]
    for product in products:
        assert product.call("runs").code == 12
    running = [product.begin("run", "--demo", "first", "--json", "--set", f"seed={number}")
               for number, product in enumerate(products, 1)]  # fmt: skip
    ended = []
    for process in running:
        out, err = process.communicate(timeout=600)
        ended.append(Called(process.returncode, out, err))
    return products, ended


def test_two_runs_at_once_do_not_touch_each_other(two: tuple[list[OnServer], list[Called]]) -> None:
    products, ended = two
    for product, run in zip(products, ended, strict=True):
        assert run.code == 0, run.err
        assert set(run.states.values()) == {"done"}
        # Nothing was there to be held against: the other workspace's model serves elsewhere.
        assert run.result["decisions"]["baseline"]["state"] == "none"
        assert product.versions() == [str(run.result["pushed_version"])]
        assert not (product.workspace / "metadata.sqlite").exists()
    listed = json.loads(products[0].call("runs", "--json").out)
    assert sorted(run["run_id"] for run in listed) == sorted(run.result["run_id"] for run in ended)
    assert {run["state"] for run in listed} == {"done"}
    served = [
        [model["served_version"] for model in json.loads(product.call("models", "--json").out) if model["serving"]]
        for product in products
    ]
    assert served == [[run.result["pushed_version"]] for run in ended]


def test_no_file_holds_the_password(two: tuple[list[OnServer], list[Called]]) -> None:
    secret = PASSWORD.encode()
    for product in two[0]:
        for path in product.workspace.rglob("*"):
            assert not path.is_file() or secret not in path.read_bytes(), path


def test_the_server_lost_in_the_middle(two: tuple[list[OnServer], list[Called]], mysql: Server) -> None:
    product, before = two[0][0], two[1][0].result
    again = product.call("run", "--json", "--set", "seed=1")
    assert set(again.states.values()) == {"cached"}, again.err
    with product.begin("run", "--set", "seed=3") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Transform"):
                mysql.stop()
        assert process.stderr is not None
        said = process.stderr.read().strip().splitlines()
    assert process.returncode == 12, said
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert "the connection was lost" in said[0]
    assert product.versions() == [str(before["pushed_version"])]
    gone = product.call("models")
    assert gone.code == 12
    assert len(gone.err.strip().splitlines()) == 1
    assert "cannot be reached" in gone.err
    mysql.start()
    resumed = product.call("run", "--json", "--set", "seed=3")
    assert resumed.code in (0, 6), resumed.err
    assert {resumed.states[name] for name in ("CsvExampleGen", "StatisticsGen", "Transform")} == {"cached"}
    assert {resumed.states[name] for name in ("Trainer", "Evaluator", "Pusher")} == {"done"}
    baseline = resumed.result["decisions"]["baseline"]
    assert (baseline["state"], baseline["serving_version"]) == ("found", before["pushed_version"])
    states = {run["run_id"]: run["state"] for run in json.loads(product.call("runs", "--json").out)}
    assert "running" not in states.values()
