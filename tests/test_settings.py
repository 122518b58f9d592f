"""Settings: what loads, what is refused and how it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.settings import BASE_FILE, Settings, load_settings

CONFIGS = Path(__file__).parent / "configs"


@pytest.mark.parametrize("path", sorted((CONFIGS / "valid").glob("*.yaml")), ids=lambda path: path.stem)
def test_valid(path: Path) -> None:
    overlay = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    loaded = load_settings(path).model_dump(mode="json")
    for section, values in overlay.items():
        if isinstance(values, dict):
            for key, value in values.items():
                assert loaded[section][key] == value or isinstance(value, dict | list)
        else:
            assert loaded[section] == values


@pytest.mark.parametrize("path", sorted((CONFIGS / "invalid").glob("*.yaml")), ids=lambda path: path.stem)
def test_invalid(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# expect: ")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path)
    assert expected in str(caught.value)
    assert path.name in caught.value.where
    assert caught.value.fix


def test_missing_file() -> None:
    with pytest.raises(ConfigurationError, match="no such configuration file"):
        load_settings("absent.yaml")


def test_assignments_win_over_the_file(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("training: {epochs: 3, batch_size: 64}\n", encoding="utf-8")
    settings = load_settings(overlay, ("training.epochs=5", "seed=7"))
    assert (settings.training.epochs, settings.training.batch_size, settings.seed) == (5, 64, 7)


@pytest.mark.parametrize("text", ["training.epochs", "=3", "a: b"])
def test_assignment_without_key_or_value(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not key=value"):
        load_settings(assignments=(text,))


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.training.epochs = 3  # type: ignore[misc]


def test_base_file_names_every_setting() -> None:
    base = yaml.safe_load(BASE_FILE.read_text(encoding="utf-8"))

    def names(model: type[object], values: dict[str, object]) -> None:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            assert name in values, name
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                section = values[name]
                assert isinstance(section, dict)
                names(field.annotation, section)

    names(Settings, base)


def test_what_is_dumped_loads_again(tmp_path: Path) -> None:
    settings = load_settings(assignments=("training.epochs=5",))
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    assert load_settings(dumped) == settings


def test_schema_names_every_section() -> None:
    schema = json.loads(json.dumps(Settings.model_json_schema()))
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert schema["additionalProperties"] is False
