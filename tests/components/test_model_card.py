"""A candidate's card: whole, the same bytes for the same model and evaluation, and honest about what is not known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bike_pipeline import features
from bike_pipeline.components.artifact_types import ModelCard
from bike_pipeline.components.model_card import ModelCardDriver, ModelCardExecutor
from bike_pipeline.errors import DataError
from bike_pipeline.lineage.reports import model_card
from bike_pipeline.lineage.store.metadata_store import Lineage
from tests.components.pushing import DriverConnection
from tests.lineage.test_run_page import Page
from tests.lineage.world import Runs, report


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two runs; only read."""
    return Runs(tmp_path_factory.mktemp("world")).two()


def driven(runs: Runs, number: int = 1) -> Any:
    """Return the output artifact as the driver leaves it."""
    information = SimpleNamespace(
        input_dict={"model": [runs.models[number]]},
        output_dict={"model_card": [ModelCard()]},
        exec_properties={"store_uri": runs.settings.store_uri},
    )
    connection = DriverConnection(runs.recorder)
    result = ModelCardDriver(connection).run(information)  # type: ignore[arg-type]
    artifact = ModelCard()
    artifact.set_mlmd_artifact(result.output_artifacts["model_card"].artifacts[0])
    return artifact


@pytest.fixture
def inputs(tmp_path: Path, exported: Any, examples: Any, schema: Any) -> dict[str, Any]:
    """A small real model with an evaluation that blessed it."""
    from tfx.types import standard_artifacts

    model, evaluation = standard_artifacts.Model(), standard_artifacts.ModelEvaluation()
    model.uri, evaluation.uri = str(tmp_path / "model"), str(tmp_path / "evaluation")
    shutil.copytree(exported.path, Path(model.uri) / "Format-Serving")
    Path(evaluation.uri).mkdir()
    (Path(evaluation.uri) / "decisions.json").write_text(json.dumps(report(31.5)))
    return {"model": [model], "evaluation": [evaluation], "examples": [examples], "schema": [schema]}


def written(runs: Runs, inputs: dict[str, Any], folder: Path, **parameters: int) -> Any:
    """Run driver and executor; return the artifact."""
    output = driven(runs)
    output.uri = str(folder)
    properties = {"rows": 100, "repeats": 2, "seed": 5, **parameters}
    ModelCardExecutor().Do(inputs, {"model_card": [output]}, properties)
    return output


def test_the_card_tells_the_energy_that_was_measured(runs: Runs, inputs: dict[str, Any], tmp_path: Path) -> None:
    (Path(inputs["model"][0].uri) / "energy.json").write_text('{"energy_kwh": 0.0012, "energy_source": "a meter"}')
    card = model_card.read(written(runs, inputs, tmp_path / "card").uri)
    assert card is not None
    assert card["training"]["energy_kwh"] == 0.0012
    assert card["training"]["seconds"] >= 0
    assert "0.0012 kWh" in (tmp_path / "card" / "model_card.md").read_text()


def test_the_card_tells_data_metrics_explanations_and_lineage(
    runs: Runs, inputs: dict[str, Any], tmp_path: Path
) -> None:
    output = written(runs, inputs, tmp_path / "card")
    card = model_card.read(output.uri)
    assert card is not None
    assert card["title"] == f"model {runs.models[1].id}"
    history, newest = card["spans"]
    assert (history["role"], newest["role"]) == ("history", "train, eval")
    assert history["hours"] == "2011-01-01 00:00 to 2011-12-31 23:00"
    stored = runs.spans.get(2, 1).manifest
    assert newest["rows"] == {"train": stored.rows.train, "eval": stored.rows.eval}
    assert dict(card["facts"])["run"] == "run-2"
    assert card["missing"] == []
    # What this evaluation decided, and not what the store has of another one of the same model.
    assert card["gates"]["decisions"][0]["value"] == card["metrics"][0]["mae"] == 31.5
    explanations = card["explanations"]
    assert {entry["name"] for entry in explanations["inputs"]} == {f.name for f in features.MODEL_INPUTS}
    assert 100 <= explanations["rows"] < 200
    assert explanations["inputs"][0]["mae_increase"] > 0
    assert card["training"]["seconds"] >= 0
    most = explanations["inputs"][0]["name"]
    assert output.get_string_custom_property("summary").startswith(f"MAE without {most} +")


