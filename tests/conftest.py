"""What is expensive and only read, once a session: the embedded rows, a transform graph, an exported model."""

from __future__ import annotations

import csv
import functools
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]
# One of so many rows of the embedded data is enough for most tests.
FEW = 29
TRAINING: dict[str, Any] = {
    "architecture": "deep",
    "epochs": 2,
    "batch_size": 64,
    "learning_rate": 0.01,
    "weight_decay": 0.02,
    "hidden_units": [8],
    "embedding_dimensions": 3,
    "dropout": 0.1,
    "energy": False,
    "tree_rounds": 5,
    "tree_depth": 3,
    "tree_learning_rate": 0.3,
    "holiday_priors": {},
    "warm_start": False,
    "target": "rentals",
    "busy_above": None,
    "busy_quantile": 0.75,
    "strategy": "none",
    "workers": 2,
    "worker_timeout": 300.0,
    "feedback": {
        "half_life_days": 3.0,
        "group_half_life_days": 14.0,
        "label_delay_days": 1,
        "quantiles": {"p05": 0.05, "p50": 0.5, "p95": 0.95},
    },
}


# Fixtures that take long to make: the files that use the same one are tested by the same process.
SHARED = (
    ("story",),
    ("exported", "busy_model", "transform_graph", "full_size", "servable_model", "model_server"),
    ("simple_models", "simple_server"),
    ("small_model", "bundles"),
)
# Made in seconds and used by many: by one process for each room, since the files of all rooms are half of a whole run.
SHARED_BY_ROOM = ("exported",)

_exit_status: list[int] = []
_LOGGING = pytest.StashKey[dict[str, Any]]()


