"""The texts of a bundle: the feature contract as JSON, and by templates its README and the Android part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bike_pipeline import features

CONTRACT_FILE = "feature_contract.json"
MODEL_ASSET = "bike_demand.tflite"
# A working morning in June 2012, mild and clear.
EXAMPLE: dict[str, int | float] = {
    "yr": 1,
    "mnth": 6,
    "hr": 8,
    "holiday": 0,
    "weekday": 5,
    "workingday": 1,
    "weathersit": 1,
    "temp": 0.6,
    "atemp": 0.58,
    "hum": 0.5,
    "windspeed": 0.2,
}
_PACKAGE = "com.example.bikedemand"
_ASSETS = "android/app/src/main/assets"
SOURCE = f"android/app/src/main/java/{_PACKAGE.replace('.', '/')}/BikeDemandModel.kt"
_GRADLE = "bike_demand.gradle.kts"
_TEMPLATES = Path(__file__).parent / "templates"


def feature_contract() -> dict[str, Any]:
    """Return what a client on a device sends (inputs in the model's order) and what comes back."""
    label = features.BY_NAME[features.LABEL]
    return {
        "format": 1,
        "signature": "serving_default",
        "shape": ["rows"],
        "outside_range": "codes are clipped into their range; weather counts as four standard deviations at most",
        "not_finite": "a weather value that is NaN or infinite gives NaN for its row, and changes no other row",
        "inputs": [
            {
                "name": feature.name,
                "dtype": "int64" if feature.kind == "int" else "float32",
                "minimum": feature.minimum,
                "maximum": feature.maximum,
                "unit": feature.unit,
                "meaning": feature.meaning,
            }
            for feature in features.MODEL_INPUTS
        ],
        "output": {
            "name": label.name,
            "dtype": "float32",
            "minimum": 0,
            "unit": label.unit,
            "meaning": "rentals in the hour",
        },
    }


def _render(template: str, contract: Mapping[str, Any], **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701 (Markdown and Kotlin, from our own contract)
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(contract, **values)


def readme(contract: Mapping[str, Any], **values: Any) -> str:
    """Return the README; `values` are what its template asks for beside the contract and the example."""
    return _render(
        "README.md.jinja",
        contract,
        **values,
        example=json.dumps(EXAMPLE),
        columns=json.dumps({key: [value, value] for key, value in EXAMPLE.items()}),
        header=",".join(EXAMPLE),
        row=",".join(map(str, EXAMPLE.values())),
    )


def kotlin(contract: Mapping[str, Any], model_format: str, tolerance: float) -> str:
    """Return the Kotlin class, whose golden rows may differ by `tolerance`, relative to max(rentals, 1)."""
    return _render(
        "BikeDemandModel.kt.jinja",
        contract,
        package=_PACKAGE,
        model=MODEL_ASSET,
        model_format=model_format,
        tolerance=tolerance,
        kotlin={"int64": "Long", "float32": "Float"},
    )


def android_files(model: bytes, golden: bytes, contract_json: bytes, source: str) -> dict[str, bytes]:
    """Return the files of the Android part by their names in the bundle."""
    return {
        f"{_ASSETS}/{MODEL_ASSET}": model,
        f"{_ASSETS}/{CONTRACT_FILE}": contract_json,
        f"{_ASSETS}/golden.json": golden,
        SOURCE: source.encode(),
        f"android/app/{_GRADLE}": (_TEMPLATES / _GRADLE).read_bytes(),
    }
