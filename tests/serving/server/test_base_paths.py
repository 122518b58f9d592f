from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from bike_pipeline.serving.server.access import check_model_config, is_below, model_roots
from bike_pipeline.serving.statuses import Code, StatusError
from bike_pipeline.settings import load_settings

ROOTS = ("/models/bikes", "s3://store/bikes")

OUTSIDE = {
    "empty": "",
    "relative": "models/bikes",
    "root": "/",
    "etc": "/etc",
    "parent": "/models",
    "up": "/models/bikes/../../etc",
    "up-and-back": "/models/bikes/../bikes",
    "dot": "/models/bikes/.",
    "sibling": "/models/bikes-other",
    "encoded": "/models/bikes/%2e%2e/etc/",
    "nul": "/models/bikes\0/etc",
    "newline": "/models/bikes\n",
    "backslash": "/models/bikes/..\\..",
    "long": "/models/bikes/" + "a" * 5000,
    "file-url": "file:///models/bikes",
    "other-bucket": "s3://elsewhere/bikes",
    "bucket-sibling": "s3://store/bikes2",
    "bucket-up": "s3://store/bikes/../secrets",
    "gcs": "gs://store/bikes",
}


def config(**fields):
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    found = ModelServerConfig()
    found.model_config_list.config.add(**{"name": "bikes", "base_path": "/models/bikes", **fields})
    return found


@pytest.mark.parametrize(
    "path", [v for k, v in OUTSIDE.items() if k != "encoded"], ids=[k for k in OUTSIDE if k != "encoded"]
)
def test_a_base_path_outside_of_the_roots_is_refused_with_the_same_words(path):
    assert not is_below(path, ROOTS)
    with pytest.raises(StatusError) as refusal:
        check_model_config(config(base_path=path), ROOTS)
    assert refusal.value.code is Code.PERMISSION_DENIED
    assert refusal.value.message == "The base path of bikes is outside of what this server may load."


@pytest.mark.parametrize(
    "path", ["/models/bikes", "/models/bikes/", "/models/bikes/candidate", "//models/bikes", "s3://store/bikes/a"]
)
def test_a_base_path_below_a_root_passes(path):
    check_model_config(config(base_path=path), ROOTS)


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(
    strategies.lists(strategies.sampled_from(["/", "..", ".", "models", "bikes", "%2e", "\\", "s3:", "a"]), max_size=9)
)
def test_whatever_passes_is_below_a_root_for_the_system_too(parts):
    path = "".join(parts)
    if is_below(path, ROOTS[:1]):
        assert Path(os.path.normpath(path)).is_relative_to("/models/bikes")


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "a/b", "a\0b", "a" * 256, "a:b", "ü", "a b", "a%2fb"])
def test_a_model_name_that_is_no_plain_name_is_refused(name):
    with pytest.raises(StatusError) as refusal:
        check_model_config(config(name=name), ROOTS)
    assert refusal.value.code is Code.INVALID_ARGUMENT


def test_a_log_file_that_a_request_names_is_never_written():
    found = config()
    found.model_config_list.config[0].logging_config.log_collector_config.filename_prefix = "/tmp/x"
    with pytest.raises(StatusError, match="writes no file"):
        check_model_config(found, ROOTS)


def test_the_roots_are_the_folder_of_the_served_models_and_what_is_named(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    loaded = load_settings(
        None,
        (f"serving.base_path={tmp_path}/link", "serving.server.model_roots=[/candidates/, 's3://store/bikes/']"),
    )
    roots = model_roots(loaded)
    for path in (f"{tmp_path}/link/bike_demand", f"{tmp_path}/real/other", "/candidates/x", "s3://store/bikes/1"):
        assert is_below(path, roots)
    for path in (str(tmp_path), "/candidates2", "s3://store/bikes2"):
        assert not is_below(path, roots)