def test_html_and_markdown_say_the_same_as_the_json(runs: Runs, inputs: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(written(runs, inputs, tmp_path / "card").uri)
    card = json.loads((folder / model_card.JSON_FILE).read_text())
    page = Page((folder / model_card.HTML_FILE).read_text())
    markdown = (folder / model_card.MARKDOWN_FILE).read_text()
    assert page.loads == []
    told = [card["overview"], *card["intended_uses"], *card["out_of_scope_uses"], *card["limitations"]]
    told += ["mae, winter: 31.5 on 900 rows.", "hourly mean 60.0, seasonal naive 66.0."]
    told += [card["spans"][0]["hours"], card["facts"][1][1], "mae, overall: 31.5"]
    told += [f"{entry['mae_increase']:,.2f}" for entry in card["explanations"]["inputs"][:3]]
    assert [text for text in told if text not in page.text] == []
    assert [text for text in told if text not in markdown] == []
    assert "**blessed**" in markdown
    assert [line for line in markdown.splitlines() if line.startswith("|") and not line.endswith("|")] == []


def test_the_same_model_and_evaluation_give_the_same_bytes(runs: Runs, inputs: dict[str, Any], tmp_path: Path) -> None:
    one, again, other = (
        written(runs, inputs, tmp_path / name, seed=seed) for name, seed in (("one", 5), ("again", 5), ("other", 6))
    )

    def content(artifact: Any) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path(artifact.uri).iterdir()}

    assert set(content(one)) == {"model_card.json", "model_card.md", "model_card.html"}
    assert content(one) == content(again)
    assert content(one) != content(other)


def test_a_candidate_that_is_not_blessed_has_a_card_that_says_so(
    runs: Runs, inputs: dict[str, Any], tmp_path: Path
) -> None:
    decided = Path(inputs["evaluation"][0].uri) / "decisions.json"
    decided.write_text(json.dumps({**report(99.0), "blessed": False}))
    folder = Path(written(runs, inputs, tmp_path / "card").uri)
    assert "NOT blessed: it must not serve" in Page((folder / model_card.HTML_FILE).read_text()).text
    assert "**NOT blessed: it must not serve**" in (folder / model_card.MARKDOWN_FILE).read_text()


def test_without_rows_there_is_no_card(
    runs: Runs, inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bike_pipeline.modeling.rows.readable_files", lambda _: [])
    with pytest.raises(DataError, match="ModelCard: there are no examples to read"):
        written(runs, inputs, tmp_path / "card")


def test_the_card_of_a_model_holds_what_the_stage_measured_of_it(
    runs: Runs, inputs: dict[str, Any], tmp_path: Path
) -> None:
    own = Runs(tmp_path / "own").two()
    lineage = Lineage(own.recorder.store)
    assert model_card.measurements_of(lineage, own.models[1].id) is None
    card = written(runs, inputs, tmp_path / "card")
    recorded = own.recorder.artifact("bike.ModelCard", card.uri)
    own.recorder.execution("ModelCard", "run-2", {"model": own.models[1]}, {"model_card": recorded})
    measured = model_card.measurements_of(lineage, own.models[1].id)
    assert measured is not None
    assert measured["explanations"]["seed"] == 5
    (Path(card.uri) / "model_card.json").write_text("{")
    assert model_card.measurements_of(lineage, own.models[1].id) is None


def test_markdown_takes_values_for_text() -> None:
    record = {"title": "a|b *c* <d>", "facts": [["called by", "x\n| y |"]], "spans": [], "gates": None,
              "metrics": None, "settings": [], "missing": ["the `run`"]}  # fmt: skip
    text = model_card.as_markdown(model_card.card_of(record))
    assert text.startswith("# Model card: a\\|b \\*c\\* \\<d\\>\n")
    assert "| called by | x \\| y \\| |" in text
    assert "- the \\`run\\`" in text
    assert "It was never evaluated." in text
    assert "It was not explained." in text
