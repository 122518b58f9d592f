"""The settings with which the compiled spec runs on this machine."""

from __future__ import annotations

import pytest

from bike_pipeline.runners.kubeflow.local_run import on_this_machine
from bike_pipeline.settings import Settings, load_settings


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("data.store=/elsewhere/spans", "serving.base_path=/srv/models"),
        ("data.store=memory://spans",),
        ("kubeflow.artifact_folder=/mnt/bike-pipeline/artifacts",),
    ],
)
def test_the_fitted_settings_are_valid_ones_and_name_this_machines_places(changes, tmp_path):
    given = load_settings(assignments=(f"workspace={tmp_path}", *changes))
    fitted = on_this_machine(given)
    assert Settings.model_validate(fitted.model_dump(mode="json")) == fitted
    assert fitted.kubeflow.span_store == given.store_uri
    assert f"{fitted.kubeflow.serving_folder}/{given.serving.model_name}" == given.serving_path
    assert fitted.kubeflow.metadata.address == f"sqlite://{given.metadata_file}"
    assert bool(fitted.kubeflow.artifact_folder) == bool(given.kubeflow.artifact_folder)
