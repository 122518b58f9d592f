"""Rows from a real Feast repository, as they were known at each hour, and past weather for its online store."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from bike_pipeline import features
from bike_pipeline.commands.data import data_command
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.data.ingest import ingest
from bike_pipeline.data.past_weather import with_optional_inputs
from bike_pipeline.data.sources import feast_repository
from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError, MissingExtraError
from bike_pipeline.settings import Settings, load_settings
from tests import feast_repository as repositories

ZONE = "America/New_York"
WEATHER = ("weathersit", "temp", "atemp", "hum", "windspeed")
HOURS = 24 * 20
# Published half an hour late, and at the very beginning of its hour.
LATE, IN_TIME = 30, 31
MORE = """
corrected = FeatureView(
    name="corrected", entities=[city], schema=[Field(name="temp", dtype=Float32)],
    source=FileSource(path="data/weather.parquet", timestamp_field="published", created_timestamp_column="created"),
)
partial = FeatureView(
    name="partial", entities=[city], schema=[Field(name="temp", dtype=Float32), Field(name="hum", dtype=Float32)],
    source=FileSource(path="data/weather.parquet", timestamp_field="published"),
)
"""


def hours() -> list[dict[str, Any]]:
    """Return the first hours of 2011 as plain values."""
    rows = list(csv.DictReader(io.StringIO(embedded_bytes().decode())))[:HOURS]
    kinds = {"int": int, "float": float, "date": str}
    return [{name: kinds[features.BY_NAME[name].kind](row[name]) for name in features.COLUMNS} for row in rows]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's repository with the weather of some hours, and beside it the entities that it is joined to."""
    repositories.python()
    folder = tmp_path_factory.mktemp("feast") / "repository"
    rows = hours()
    began = [datetime.fromisoformat(row["dteday"]) + timedelta(hours=row["hr"]) for row in rows]
    published = [moment.replace(tzinfo=ZoneInfo(ZONE)).astimezone(UTC) for moment in began]
    published[LATE] += timedelta(minutes=30)
    weather = {name: [row[name] for row in rows] for name in WEATHER}
    weather["temp"][LATE] = 0.99
    table = {"city": ["dc"] * HOURS, "published": published, "created": published, **weather}
    (folder / "data").mkdir(parents=True)
    parquet.write_table(pa.table(table), folder / "data" / "weather.parquet")
    one = {"hour": ["-"], "event_timestamp": [published[0]], "day": [1]}
    means = {f.name: pa.array([0.0], pa.float32()) for f in features.OPTIONAL_INPUTS if f.name != "day"}
    parquet.write_table(pa.table({**one, **means}), folder / "data" / "past_weather.parquet")
    repositories.make(folder, MORE, "city, hour, weather, training, past_weather, corrected, partial")
    known = [name for name in features.COLUMNS if name not in WEATHER]
    entities = {"city": ["dc"] * HOURS, **{name: [row[name] for row in rows] for name in known}}
    # In whatever order they come; a time stamp of the file's own is not believed.
    shuffled = pa.table({**entities, "event_timestamp": [datetime(2030, 1, 1, tzinfo=UTC)] * HOURS})
    parquet.write_table(shuffled.take(pa.array(reversed(range(HOURS)))), folder.parent / "entities.parquet")
    parquet.write_table(shuffled.drop_columns("city"), folder.parent / "without.parquet")
    return folder


def settings_at(workspace: Path) -> Settings:
    return load_settings(assignments=(f"workspace={workspace}",))


@pytest.mark.slow
def test_an_ingest_takes_what_was_known_when_each_hour_began(repository: Path, tmp_path: Path) -> None:
    entities, settings = repository.parent / "entities.parquet", settings_at(tmp_path)
    added = ingest(settings, f"feast://{repository}/training?entities={entities}&zone={ZONE}")
    source = added.version.manifest.source
    assert (source.kind, source.location.partition("?")[0]) == ("feast", f"feast://{repository}/training")
    rows = SpanStore(settings.store_uri).read(added.version.span, added.version.version).to_pylist()
    expected = hours()
    assert len(rows) == HOURS
    for place, (row, truth) in enumerate(zip(rows, expected, strict=True)):
        # What was published half an hour into the hour is not seen before the next one has its own value.
        known = expected[place - 1] if place == LATE else truth
        assert {name: row[name] for name in WEATHER} == pytest.approx({name: known[name] for name in WEATHER}, abs=1e-6)
        assert (str(row["dteday"]), row["hr"], row["cnt"]) == (truth["dteday"], truth["hr"], truth["cnt"])
    assert rows[IN_TIME]["temp"] != pytest.approx(0.99)


