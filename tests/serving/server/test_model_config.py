"""Which versions of a model are to be served, by its policy and by a configuration that is reloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from bike_pipeline.serving.protos import model_server_config_pb2
from bike_pipeline.serving.server import model_versions
from bike_pipeline.serving.server.model_versions import ModelConfig
from bike_pipeline.serving.statuses import StatusError

PRESENT = {number: Path(f"/models/m/{number}") for number in (3, 1, 10, 2)}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ModelConfig("m", Path()), {10}),
        (ModelConfig("m", Path(), latest=2), {10, 3}),
        (ModelConfig("m", Path(), latest=9), {1, 2, 3, 10}),
        (ModelConfig("m", Path(), "all"), {1, 2, 3, 10}),
        (ModelConfig("m", Path(), "specific", specific=(2, 7)), {2}),
    ],
    ids=["latest", "latest two", "latest nine", "all", "specific"],
)
def test_the_policy_chooses(config, expected):
    assert set(config.wanted(PRESENT)) == expected
    assert config.wanted({}) == {}


def test_folders_are_versions_by_their_number(tmp_path):
    for name in ("00001", "1", "20", ".incoming-3", "x4", "٥", str(1 << 64)):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("no folder")
    assert model_versions.version_folders(tmp_path) == {1: tmp_path / "00001", 20: tmp_path / "20"}
    assert model_versions.version_folders(tmp_path / "absent") == {}


def proto_of(text):
    from google.protobuf import text_format

    return text_format.Parse(text, model_server_config_pb2.ModelConfig())


def test_a_reloaded_configuration_is_read():
    found = model_versions.from_proto(
        proto_of(
            'name: "m" base_path: "/models/m" model_platform: "tensorflow" '
            "model_version_policy { specific { versions: 4 versions: 5 } } "
            'version_labels { key: "stable" value: 4 }'
        )
    )
    assert found == ModelConfig("m", Path("/models/m"), "specific", specific=(4, 5), labels={"stable": 4})
    assert model_versions.from_proto(proto_of('name: "m" base_path: "/m"')).latest == 1
    latest = model_versions.from_proto(
        proto_of('name: "m" base_path: "/m" model_version_policy { latest { num_versions: 3 } }')
    )
    assert latest.latest == 3
    assert (
        model_versions.from_proto(proto_of('name: "m" base_path: "/m" model_version_policy { all {} }')).policy == "all"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base_path: "/m"', "no name"),
        ('name: "m" base_path: "/m" model_platform: "caffe2"', "no platform caffe2"),
        ('name: "m" base_path: "s3://bucket/m"', "absolute local folder"),
        ('name: "m" base_path: "/m" model_version_policy { specific {} }', "names no version"),
    ],
    ids=["name", "platform", "address", "versions"],
)
def test_what_this_server_does_not_do_is_refused(text, message):
    with pytest.raises(StatusError, match=message):
        model_versions.from_proto(proto_of(text))
