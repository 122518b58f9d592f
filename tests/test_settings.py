from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel, ValidationError

from bike_pipeline.commands.set_up import config_command as command
from bike_pipeline.errors import ConfigurationError, ExitCode
from bike_pipeline.settings import BASE_FILE, Settings, load_settings
from bike_pipeline.settings.training import FeedbackSettings

CONFIGS = Path(__file__).resolve().parent / "configs"
VALID = sorted((CONFIGS / "valid").glob("*.yaml"))
INVALID = sorted((CONFIGS / "invalid").glob("*.yaml"))
EXPECTS = "# expect: "


def ids(paths):
    return [path.stem for path in paths]


def flat(values, path=()):
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from flat(value, (*path, key))
    else:
        yield path, values


@pytest.mark.parametrize("path", VALID, ids=ids(VALID))
def test_a_valid_overlay_wins_where_it_speaks_and_nowhere_else(path):
    base = dict(flat(load_settings().model_dump(mode="json")))
    said = dict(flat(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
    got = dict(flat(load_settings(path).model_dump(mode="json")))
    for key, value in got.items():
        if key in said and not isinstance(value, list):
            assert value == said[key], key
        elif key not in said and key in base:
            assert value == base[key], key
        elif key not in said:
            assert key[:-1] in {other[:-1] for other in said}, f"{key} comes from nowhere"
    assert {key for key in said if key} <= set(got)


@pytest.mark.parametrize("path", INVALID, ids=ids(INVALID))
def test_an_invalid_overlay_is_refused_and_says_why_and_where(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(EXPECTS)
    with pytest.raises(ConfigurationError) as error:
        load_settings(path)
    assert first.removeprefix(EXPECTS) in str(error.value)
    assert str(path) in error.value.where
    assert error.value.fix
    assert error.value.exit_code == ExitCode.CONFIGURATION


def test_there_are_examples_of_both_kinds():
    assert len(VALID) >= 5
    assert len(INVALID) >= 25


def test_broken_yaml_is_named_with_its_line(tmp_path):
    (tmp_path / "broken.yaml").write_text("seed: 4\n\ntraining: {epochs: 3\nseed: 5\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        load_settings(tmp_path / "broken.yaml")
    assert error.value.where.endswith("broken.yaml:4")


def test_a_file_that_is_not_there_or_no_text_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigurationError, match="no such configuration file"):
        load_settings(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigurationError, match="cannot read it"):
        load_settings(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigurationError, match=r"cannot read it|not valid YAML"):
        load_settings(tmp_path / "binary.yaml")


def test_the_base_file_names_every_setting():
    base = yaml.safe_load(BASE_FILE.read_text(encoding="utf-8"))

    def compare(model, values, path):
        assert set(values) == set(model.model_fields), path
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                compare(field.annotation, values[name], f"{path}.{name}")

    compare(Settings, base, "settings")


@pytest.mark.parametrize("section", ["data", "gate", "training", "evaluation", "serving", "beam", "kubeflow", "seed"])
def test_no_setting_has_a_hidden_default(section, tmp_path, monkeypatch):
    values = yaml.safe_load(BASE_FILE.read_text(encoding="utf-8"))
    del values[section]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setattr("bike_pipeline.settings.tree.BASE_FILE", tmp_path / "base.yaml")
    with pytest.raises(ConfigurationError, match=f"the setting '{section}' is missing"):
        load_settings()


def test_single_values_go_over_the_overlay_in_their_order():
    overlay = CONFIGS / "valid" / "single-values.yaml"
    settings = load_settings(overlay, ("training.epochs=4", "training.epochs=5", "training.hidden_units=[16, 8]"))
    assert settings.training.epochs == 5
    assert settings.training.hidden_units == (16, 8)
    assert settings.training.warm_start
    assert settings.training.batch_size == load_settings().training.batch_size
    assert settings.seed == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training.epochs", "is not key=value"),
        ("=5", "is not key=value"),
        ("a: b", "is not key=value"),
        ("training.epochs=[1", "not valid YAML"),
        ("training.epoch=3", "unknown setting 'training.epoch'"),
        ("training=3", "training: Input should be"),
        ("training.epochs.more=3", "training.epochs: Input should be"),
        ("training..epochs=3", "unknown setting 'training.'"),
    ],
)
def test_a_wrong_single_value_is_refused(text, said):
    with pytest.raises(ConfigurationError) as error:
        load_settings(None, (text,))
    assert said in error.value.what
    assert "--set" in error.value.where


def test_all_that_is_wrong_is_counted():
    with pytest.raises(ConfigurationError, match=r"\(and 1 more\)"):
        load_settings(None, ("training.epochs=0", "training.batch_size=0"))


def test_settings_cannot_be_changed_once_they_are_read():
    settings = load_settings()
    for section, name in ((settings, "seed"), (settings.training, "epochs"), (settings.evaluation, "min_rows")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, 1)


def test_paths_follow_the_workspace_unless_they_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, ("workspace=here",))
    assert settings.workspace_path == tmp_path / "here"
    assert settings.store_uri == str(tmp_path / "here" / "spans")
    assert settings.serving_path == str(tmp_path / "here" / "serving" / "bike_demand")
    assert settings.schema_path.is_file()
    assert load_settings(CONFIGS / "valid" / "tables-and-lists.yaml").store_uri == "s3://bucket/spans"
    assert load_settings(CONFIGS / "valid" / "mounted-serving-folder.yaml").serving_path == "/models/bikes.v2"


