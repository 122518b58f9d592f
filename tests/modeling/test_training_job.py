from __future__ import annotations

import json

import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.modeling.train_worker import TrainingJob
from bike_pipeline.settings import load_settings


@pytest.fixture
def parts():
    return {
        "examples": ["/shared/examples/Split-train/*"],
        "schema_file": "/shared/schema.pbtxt",
        "transform_graph": "/shared/transform",
        "run_dir": "/shared/run",
        "model_dir": "/shared/model",
        "training": load_settings().training.model_dump(mode="json"),
        "seed": 3,
    }


def test_a_job_travels_as_json(parts):
    job = TrainingJob(**parts)
    assert TrainingJob.from_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"examples": []}, "examples: Tuple should have at least 1 item"),
        ({"model_dir": ""}, "model_dir: String should have at least 1 character"),
        ({"training": {}}, "training.architecture: Field required"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_job_says_which_part_is_wrong(parts, change, said):
    with pytest.raises(ConfigurationError, match=said):
        TrainingJob.from_json(json.dumps({**parts, **change}))


def test_what_is_no_json_is_refused():
    with pytest.raises(ConfigurationError, match="Invalid JSON"):
        TrainingJob.from_json("/shared/job.json")
