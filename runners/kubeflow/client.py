"""Pipelines, runs and schedules on Kubeflow Pipelines, by its own client."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bike_pipeline.errors import ClusterError, ConfigurationError, StageError
from bike_pipeline.runners.kubeflow import acceptance, connection
from bike_pipeline.runners.kubeflow.cluster_records import Run, Schedule, Version, schedule_of
from bike_pipeline.settings import Settings
from bike_pipeline.version import __version__

# v2beta1 RuntimeState; kfp's own wait does not know that a cancelled run has ended.
FINISHED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
_BROKEN = ("FAILED", "CANCELED", "CANCELING")
_PAGE = 100


class KubeflowClient:
    """Uploads, runs and schedules the compiled pipeline; one connection for all calls."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = settings.kubeflow.client
        self._client = connection.connect(self._own)
        self._namespace = self._client.get_user_namespace() or None
        # The tasks of the spec that was uploaded last; what else the server lists is its own machinery.
        self._tasks: frozenset[str] = frozenset()
        # KFP reads no root in a spec, only in the request for a run.
        self._root = settings.kubeflow.pipeline_root

    def _call(self, doing: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        with connection.explained(self._own, doing), connection.quiet():
            return function(*args, **options)

    def upload(self, spec: str, description: str = "") -> Version:
        """Upload a compiled spec as a version of the pipeline; the same spec is never uploaded twice.

        Runs and schedules that are made after it keep their artifacts where this spec says, or where it says nothing,
        where the settings say.

        Args:
            spec: the compiled spec (YAML; the platform document with it).
            description: shown beside a new version.
        """
        pipeline, version = self._settings.pipeline_name, version_name(spec)
        self._tasks = acceptance.check(spec)
        self._root = acceptance.pipeline_root(spec) or self._settings.kubeflow.pipeline_root
        with tempfile.TemporaryDirectory() as folder:
            package = os.path.join(folder, f"{pipeline}.yaml")
            Path(package).write_text(spec, encoding="utf-8")
            pipeline_id = self._pipeline_id(pipeline)
            if pipeline_id is None:
                # KFP makes a first version of its own name with a new pipeline, so ours comes on top of an equal one.
                made = self._call(
                    "uploading the pipeline",
                    self._client.upload_pipeline,
                    package,
                    pipeline_name=pipeline,
                    namespace=self._namespace,
                )
                pipeline_id = str(made.pipeline_id)
            found = self._call(
                "looking for the version",
                self._client.list_pipeline_versions,
                pipeline_id,
                page_size=_PAGE,
                filter=_named(version),
            )
            for known in found.pipeline_versions or ():
                return Version(pipeline_id, known.pipeline_version_id, version, created=False)
            made = self._call(
                "uploading the pipeline version",
                self._client.upload_pipeline_version,
                package,
                version,
                pipeline_id=pipeline_id,
                description=description or None,
            )
            return Version(pipeline_id, str(made.pipeline_version_id), version, created=True)

    def _pipeline_id(self, name: str) -> str | None:
        found = self._call(
            "looking for the pipeline",
            self._client.list_pipelines,
            page_size=_PAGE,
            filter=_named(name),
            namespace=self._namespace,
        )
        known = found.pipelines or []
        if len(known) > 1:
            raise ClusterError(
                f"there are {len(known)} pipelines called '{name}'",
                where=connection.endpoint_of(self._own),
                fix="give this one another pipeline_name, or delete the others",
            )
        return str(known[0].pipeline_id) if known else None

    def _experiment_id(self) -> str:
        name = self._own.experiment or self._settings.pipeline_name
        made = self._call(
            "finding the experiment", self._client.create_experiment, name, namespace=self._namespace or ""
        )
        return str(made.experiment_id)

    def start(self, version: Version, name: str, parameters: dict[str, Any] | None = None) -> Run:
        """Start a run of a version."""
        made = self._call(
            "starting the run",
            self._client.run_pipeline,
            self._experiment_id(),
            name,
            params=parameters or {},
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            pipeline_root=self._root or None,
            service_account=self._settings.kubeflow.service_account or None,
        )
        return self._run(made)

    def named(self, name: str) -> Run | None:
        """Return the newest run of that name that has not failed and was not cancelled; None if there is none."""
        found = self._call(
            "looking for the run",
            self._client.list_runs,
            page_size=_PAGE,
            sort_by="created_at desc",
            experiment_id=self._experiment_id(),
            filter=_named(name),
        )
        runs = [self._run(one) for one in found.runs or ()]
        return next((run for run in runs if run.state not in _BROKEN), None)

    def run(self, run_id: str) -> Run:
        """Return a run's state and that of the uploaded spec's tasks."""
        return self._run(self._call("asking for the run", self._client.get_run, run_id))

    def wait(self, run_id: str, timeout: float | None, told: Callable[[Run], None]) -> Run:
        """Ask for a run's state until it ended.

        Args:
            run_id: the run.
            timeout: longest wait, in seconds; None for no limit.
            told: is called with every answer that differs from the one before.
        """
        begin = time.monotonic()
        before: Run | None = None
        while True:
            now = self.run(run_id)
            if now != before:
                told(now)
                before = now
            if now.state in FINISHED:
                return now
            if timeout is not None and time.monotonic() - begin + self._own.poll_seconds > timeout:
                raise ClusterError(
                    f"the run is still {now.state or 'waiting'} after {timeout:g} s; it goes on",
                    where=now.address,
                    fix="look at its page, or wait longer with --timeout",
                )
            time.sleep(self._own.poll_seconds)

    def _run(self, answer: Any) -> Run:
        details = getattr(answer.run_details, "task_details", None) or []
        own = [task for task in details if task.display_name in self._tasks]
        own.sort(key=lambda task: str(task.start_time or task.create_time or ""))
        return Run(
            run_id=str(answer.run_id),
            name=str(answer.display_name),
            address=f"{connection.ui_of(self._own)}/#/runs/details/{answer.run_id}",
            state=str(answer.state or "PENDING"),
            tasks={str(task.display_name): str(task.state or "PENDING") for task in own},
            error=str(getattr(answer.error, "message", "") or ""),
        )

    def schedules(self, name: str = "") -> tuple[Schedule, ...]:
        """Return the recurring runs of the pipeline's experiment, or those with one name."""
        experiment, found, token = self._experiment_id(), [], ""
        while True:
            page = self._call(
                "listing the schedules",
                self._client.list_recurring_runs,
                page_token=token,
                page_size=_PAGE,
                experiment_id=experiment,
                filter=_named(name) if name else None,
            )
            found += [schedule_of(entry) for entry in page.recurring_runs or ()]
            token = page.next_page_token or ""
            if not token:
                return tuple(found)

    def schedule(
        self,
        version: Version,
        name: str,
        *,
        cron: str = "",
        every_seconds: int = 0,
        replace: bool = False,
        catch_up: bool = False,
    ) -> Schedule:
        """Make a recurring run; one run at a time, and missed times are not made up for unless asked for.

        Args:
            version: what to run.
            name: the schedule's name, once in the experiment.
            cron: six fields, seconds first; or
            every_seconds: an interval.
            replace: put it in the place of the one that has this name. The new one stands before the old one goes.
            catch_up: start one run for every missed time.

        Raises:
            ConfigurationError: the name is taken and `replace` is off.
            ClusterError: the server refuses or fails.
        """
        before = self.schedules(name)
        if before and not replace:
            raise ConfigurationError(
                f"there is a schedule '{name}' already ({before[0].trigger})", fix="add --replace, or choose --name"
            )
        made = self._call(
            "making the schedule",
            self._client.create_recurring_run,
            self._experiment_id(),
            name,
            cron_expression=cron or None,
            interval_second=every_seconds or None,
            max_concurrency=1,
            no_catchup=not catch_up,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            pipeline_root=self._root or None,
            service_account=self._settings.kubeflow.service_account or None,
        )
        for old in before:
            self._call("deleting the old schedule", self._client.delete_recurring_run, old.schedule_id)
        return schedule_of(made)

    def switch(self, name: str, action: str) -> tuple[Schedule, ...]:
        """Enable, disable or delete the schedules with a name.

        Raises:
            ConfigurationError: there is none of that name.
            ClusterError: the server refuses or fails.
        """
        found = self.schedules(name)
        if not found:
            raise ConfigurationError(f"there is no schedule '{name}'", fix="see `bike-pipeline schedule list`")
        function = getattr(self._client, f"{action}_recurring_run")
        for one in found:
            self._call(f"to {action} the schedule", function, one.schedule_id)
        return found


def version_name(spec: str) -> str:
    """Return the name of a spec's version: the package's version and the first 12 digits of the spec's SHA-256."""
    return f"{__version__}-{hashlib.sha256(spec.encode()).hexdigest()[:12]}"


def check_outcome(run: Run) -> None:
    """Stop where a run that has ended did not succeed.

    Raises:
        StageError: it failed; the line names the tasks.
        ClusterError: it was cancelled.
    """
    if run.state == "CANCELED":
        raise ClusterError("the run was cancelled", where=run.address)
    if run.state not in {"SUCCEEDED", "SKIPPED"}:
        tasks = ", ".join(run.failed_tasks)
        what = f"the run failed in {tasks}" if tasks else "the run failed before any of its tasks"
        what += f" ({' '.join(run.error.split()).rstrip('.')})" if run.error else ""
        raise StageError(what, where=run.address, fix="see the logs of that task on the run's page")


def _named(name: str) -> str:
    """Return the server's filter for one display name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
