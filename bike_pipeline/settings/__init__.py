"""Settings: one frozen, validated tree; unknown keys are errors, and nothing is read from anywhere else.

`configs/base.yaml` holds every value that the product ships with. An overlay file (`--config`) and single values
(`--set training.epochs=20`) are merged over it, in this order. `bike-pipeline config schema` prints the JSON schema.
"""

from bike_pipeline.settings.tree import BASE_FILE, FETCHED_ROOT, PROJECT_ROOT, Settings, load_settings

__all__ = ["BASE_FILE", "FETCHED_ROOT", "PROJECT_ROOT", "Settings", "load_settings"]
