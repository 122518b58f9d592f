"""The client of docs/feast.md: past weather from Feast's online store, and a model server that takes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bike_pipeline.serving.clients import connect, connection
from bike_pipeline.settings import load_settings
from tests import feast_repository as repositories
from tests.serving.running import Running

pytestmark = pytest.mark.slow
PAST = {"day": 1, "weathersit_mean_1h": 2.0, "weathersit_mean_3h": 1.5, "temp_mean_3h": 0.25, "temp_mean_24h": 0.375,
        "hum_mean_3h": 0.5, "windspeed_mean_3h": 0.125}  # fmt: skip


def test_the_answer_is_that_of_the_model_with_the_stores_values(model_server: Running, tmp_path: Path) -> None:
    repositories.python()
    folder = tmp_path / "feast-repository"
    (folder / "data").mkdir(parents=True)
    code = f"""
import pandas as pd
row = {{"hour": "2013-01-01T00", "event_timestamp": pd.Timestamp("2013-01-01", tz="UTC"), **{PAST}}}
pd.DataFrame([row]).to_parquet("data/past_weather.parquet")
"""
    repositories.call(code, folder=folder)
    repositories.make(folder, apply="hour, past_weather")
    code = """
import pandas as pd
from feast import FeatureStore
FeatureStore(repo_path=".").write_to_online_store("past_weather", df=pd.read_parquet("data/past_weather.parquet"))
"""
    repositories.call(code, folder=folder)
    client = repositories.blocks("python")[-1]
    asked = client.replace("127.0.0.1:8501", model_server.rest)
    assert asked != client
    (answer,) = json.loads(repositories.call(asked, folder=tmp_path).replace("'", '"'))
    answer = answer[0] if isinstance(answer, list) else answer
    (now,) = re.findall(r"now = (\{.*\})\nnow \|= (\{.*\})", client)
    hour = {**json.loads(now[0]), **json.loads(now[1])}
    alone = {name: [value] for name, value in hour.items()}
    with connect(connection(load_settings(), model_server.rest)) as server:
        (expected,) = server.predict(alone | {name: [value] for name, value in PAST.items()})
        (without,) = server.predict(alone)
    assert answer == pytest.approx(float(expected), rel=1e-5)
    assert answer != pytest.approx(float(without), rel=1e-5)
