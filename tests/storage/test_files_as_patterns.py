"""A folder's name is taken literally, whatever stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bike_pipeline.storage.files import as_pattern, plain_folder

NAMES = ["a[b]", "[!x]", "a*b", "a?b", "a\\b", "a\\[b]*", "a{b,c}", "a b", "plain"]


@pytest.mark.parametrize("name", NAMES)
def test_the_pattern_of_a_path_matches_it_and_no_other(tmp_path: Path, name: str) -> None:
    import tensorflow as tf

    for folder in (name, "axb", "ab", "x"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metrics-1").touch()
    found = tf.io.gfile.glob(f"{as_pattern(str(tmp_path / name))}/metrics*")
    assert found == [str(tmp_path / name / "metrics-1")]


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_is_loaded_from_any_folder(tmp_path: Path, name: str) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable(3.0)
    tf.saved_model.save(module, str(tmp_path / name))
    with plain_folder(tmp_path / name) as folder:
        loaded = tf.saved_model.load(folder)
    assert float(loaded.weight) == 3.0
