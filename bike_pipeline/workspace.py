"""The way in for programs: a workspace whose methods are the use cases (docs/python.md)."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from bike_pipeline.settings import FETCHED_ROOT, Settings, load_settings
from bike_pipeline.use_cases import (
    batch,
    cluster,
    compression,
    data,
    feedback_update,
    labels,
    monitoring,
    monitoring_demo,
    monitoring_report,
    page,
    retraining,
    retraining_prices,
    rollout,
    serving,
    simulation,
)
from bike_pipeline.use_cases import doctor as doctor_
from bike_pipeline.use_cases import evidence as evidence_
from bike_pipeline.use_cases import explanations as explanations_
from bike_pipeline.use_cases import export as export_
from bike_pipeline.use_cases import feedback as feedback_
from bike_pipeline.use_cases import lineage as lineage_
from bike_pipeline.use_cases import monitoring_metrics as metrics_
from bike_pipeline.use_cases import run as run_

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _method(
    use_case: Callable[Concatenate[Settings, Parameters], Result],
) -> Callable[Concatenate[Workspace, Parameters], Result]:
    """Return a use case as a method, with its own parameters, types and text."""

    @functools.wraps(use_case)
    def method(self: Workspace, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return use_case(self.settings, *args, **kwargs)

    return method


class Workspace:
    """A folder with everything that the product writes, and the settings that it is worked with.

    Each method is the use case of `bike_pipeline.use_cases` that its text describes; it needs no terminal, prints no
    answers (what stages and libraries log goes to standard error), and raises `BikePipelineError`.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        config: Path | str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the settings; a ConfigurationError says what is unknown, wrong or missing.

        Over configs/base.yaml go those of a file, as `--config` does, single ones by their path, such as
        {"training.epochs": 20}, as `--set` does, and the folder.
        """
        chosen = dict(values or {}) | ({} if folder is None else {"workspace": str(folder)})
        # JSON is YAML, so a value stays what it is.
        assignments = tuple(f"{path}={json.dumps(value)}" for path, value in chosen.items())
        self.settings: Settings = load_settings(config, assignments)

    @classmethod
    def from_environment(cls) -> Workspace:
        """Return the workspace that BIKE_PIPELINE_WORKSPACE names, or that of the settings, below the project's folder.

        BIKE_PIPELINE_CONFIG may name settings laid over configs/base.yaml. Notebooks begin with it: a kernel's folder
        is that of its notebook.
        """
        workspace = cls(config=os.environ.get("BIKE_PIPELINE_CONFIG") or None)
        named = os.environ.get("BIKE_PIPELINE_WORKSPACE")
        folder = Path(named) if named else FETCHED_ROOT / workspace.settings.workspace.expanduser()
        workspace.settings = workspace.settings.model_copy(update={"workspace": folder.expanduser().absolute()})
        return workspace

    run = _method(run_.run)
    ingest = _method(data.ingest)
    fill_feast = _method(data.fill_feast)
    ingest_demo = _method(run_.ingest_demo)
    reproducibility = _method(run_.reproducibility)
    reproduce = _method(run_.reproduce)
    track = _method(lineage_.track)
    champion = _method(lineage_.Champion)
    models = _method(lineage_.models)
    compress = _method(compression.compress)
    export = _method(export_.export)
    parity = _method(export_.parity)
    predict = _method(serving.predict)
    predict_batch = _method(batch.predict_batch)
    runs = _method(lineage_.runs)
    lineage = _method(lineage_.lineage_report)
    impact = _method(lineage_.impact)
    compare = _method(lineage_.compare)
    explain_run = _method(lineage_.explain_run)
    verify = _method(serving.verify)
    evidence = _method(evidence_.evidence)
    explain = _method(explanations_.explain)
    explain_model = _method(explanations_.explain_model)
    collect_garbage = _method(lineage_.collect_garbage)
    promote = _method(serving.promote)
    rollback = _method(serving.rollback)
    start_rollout = _method(rollout.start)
    rollout_status = _method(rollout.status)
    approve_rollout = _method(rollout.approve)
    abort_rollout = _method(rollout.abort)
    watch_rollout = _method(rollout.watch)
    history = _method(serving.history)
    update_feedback = _method(feedback_update.update)
    feedback = _method(feedback_.show)
    rollback_feedback = _method(feedback_.rollback)
    ingest_requests = _method(monitoring.ingest)
    write_metrics = _method(metrics_.write_metrics)

    monitor = _method(monitoring_report.run)
    monitor_status = _method(monitoring_report.status)
    ask_demo = _method(monitoring_demo.ask_demo)
    watch = _method(retraining.watch)
    retrain = _method(retraining.retrain)
    simulate = _method(simulation.simulate)
    triggers = _method(retraining.triggers)
    price_decisions = _method(retraining_prices.price)
    explain_trigger = _method(retraining.explain_trigger)
    retry_event = _method(retraining.retry)
    drop_event = _method(retraining.drop)
    pause_retraining = _method(retraining.pause)
    push_edge = _method(serving.push_edge)
    export_page = _method(page.export_page)
    serving_configuration = _method(serving.serving_configuration)
    kubernetes_manifests = _method(cluster.kubernetes_manifests)
    spans = _method(data.versions)
    withdraw_span = _method(data.withdraw)
    restore_span = _method(data.restore)
    withdrawn_spans = _method(data.withdrawals)
    verify_data = _method(data.verify)
    suggest_labels = _method(labels.suggest_labels)
    compile = _method(cluster.compile_pipeline)
    schedules = _method(cluster.schedules)
    submit = _method(cluster.submit)
    schedule = _method(cluster.schedule)
    doctor = _method(doctor_.examine)
