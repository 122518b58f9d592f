"""The pipeline on Kubeflow Pipelines and Vertex AI: compile it, run it there; what serves its model on Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.runners.kubeflow.client import KubeflowClient
    from bike_pipeline.runners.kubeflow.cluster_records import Run, Schedule, Version
    from bike_pipeline.runners.kubeflow.definition import Target
    from bike_pipeline.settings import Settings

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# robfig/cron as KFP's controller reads it: seconds, minute, hour, day of month, month, day of week.
_CRON_FIELDS = 6


@dataclass(frozen=True)
class Submission:
    """The version of the pipeline on the server, and the run of it as it was last seen."""

    version: Version
    run: Run


@dataclass(frozen=True)
class ScheduledVersion:
    """The version of the pipeline on the server, and the recurring run of it."""

    version: Version
    schedule: Schedule


def compile_pipeline(settings: Settings, target: Target = "kubeflow", output: Path | None = None) -> Path:
    """Write the pipeline for Kubeflow Pipelines (YAML) or Vertex AI (JSON), and return the file.

    The same settings and code give the same file, by default in the workspace's folder `kubeflow`.
    """
    from bike_pipeline import extras
    from bike_pipeline.runners.kubeflow_runner import KubeflowRunner

    extras.require("kubeflow", "compiling for Kubeflow and Vertex AI")
    return KubeflowRunner.compile(settings, target, output)


def kubernetes_manifests(settings: Settings, output: Path, *, check: bool = False) -> list[Path]:
    """Write the folder for kustomize that serves what is promoted, with these settings; return its files.

    With `check` nothing is written, and a ConfigurationError names the files that are not what would be written.
    """
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.rollout import configuration, manifests, promotion
    from bike_pipeline.rollout.tracks import tracks
    from bike_pipeline.settings.tree import PROJECT_ROOT

    promoted = None
    if settings.serving.configuration.versions.policy == "promoted":
        promoted = promotion.served_versions(settings.serving_path, settings.serving.promotion.keep_loaded)
    now = tracks(ModelRegistry(settings.serving_path).deployment(), settings)
    content = manifests.files(settings, output, now, PROJECT_ROOT / "configs", promoted)
    return configuration.write_or_check(content, output, "manifests", check=check)


def submit(
    settings: Settings,
    spec: Path | None = None,
    *,
    name: str = "",
    once: bool = False,
    parameters: Mapping[str, Any] | None = None,
    wait: bool = False,
    timeout: float | None = None,
    observe: Callable[[Submission], None] = lambda _: None,
) -> Submission:
    """Upload a compiled spec to Kubeflow Pipelines (see `kubeflow.client`), the same one only once, and run it there.

    Without a spec, the pipeline is compiled; without a name, the run has the pipeline's and the time. With `once`, a
    run of that name that has not failed is taken for this one, so that an event that comes twice runs once. With
    `wait`, the run has ended on return, at most `timeout` seconds later. `observe` is called when the run begins, and
    while it is waited for with each change.

    Raises:
        ConfigurationError: `once` without a name.
        ClusterError: the cluster cannot be reached or refuses, or the run does not end in time.
        StageError: a task failed (only with `wait`).
    """
    from datetime import UTC, datetime

    from bike_pipeline.runners.kubeflow.client import check_outcome

    if once and not name:
        raise ConfigurationError("--once asks for the run's --name", fix="name it after what it answers")
    client, version = _upload(settings, spec or compile_pipeline(settings))
    name = name or f"{settings.pipeline_name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    run = (client.named(name) if once else None) or client.start(version, name, dict(parameters or {}))
    observe(Submission(version, run))
    if wait:
        run = client.wait(run.run_id, timeout, lambda now: observe(Submission(version, now)))
        check_outcome(run)
    return Submission(version, run)


def wait_for(settings: Settings, run_id: str) -> None:
    """Wait for a run that was submitted; errors as of `submit`."""
    from bike_pipeline.runners.kubeflow.client import check_outcome

    check_outcome(_client(settings).wait(run_id, None, lambda _: None))


def schedule(
    settings: Settings,
    spec: Path | None = None,
    *,
    cron: str = "",
    every: str = "",
    name: str = "",
    replace: bool = False,
    catch_up: bool = False,
) -> ScheduledVersion:
    """Upload a compiled spec (see `submit`) and run it again and again, one run at a time.

    The times are either a `cron` expression of six fields, seconds first ("0 0 3 * * *" is every night at three, UTC),
    or an interval ("90m", "6h", "1d"). The name is the pipeline's if none is given; `replace` puts it in the place of
    the one with this name. With `catch_up`, one run is started for each missed time, too.
    """
    seconds = check_times(cron, every)
    client, version = _upload(settings, spec or compile_pipeline(settings))
    made = client.schedule(
        version, name or settings.pipeline_name, cron=cron, every_seconds=seconds, replace=replace, catch_up=catch_up
    )
    return ScheduledVersion(version, made)


def schedules(settings: Settings) -> list[Schedule]:
    """Return the recurring runs of the pipeline's experiment."""
    return list(_client(settings).schedules())


