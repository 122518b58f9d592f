"""PyTorch is no part of the development environment, since PyPI's build carries CUDA: `make test-torch` gets the other.

Without it these tests are skipped and say so; where `TORCH_REQUIRED` is set, it must be there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline import extras
from bike_pipeline.errors import ExportError, MissingExtraError
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.formats import frozen_graph
from bike_pipeline.exporting.formats import torch as torch_format
from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.exporting.formats.registry import format_of

FORMATS = ("torch_export", "torch_script")
needs_torch = pytest.mark.skipif(
    bool(extras.missing("torch")) and "TORCH_REQUIRED" not in os.environ,
    reason="PyTorch is not installed; `make test-torch` tests it in an environment of its own",
)


@pytest.fixture(scope="module")
def folders(full_size: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name in FORMATS:
        made[name] = tmp_path_factory.mktemp(name)
        format_of(name).export(full_size.source, made[name])
    return made


@needs_torch
@pytest.mark.parametrize("name", FORMATS)
def test_raw_features_get_the_saved_models_answers(name: str, full_size: Any, folders: dict[str, Path]) -> None:
    found = format_of(name)
    parity = compare(full_size.answers, found.load(folders[name]).predict(full_size.golden))
    assert parity.rows == 1_000
    assert parity.max_relative_difference <= 1e-5
    assert [path.name for path in folders[name].iterdir()] == [found.file]


@needs_torch
@pytest.mark.parametrize("name", FORMATS)
def test_any_number_of_rows_gets_the_same_answers(name: str, full_size: Any, folders: dict[str, Path]) -> None:
    loaded, golden = format_of(name).load(folders[name]), full_size.golden
    whole = loaded.predict(golden)
    parts = [loaded.predict({n: v[a:b] for n, v in golden.items()}) for a, b in ((0, 1), (1, 3), (3, 1_000))]
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5)
    np.testing.assert_allclose(loaded.predict({n: np.tile(v, 5) for n, v in golden.items()}), np.tile(whole, 5), 1e-5)


@needs_torch
@pytest.mark.parametrize("name", FORMATS)
def test_an_unsupported_operator_is_named_with_its_layer(name: str, hashing: Source, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        format_of(name).export(hashing, tmp_path)
    assert "StringToHashBucketFast in layer hash_temp" in caught.value.what
    assert "Betainc in layer beta_2" in caught.value.what
    assert list(tmp_path.iterdir()) == []


@needs_torch
@pytest.mark.parametrize("name", FORMATS)
def test_a_broken_file_is_one_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / format_of(name).file).write_bytes(b"no model at all")
    with pytest.raises(ExportError, match="PyTorch cannot load it"):
        format_of(name).load(tmp_path)


def test_every_operation_of_the_serving_graph_has_a_counterpart(full_size: Any) -> None:
    operations = frozen_graph.read(full_size.source).operations
    assert len(operations) > 50
    assert [operation.name for operation in operations if not torch_format._known(operation)] == []


@pytest.mark.parametrize("name", FORMATS)
def test_without_pytorch_the_error_says_what_to_install(
    name: str, full_size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for use in (lambda: format_of(name).export(full_size.source, tmp_path), lambda: format_of(name).load(tmp_path)):
        with pytest.raises(MissingExtraError, match="EXTRAS=torch"):
            use()
    assert list(tmp_path.iterdir()) == []
