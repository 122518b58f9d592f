"""What `bike-pipeline manifests` writes for Kubernetes, from the settings and from what is promoted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from bike_pipeline.commands.cluster import manifests_command
from bike_pipeline.commands.serve import serve_command
from bike_pipeline.errors import ConfigurationError
from bike_pipeline.rollout import configuration, manifests
from bike_pipeline.rollout.tracks import Track
from bike_pipeline.serving.server.access import check_exposure
from bike_pipeline.settings import load_settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = CONFIGS / "kubernetes" / "settings"


def written(tracks, *assignments, folder=SHIPPED):
    content = manifests.files(load_settings(assignments=assignments), folder, tracks, CONFIGS)
    return {
        name: text if name.endswith(".config") else list(yaml.safe_load_all(text)) for name, text in content.items()
    }


def arguments(track):
    """The command line of a track's servers."""
    [patch] = track["patches"]
    [operation] = yaml.safe_load(patch["patch"])
    return operation["value"]


def test_the_shipped_folder_is_what_the_shipped_settings_give(tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    done = CliRunner().invoke(manifests_command, ["--check", "--set", f"workspace={tmp_path}"])
    assert (done.exception, done.output) == (
        None,
        "configs/kubernetes/settings: 8 files as the settings give them\n",
    )
    files = {str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*") if path.is_file()}
    assert files == set(written({}))


def test_each_label_with_a_share_is_a_track_that_serves_its_version_and_gets_its_weight():
    content = written({"stable": Track(3, 75.0), "canary": Track(4, 25.0)}, "serving.model_name=bikes")
    assert content["kustomization.yaml"][0]["resources"] == ["../base", "stable", "canary"]
    for label in ("stable", "canary"):
        [track] = content[f"{label}/kustomization.yaml"]
        assert track["nameSuffix"] == f"-{label}"
        assert track["labels"] == [{"pairs": {"app": f"bike-serving-{label}"}, "includeSelectors": True}]
        assert serve_command.make_context("serve", arguments(track)) is not None
        settings = load_settings(assignments=tuple(b for a, b in pairwise(arguments(track)) if a == "--set"))
        assert settings.serving.server.label == label
        # It would not start where the settings say nothing of who reaches it.
        check_exposure(settings.serving.server.model_copy(update={"host": "0.0.0.0"}), "")
        assert settings.serving_path == "/mnt/bike-pipeline/workspace/serving/bikes"
    for route in content["operators/routes.yaml"]:
        assert weights(route) == {"bike-serving-stable": 75, "bike-serving-canary": 25}


def weights(route):
    """The weight of each service of a route."""
    [rule] = route["spec"]["rules"]
    return {one["name"]: one["weight"] for one in rule["backendRefs"]}


def test_half_a_percent_is_a_whole_weight():
    routes = written({"stable": Track(1, 99.5), "canary": Track(2, 0.5)})["operators/routes.yaml"]
    assert all(weights(route) == {"bike-serving-stable": 99500, "bike-serving-canary": 500} for route in routes)


def test_a_shadow_is_a_track_that_answers_nobody_and_gets_copies():
    content = written({"stable": Track(1, 100.0), "shadow": Track(2, 10.0)})
    assert "shadow/kustomization.yaml" in content
    for route in content["operators/routes.yaml"]:
        assert weights(route) == {"bike-serving-stable": 100}
        [copied] = route["spec"]["rules"][0]["filters"]
        assert copied["requestMirror"]["percent"] == 10
        assert copied["requestMirror"]["backendRef"]["name"] == "bike-serving-shadow"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("registry.example:5000/team/bike:2", {"newName": "registry.example:5000/team/bike", "newTag": "2"}),
        ("registry.example:5000/bike", {"newName": "registry.example:5000/bike", "newTag": "latest"}),
        ("bike@sha256:ab12", {"newName": "bike", "digest": "sha256:ab12"}),
    ],
)
def test_the_image_of_the_settings_is_that_of_every_pod(image, expected):
    [folder] = written({}, f"kubeflow.image={image}")["kustomization.yaml"]
    assert folder["images"][0] == {"name": "bike-pipeline", **expected}


def test_tf_serving_has_the_files_and_arguments_of_its_settings(tmp_path):
    content = written({}, "serving.configuration.batching.enabled=false")
    [generated] = content["kustomization.yaml"][0]["configMapGenerator"]
    assert generated["files"] == ["models.config", "monitoring.config"]
    settings = load_settings(assignments=("serving.configuration.batching.enabled=false",))
    assert content["models.config"] == configuration.files(settings, tmp_path)["models.config"]
    assert not any("batching" in text for text in arguments(content["kustomization.yaml"][0]))


def test_every_rule_for_prometheus_is_one_of_the_operator_too():
    names = {"alert", "record"}
    [rules] = written({})["operators/rules.yaml"]
    here = [one[name] for group in rules["spec"]["groups"] for one in group["rules"] for name in names & one.keys()]
    shipped = [
        one[name]
        for path in sorted((CONFIGS / "monitoring" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for one in group["rules"]
        for name in names & one.keys()
    ]
    assert here == shipped


def test_another_folder_finds_the_parts_and_a_change_is_told(tmp_path):
    folder = tmp_path / "mine"
    options = ["--output", str(folder), "--set", f"workspace={tmp_path}"]
    assert CliRunner().invoke(manifests_command, options).exception is None
    base = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"][0]
    assert (folder / base / "kustomization.yaml").is_file()
    (folder / "models.config").write_text("", encoding="utf-8")
    refused = CliRunner().invoke(manifests_command, [*options, "--check"]).exception
    assert isinstance(refused, ConfigurationError)
    assert "not what the settings give: models.config" in str(refused)
