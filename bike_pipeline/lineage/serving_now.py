"""Which model serves now: what ML Metadata recorded, or the serving folder itself where a record is missing."""

from __future__ import annotations

import os

from bike_pipeline.lineage.recorded import ServedModel
from bike_pipeline.lineage.store import Lineage, time_of
from bike_pipeline.serving import model_folder


def serving_now(lineage: Lineage, serving_path: str) -> ServedModel | None:
    """Return the model that serves.

    That is the last push that ML Metadata knows. Where the serving folder holds a newer version (a process was killed
    between the push and its record), that version's own push record is believed.
    """
    recorded = lineage.serving_model(serving_path)
    present = model_folder.versions(serving_path)
    if present and (recorded is None or present[-1] > recorded.version):
        record = model_folder.push_record(serving_path, present[-1])
        if record is not None:
            return ServedModel(
                model_id=int(record["model_id"]),
                model_uri=str(record["model_uri"]),
                version=present[-1],
                destination=os.path.join(serving_path, str(present[-1])),
                fingerprint=str(record["fingerprint"]),
                metric_set=str(record["metric_set"]),
                pushed_at=time_of(int(record["pushed_at_ms"])),
            )
    return recorded