def switch_schedule(settings: Settings, name: str, action: Literal["enable", "disable", "delete"]) -> list[Schedule]:
    """Enable, disable or delete the schedules of a name, and return them; a ConfigurationError if there is none."""
    return list(_client(settings).switch(name, action))


def train_job(
    settings: Settings,
    name: str,
    *,
    examples: Sequence[str],
    transform_graph: str,
    model: str,
    evaluated: Sequence[str] = (),
    base_model: str = "",
) -> str:
    """Return the manifest of a training by several pods: a TrainJob for Kubeflow Trainer, with its runtime.

    Places are as the pods see them, on a volume of kubeflow.volumes; `examples` are file patterns of tf.Examples, and
    so are those `evaluated`, whose labels feedback begins with.
    """
    from bike_pipeline.modeling.train_worker import TrainingJob
    from bike_pipeline.runners.kubeflow_runner import KubeflowRunner

    job = TrainingJob(
        examples=tuple(examples),
        evaluated=tuple(evaluated),
        # An absolute path stays what it is.
        schema_file=str(Path(settings.kubeflow.project_folder) / settings.schema_file),
        transform_graph=transform_graph,
        base_model=base_model,
        run_dir=f"{model.rstrip('/')}.run",
        model_dir=model,
        training=settings.training,
        seed=settings.seed,
    )
    return KubeflowRunner.train_job(settings, job, name)


def _client(settings: Settings) -> KubeflowClient:
    from bike_pipeline.runners.kubeflow.client import KubeflowClient

    return KubeflowClient(settings)


def _upload(settings: Settings, spec: Path) -> tuple[KubeflowClient, Version]:
    from bike_pipeline.runners.kubeflow import acceptance

    try:
        text = spec.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read it ({error})", where=str(spec), fix="check the path") from None
    acceptance.check(text)
    client = _client(settings)
    return client, client.upload(text)


def check_times(cron: str, every: str) -> int:
    """Return the interval in seconds, 0 for a cron expression; a ConfigurationError if neither or both are times."""
    if bool(cron) == bool(every):
        raise ConfigurationError("a schedule has either a cron expression or an interval", fix="give one of the two")
    fields = cron.split()
    if cron and len(fields) != _CRON_FIELDS and not (len(fields) == 1 and cron.startswith("@")):
        fix = f"write '0 {cron.strip()}'" if len(fields) == _CRON_FIELDS - 1 else "write such as '0 0 3 * * *'"
        raise ConfigurationError(
            f"'{cron}' has {len(fields)} fields, and Kubeflow's cron has six, seconds first", where="--cron", fix=fix
        )
    found = re.fullmatch(r"(\d+)\s*([smhd])", every.strip())
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if every and seconds < 60:  # the controller looks for due runs about once a minute
        raise ConfigurationError(
            f"'{every}' is not an interval of a minute or more", where="--every", fix="write 90m, 6h or 1d"
        )
    return seconds