class _ByFile(LoadScopeScheduling):
    """Hands whole files to the test processes, and files that share an expensive fixture to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.partition("::")[0]
        text = _text_of(self.config.rootpath / name)
        for fixtures in SHARED:
            if any(re.search(rf"\b{fixture}\b", text) for fixture in fixtures):
                room = name.split("/")[1] if fixtures[0] in SHARED_BY_ROOM else ""
                return f"{fixtures[0]} {room}"
        return name

    def _reschedule(self, node: Any) -> None:
        """Give a process enough to begin with: it starts a test when it knows the next one, or that there is none.

        xdist gives one that takes the place of another a single unit, which may be a single test.
        """
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

    def remove_node(self, node: Any) -> str | None:
        """Hand the rest of what a process had to the others, and say in which test it ended; None if it had no more.

        xdist also hands out what is finished, for which no process ever reports, so that the run never ends.
        """
        units = self.assigned_work.pop(node)
        crashed = next((test for unit in units.values() for test, done in unit.items() if not done), None)
        if crashed is None:
            return None
        for unit in units.values():
            unit.update({crashed: True} if crashed in unit else {})
        self.workqueue.update({scope: unit for scope, unit in units.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed


@functools.cache
def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Say how tests are spread over processes."""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first, so that none of them ends the run alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _logging_settings(config: pytest.Config) -> dict[str, Any]:
    """Return what decides whether a warning of the product is heard."""
    loggers = {
        name: (logger.level, logger.disabled, logger.propagate)
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in ("bike_pipeline", "runners")
    }
    capturing = config.pluginmanager.get_plugin("logging-plugin")
    return {
        "caplog": max(capturing.caplog_handler.level, capturing.report_handler.level),
        "root": logging.root.level,
        "disable": logging.root.manager.disable,
        **{name: settings for name, settings in loggers.items() if settings != (logging.NOTSET, False, True)},
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test, or a fixture of it, that leaves logging so that the warnings of later tests are not heard."""
    expected = item.config.stash[_LOGGING]
    yield
    left = _logging_settings(item.config)
    if left != expected:
        logging.root.setLevel(expected["root"])
        logging.disable(expected["disable"])
        capturing = item.config.pluginmanager.get_plugin("logging-plugin")
        capturing.caplog_handler.setLevel(expected["caplog"])
        capturing.report_handler.setLevel(expected["caplog"])
        for name in left.keys() - expected.keys():
            logger = logging.getLogger(name)
            logger.setLevel(logging.NOTSET)
            logger.disabled, logger.propagate = False, True
        raise AssertionError(f"logging was {expected} at the start of the tests and is {left}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep how logging is set before anything runs."""
    session.config.stash[_LOGGING] = _logging_settings(session.config)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Keep the status that the session ends with."""
    _exit_status.append(int(exitstatus))


def pytest_unconfigure() -> None:
    """End the process with the session's status, without taking the interpreter apart.

    Loaded graphs hold repeated fields of protos; where those are freed only after protobuf's own module, the process
    can die of a segmentation fault although every test passed. Everything is reported by now.
    """
    if _exit_status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_status[-1])


@dataclass(frozen=True)
class Exported:
    """A small model and what it was made of.

    Attributes:
        model: the Keras model in memory.
        losses: mean loss of each epoch.
        path: folder of the SavedModel.
        transform_graph: folder of the transform graph.
        rows: the raw rows it was trained on, by column.
    """

    model: Any
    losses: list[float]
    path: Path
    transform_graph: Path
    rows: dict[str, Any]


@pytest.fixture(scope="session")
def embedded_rows() -> dict[str, Any]:
    """Every column of the embedded data, with the optional inputs: int64, float32, or bytes for the date; (17379,)."""
    import numpy as np

    from bike_pipeline import features
    from bike_pipeline.data import past_weather
    from bike_pipeline.data.embedded_dataset import embedded_bytes

    read = list(csv.DictReader(embedded_bytes().decode().splitlines()))
    kinds = {"int": np.int64, "float": np.float32, "date": "S10"}
    rows = {f.name: np.asarray([row[f.name] for row in read]).astype(kinds[f.kind]) for f in features.FEATURES}
    days = rows[features.DATE].astype("datetime64[D]").astype(np.int64)
    return rows | past_weather.optional_inputs(days * 24 + rows[features.HOUR], rows)


@pytest.fixture(scope="session")
def few_rows(embedded_rows: dict[str, Any]) -> dict[str, Any]:
    """Every `FEW`th row: 600 rows of all seasons, hours and kinds of weather."""
    return {name: values[::FEW] for name, values in embedded_rows.items()}


def analyzed(rows: dict[str, Any], folder: Path, batch_size: int | None = None) -> Path:
    """Return the transform graph of rows with all columns of the curated schema, leaks included.

    Args:
        rows: arrays by column.
        folder: where to write it.
        batch_size: rows that TFT analyzes at once; None lets Beam tune it.
    """
    import apache_beam as beam
    import tensorflow_data_validation as tfdv
    from tensorflow_transform import beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata

    from bike_pipeline.modeling.preprocessing import preprocessing_fn

    metadata = dataset_metadata.DatasetMetadata(tfdv.load_schema_text(str(ROOT / "configs" / "schema.pbtxt")))
    records = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    with (
        beam.Pipeline(argv=["--runner=FnApiRunner", "--no_pipeline_type_check"]) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "temporary"), desired_batch_size=batch_size),
    ):
        data = (pipeline | beam.Create(records), metadata)
        graph = data | tft_beam.AnalyzeDataset(preprocessing_fn)
        _ = graph | tft_beam.WriteTransformFn(str(folder / "graph"))
    return folder / "graph"


@pytest.fixture(scope="session")
def transform_graph(few_rows: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The transform graph of the few rows."""
    return analyzed(few_rows, tmp_path_factory.mktemp("transform"))


@pytest.fixture(scope="session")
def exported(few_rows: dict[str, Any], transform_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model of the few rows, trained by `train` and written by `write`, as the Trainer does."""
    from bike_pipeline.modeling import saved_model, training

    model, losses = training.train(few_rows, str(transform_graph), TRAINING, seed=7)
    path = tmp_path_factory.mktemp("exported") / "model"
    # With what the labels of 2011 tell it, so that whatever is made of it carries a state, which moves some of 2012.
    early = {name: values[few_rows["yr"] == 0] for name, values in few_rows.items()}
    start = training.first_feedback(model, str(transform_graph), TRAINING, early)
    saved_model.write(model, str(transform_graph), str(path), training.evidence(few_rows), start)
    return Exported(model, losses, path, transform_graph, few_rows)


@pytest.fixture(scope="session")
def busy_model(few_rows: dict[str, Any], transform_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model of the target `busy`, of a network and trees, made of the few rows as the Trainer makes it."""
    from bike_pipeline.modeling import target_choice, training

    section = {**TRAINING, "target": "busy", "architecture": "blend", "epochs": 6}
    folder, graph = tmp_path_factory.mktemp("busy"), str(transform_graph)
    target = target_choice.target_of(few_rows, graph, section, seed=7)
    model, losses = training.train(few_rows, graph, section, seed=7, target=target)
    training.write((model, losses), few_rows, graph, section, str(folder / "run"), str(folder / "model"), target=target)
    return Exported(model, losses, folder / "model", transform_graph, few_rows)
