"""From a real run to a device: what the pipeline exported and the edge gate blessed, pushed, fetched and asked."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.exporting.formats.c import c_source
from tests.edge.web import serving
from tests.end_to_end.conftest import Product

HOUR = {
    "yr": 1, "mnth": 6, "hr": 8, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 1,
    "temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def state(story: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a device that took the model that serves; the bundle's program was all that it had."""
    product: Product = story["product"]
    folder = tmp_path_factory.mktemp("device")
    pushed = product.call("push", "edge", "--json", "--output", str(folder / "edge"))
    assert pushed.code == 0, pushed.err
    assert pushed.result["forced"] is False
    archive = folder / "edge" / "stable" / "bundles" / f"{pushed.result['bundle']['sha256']}.tar"
    with tarfile.open(archive) as tar:
        tar.extract("bike-edge.pyz", folder, filter="data")
    key = product.workspace / "keys" / "signing.pub"
    with serving(folder / "edge") as web:
        options = ["--channel-url", f"{web.url}/stable", "--key", str(key), "--state", str(folder / "state")]
        subprocess.run([sys.executable, "-I", folder / "bike-edge.pyz", "update", *options], check=True, timeout=300)
    return folder / "state"


def test_the_device_answers_as_the_server_in_python_and_in_c(story: dict[str, Any], state: Path) -> None:
    asked = story["product"].call("predict", json.dumps(HOUR))
    served = float(asked.out)
    assert served > 100
    predictor = state / "current" / "predictor.py"
    told = subprocess.run(
        [sys.executable, "-I", predictor], input=json.dumps(HOUR), capture_output=True, text=True, check=True
    )
    assert float(told.stdout) == pytest.approx(served, abs=0.011)
    c = state / "current" / "c"
    program = state / "bike_predict"
    c_source.compiled(c / "main.c", program, str(c / "bike_model.c"), f"-I{c}")
    text = "\n".join(",".join(map(str, line)) for line in (HOUR, HOUR.values()))
    told = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    assert float(told.stdout) == pytest.approx(served, abs=0.011)


def test_the_bundle_names_the_version_that_serves_and_the_gate_that_blessed_it(
    story: dict[str, Any], state: Path
) -> None:
    manifest = json.loads((state / "current" / "manifest.json").read_text())
    assert manifest["model"]["version"] == max(int(name) for name in story["versions"] if name.isdigit())
    assert manifest["edge_gate"]["blessed"] is True
    assert manifest["edge_gate"]["format"] == manifest["model"]["format"]
    assert manifest["files"][manifest["model"]["file"]]["size"] <= 400_000