@pytest.mark.slow
def test_in_another_zone_the_hours_are_others(repository: Path) -> None:
    # Five hours earlier in UTC: the first five hours have no value yet, and the others that of five hours before.
    rows, _ = read_source(f"feast://{repository}/weather?entities={repository.parent / 'entities.parquet'}")
    found = rows.table.column("temp").to_pylist()
    assert len(found) == HOURS
    assert [value is None or math.isnan(value) for value in found[:6]] == [True] * 5 + [False]
    assert found[10] == pytest.approx(hours()[5]["temp"], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "entities", "said"),
    [
        (
            "nothing",
            "entities",
            "there is no feature view or service 'nothing' (there are: corrected, partial, past_weather",
        ),
        ("corrected", "entities", "the feature view 'corrected' has a created_timestamp_column"),
        ("training", "without", "the entities have no column city"),
        ("training", "absent", "absent.parquet"),
        ("partial", "entities", "weathersit"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_joined_is_one_line(repository: Path, name: str, entities: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_source(f"feast://{repository}/{name}?entities={repository.parent / entities}.parquet&zone={ZONE}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def online(repository: Path, *hours_: str) -> dict[str, list[Any]]:
    names = [f"past_weather:{name}" for name in features.OPTIONAL_NAMES]
    read = f"get_online_features(features={names}, entity_rows=rows).to_dict()"
    code = (
        "import json\nfrom feast import FeatureStore\n"
        f"rows = [{{'hour': hour}} for hour in {list(hours_)}]\n"
        f"print(json.dumps(FeatureStore(repo_path='.').{read}))"
    )
    found: dict[str, list[Any]] = json.loads(repositories.call(code, folder=repository).splitlines()[-1])
    return found


@pytest.mark.slow
def test_the_online_store_has_what_the_pipeline_would_make_and_the_hour_to_come(
    repository: Path, tmp_path: Path
) -> None:
    source = tmp_path / "hours.csv"
    source.write_text("\n".join(embedded_bytes().decode().splitlines()[: HOURS + 1]) + "\n", encoding="utf-8")
    settings = settings_at(tmp_path)
    version = ingest(settings, str(source)).version
    rows = with_optional_inputs(SpanStore(settings.store_uri).read(version.span, version.version)).to_pylist()
    done = CliRunner().invoke(
        data_command, ["feast-online", f"feast://{repository}/past_weather", "--set", f"workspace={tmp_path}"]
    )
    assert done.exit_code == 0, done.output
    assert "of 48 hours" in done.output or "of 47 hours" in done.output
    last = rows[-1]
    moment = datetime.combine(last["dteday"], datetime.min.time()) + timedelta(hours=last["hr"])
    found = online(repository, f"{moment:%Y-%m-%dT%H}", f"{moment + timedelta(hours=1):%Y-%m-%dT%H}", "1999-01-01T00")
    for name in features.OPTIONAL_NAMES:
        assert found[name][0] == pytest.approx(last[name])
        assert found[name][2] is None
    # The hour to come has none of its own weather, and needs none.
    assert found["temp_mean_3h"][1] == pytest.approx(sum(row["temp"] for row in rows[-3:]) / 3, abs=1e-6)
    assert found["weathersit_mean_1h"][1] == last["weathersit"]
    with pytest.raises(DataError, match="the feature view 'weather' has features that are no optional inputs: atemp"):
        feast_repository.write_online(
            f"feast://{repository}/weather", pa.table({"hour": ["x"], "event_timestamp": [moment], "day": [1]})
        )


def test_without_its_environment_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n", encoding="utf-8")
    monkeypatch.setenv(feast_repository.PYTHON_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(MissingExtraError, match="make feast-environment"):
        read_source(f"feast://{tmp_path}/training?entities=x.parquet")
    with pytest.raises(MissingExtraError, match="make feast-environment"):
        feast_repository.write_online(f"feast://{tmp_path}/past_weather", pa.table({"hour": ["x"]}))


def test_a_python_without_feast_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n", encoding="utf-8")
    monkeypatch.setenv(feast_repository.PYTHON_VARIABLE, "python3")
    with pytest.raises(DataError, match="No module named 'feast'"):
        read_source(f"feast://{tmp_path}/training?entities=x.parquet")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("feast://nowhere/training?entities=x.parquet", "there is no repository of Feast"),
        ("feast://training?entities=x.parquet", "there is no repository of Feast"),
        ("feast://repository/training", "it names no file of entities"),
        ("feast://repository/training?entities=x.parquet&zon=UTC", "or something unknown"),
    ],
)
def test_an_address_that_lacks_a_part_is_refused(address: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_source(address)
