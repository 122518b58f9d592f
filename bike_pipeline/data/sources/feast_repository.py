"""Feast: rows of its offline store as they were known at each hour, and past weather for its online store.

Feast needs other versions of packages than TFX, so a Python of its own runs `feast_program`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import parse_qs

import pyarrow as pa
from pyarrow import parquet

from bike_pipeline.data.manifest import SourceRecord
from bike_pipeline.data.sources import feast_program
from bike_pipeline.data.sources.content import ReadContent, read_content, read_contents
from bike_pipeline.data.sources.source_rows import SourceRows
from bike_pipeline.errors import DataError, MissingExtraError
from bike_pipeline.settings import FETCHED_ROOT

# Names the Python of an environment with Feast; else that of `make feast-environment`.
PYTHON_VARIABLE = "BIKE_PIPELINE_FEAST_PYTHON"


def read_feast(source: str, read: ReadContent = read_content) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of feast://REPOSITORY/NAME?entities=FILE[&zone=ZONE], NAME a feature view or service.

    The file (Parquet or CSV) has an hour a row: `dteday`, `hr`, the join keys, and the columns of the contract that are
    no features, labels among them. An hour gets each feature's newest value whose time stamp is not after its
    beginning. `zone` is the time zone of the hours, by default UTC.

    Raises:
        DataError: a part of the address is missing, or Feast refuses it.
        MissingExtraError: there is no environment with Feast.
    """
    options = {key: values[-1] for key, values in parse_qs(source.partition("?")[2]).items()}
    if not {"entities"} <= options.keys() <= {"entities", "zone"}:
        fix = "write feast://REPOSITORY/NAME?entities=FILE&zone=ZONE"
        raise DataError("it names no file of entities, or something unknown", where=source, fix=fix)
    with tempfile.TemporaryDirectory(prefix="bike-feast-") as folder:
        output = Path(folder, "rows.parquet")
        entities = str(Path(options["entities"]).expanduser().absolute())
        _call("historical", source, entities, options.get("zone", "UTC"), str(output))
        return read_contents([(source, output.read_bytes())], "feast", source, read=read)


def write_online(address: str, rows: pa.Table) -> None:
    """Write rows to the online store of feast://REPOSITORY/VIEW; errors as of `read_feast`.

    The view's one join key gets the column `hour`, its time stamp is `event_timestamp`, its features are columns.
    """
    with tempfile.TemporaryDirectory(prefix="bike-feast-") as folder:
        path = Path(folder, "rows.parquet")
        parquet.write_table(rows, path)
        _call("online", address, str(path))


def _call(action: str, address: str, *arguments: str) -> None:
    repository, _, name = address.partition("://")[2].partition("?")[0].rpartition("/")
    if not repository or not Path(repository, "feature_store.yaml").is_file():
        fix = "write feast://REPOSITORY/NAME, where REPOSITORY is the folder of feature_store.yaml"
        raise DataError("there is no repository of Feast", where=address, fix=fix)
    python = os.environ.get(PYTHON_VARIABLE) or str(FETCHED_ROOT / ".feast" / "bin" / "python")
    # What our interpreter was told of its modules is nothing to another environment.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [python, feast_program.__file__, action, repository, name, *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        fix = f"run `make feast-environment`, or name a Python that has Feast in {PYTHON_VARIABLE}"
        what = f"Feast's own environment is not installed: there is no {python}"
        raise MissingExtraError(what, where=address, fix=fix) from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        fix = "mend what it names, in Feast's repository or in the file of entities"
        raise DataError(f"Feast refuses it ({said[-1] if said else done.returncode})", where=address, fix=fix)
