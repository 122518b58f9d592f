"""What a training takes from the socket, as codecarbon measures or estimates it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bike_pipeline import extras

ENERGY_FILE = "energy.json"


@contextmanager
def measured(folder: str, *, wanted: bool) -> Iterator[None]:
    """Measure what is done inside, if that is wanted, and write it into `folder`, the Trainer's of the model.

    Where the processor does not tell its power, codecarbon takes it from the processor's name and load; the memory's
    it always estimates. Nothing is sent anywhere.

    Raises:
        MissingExtraError: codecarbon is not installed.
    """
    if not wanted:
        yield
        return
    extras.require("energy", "measuring the energy of a training")
    from codecarbon import OfflineEmissionsTracker

    # The country is for grams of CO2, which the card does not tell.
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, log_level="critical", tracking_mode="process", measure_power_secs=5
    )
    tracker.start()
    try:
        yield
    finally:
        tracker.stop()
    found = tracker.final_emissions_data
    told = {
        "energy_kwh": found.energy_consumed,
        "energy_by": {"processor": found.cpu_energy, "memory": found.ram_energy, "gpu": found.gpu_energy},
        "energy_source": f"codecarbon {found.codecarbon_version}, {found.cpu_model}",
    }
    from tfx.utils import io_utils

    io_utils.write_string_file(os.path.join(folder, ENERGY_FILE), json.dumps(told))


def read(folder: str) -> dict[str, Any]:
    """Return what was measured of a training by the folder of its model; nothing if nothing was."""
    from tfx.dsl.io import fileio
    from tfx.utils import io_utils

    path = os.path.join(folder, ENERGY_FILE)
    found: dict[str, Any] = json.loads(io_utils.read_string_file(path)) if fileio.exists(path) else {}
    return found
