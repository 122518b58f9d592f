"""How a run was called, told without its secrets."""

from __future__ import annotations

import pytest

from bike_pipeline.lineage.records.trigger import command_line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/usr/bin/bike-pipeline", "run", "--demo", "second"], "bike-pipeline run --demo second"),
        (["bike-pipeline"], "bike-pipeline"),
        (["src/bike_pipeline/cli.py", "run", "--config", "my file.yaml"], "bike-pipeline run --config 'my file.yaml'"),
        (["bike-pipeline", "run", "--set", "a.b=hidden", "--json"], "bike-pipeline run --set a.b=… --json"),
        (["bike-pipeline", "run", "--set=a.b=hidden"], "bike-pipeline run --set=a.b=…"),
        (["bike-pipeline", "run", "--set", "hidden"], "bike-pipeline run --set …"),
        (["bike-pipeline", "run", "--config", "https://me:hidden@h/c"], "bike-pipeline run --config https://h/c"),
        (["/opt/pytest", "run", "--demo", "second"], ""),
        (["elsewhere/cli.py", "run"], ""),
    ],
)
def test_it_is_one_line_without_values_of_settings(argv: list[str], said: str) -> None:
    assert command_line(argv) == said


def test_without_arguments_it_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bike-pipeline", "run"])
    assert command_line() == "bike-pipeline run"
