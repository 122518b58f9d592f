"""The compiled specs as they stand in golden/: a change that alters what a cluster gets shows as a diff."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from bike_pipeline.runners.kubeflow.compiler import compile_pipeline, to_json, to_yaml
from bike_pipeline.settings import PROJECT_ROOT, load_settings

GOLDEN = Path(__file__).resolve().parent / "golden"
REGENERATE = "REGENERATE_GOLDEN"
HOW = f"meant? {REGENERATE}=1 make pytest ARGS=tests/runners/kubeflow/test_golden.py, and commit the files"
CASES = {
    "object-store.yaml": ("kubeflow", "configs/kubeflow.yaml"),
    "volume.yaml": ("kubeflow", "configs/kubeflow-pvc.yaml"),
    "vertex.json": ("vertex", "configs/vertex.yaml"),
}
# Hashes of code, schema and metric set change with every edit of what they cover; that they do is tested elsewhere.
HASH = re.compile(r"\b[0-9a-f]{64}\b")


def compiled(name: str, folder: Path) -> str:
    """Return the compiled spec of a case, its hashes left out."""
    target, overlay = CASES[name]
    settings = load_settings(PROJECT_ROOT / overlay, (f"workspace={folder}",))
    text = compile_pipeline(settings, target, folder / name).read_text(encoding="utf-8")  # type: ignore[arg-type]
    assert str(folder) not in text
    assert str(PROJECT_ROOT) not in text
    return HASH.sub("<sha256>", _without_settings(text, name))


def _without_settings(text: str, name: str) -> str:
    """Return the spec without the settings that it carries for the run's record: every new setting is in there."""
    documents = [json.loads(text)] if name.endswith(".json") else list(yaml.safe_load_all(text))
    spec = documents[0].get("pipelineSpec", documents[0])
    arguments = spec["deploymentSpec"]["executors"]["CsvExampleGen_executor"]["container"]["args"]
    arguments[arguments.index("--run_record") + 1] = "<runner and settings>"
    return to_json(documents[0]) if name.endswith(".json") else to_yaml(tuple(documents))


@pytest.mark.parametrize("name", CASES)
def test_the_compiled_spec_is_the_one_in_golden(name, tmp_path):
    text = compiled(name, tmp_path)
    if os.environ.get(REGENERATE):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    golden = (GOLDEN / name).read_text(encoding="utf-8")
    diff = difflib.unified_diff(golden.splitlines(), text.splitlines(), f"golden/{name}", "compiled now", lineterm="")
    assert text == golden, "\n".join([f"the compiled spec has changed; {HOW}", *diff])


def test_compiling_twice_gives_the_same_bytes(tmp_path):
    settings = load_settings(assignments=(f"workspace={tmp_path}",))
    first = compile_pipeline(settings, "kubeflow", tmp_path / "a.yaml").read_bytes()
    assert compile_pipeline(settings, "kubeflow", tmp_path / "b.yaml").read_bytes() == first
