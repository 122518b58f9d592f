"""The feature contract as JSON: what a client on a device sends, and what comes back."""

from __future__ import annotations

from typing import Any

from bike_pipeline import features

FORMAT = 1
FILE = "feature_contract.json"
SIGNATURE = "serving_default"
DTYPES = {"int": "int64", "float": "float32"}


def feature_contract() -> dict[str, Any]:
    """Return the contract: inputs in the model's order with type, range, unit and meaning, and the output."""
    label = features.BY_NAME[features.LABEL]
    return {
        "format": FORMAT,
        "signature": SIGNATURE,
        "shape": ["rows"],
        "outside_range": "codes are clipped into their range; weather counts as four standard deviations at most",
        "not_finite": "a weather value that is NaN or infinite gives NaN for its row, and changes no other row",
        "inputs": [
            {
                "name": feature.name,
                "dtype": DTYPES[feature.kind],
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