@pytest.mark.parametrize("path", VALID, ids=ids(VALID))
def test_what_config_show_prints_loads_again_as_the_same(path, tmp_path):
    done = CliRunner().invoke(command, ["show", "--config", str(path), "--set", "training.dropout=0.25"])
    assert done.exit_code == 0, done.output
    printed = tmp_path / "printed.yaml"
    printed.write_text(done.output, encoding="utf-8")
    assert load_settings(printed) == load_settings(path, ("training.dropout=0.25",))


def test_config_schema_is_json_that_names_every_setting():
    done = CliRunner().invoke(command, ["schema"])
    assert done.exit_code == 0, done.output
    schema = json.loads(done.output)
    assert schema["additionalProperties"] is False

    def described(part):
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        return {
            name: described(inner) if "$ref" in inner else None for name, inner in part.get("properties", {}).items()
        }

    wanted = load_settings().model_dump()
    names = described(schema)
    assert set(names) == set(wanted)
    for section in ("data", "gate", "training", "evaluation", "serving", "beam"):
        assert set(names[section]) == set(wanted[section])


def test_quantiles_have_names_of_their_own_and_the_order_of_their_levels(tmp_path):
    overlay = tmp_path / "own.yaml"
    overlay.write_text("training: {feedback: {quantiles: {upper: 0.9, p9: 0.09, median: 0.5}}}")
    own = {"p9": 0.09, "median": 0.5, "upper": 0.9}
    assert list(load_settings(overlay).training.feedback.quantiles.items()) == list(own.items())
    # As they come to the Trainer.
    by_name = json.loads(json.dumps(load_settings(overlay).training.feedback.model_dump(), sort_keys=True))
    assert list(FeedbackSettings.model_validate(by_name).quantiles.items()) == list(own.items())
    one = load_settings(None, ("training.feedback.quantiles.p05=0.02",)).training.feedback.quantiles
    assert list(one.items()) == [("p05", 0.02), ("p10", 0.1), ("p50", 0.5), ("p90", 0.9), ("p95", 0.95)]


@pytest.mark.parametrize(
    ("quantiles", "said"),
    [
        ("{low: 0.1, cnt: 0.9}", "cnt is the name of a column"),
        ("{low: 0.1, temp: 0.9}", "temp is the name of a column"),
        ("{low: 0.1, lowest: 0.1}", "no two of one level"),
    ],
)
def test_quantiles_that_cannot_stand_beside_the_rows_are_refused(quantiles, said):
    text = f"training.feedback.quantiles={quantiles}"
    with pytest.raises(ConfigurationError, match=said):
        load_settings(None, (text,))
