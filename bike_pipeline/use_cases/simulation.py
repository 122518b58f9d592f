"""The time machine: what each policy of retraining would have made of the embedded years, week by week."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bike_pipeline import progress
from bike_pipeline.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from bike_pipeline.retraining.simulation.plan import Plan
    from bike_pipeline.retraining.simulation.policies import Outcome
    from bike_pipeline.retraining.simulation.scores import Scores, World
    from bike_pipeline.settings import Settings

PROCESSES = 2
PICTURE, FIGURES = "simulation.png", "simulation.json"
_world: World | None = None


@dataclass(frozen=True)
class Simulation:
    """What policies would have come to.

    Attributes:
        outcomes: of each policy, the oracle last.
        poisoned: uploads that are wrong, by what is wrong with them, and why each was refused; "" if it was not.
        refused: sound uploads that were refused, by the first day of their week, and why.
        picture: the drawing (PNG).
        figures: all of this as JSON.
    """

    outcomes: Sequence[Outcome]
    poisoned: Sequence[tuple[str, str]]
    refused: dict[str, str]
    picture: Path
    figures: Path


def simulate(
    settings: Settings,
    *,
    every: Sequence[int] = (14, 28),
    seed: int = 1,
    injections: bool = True,
    output: Path | None = None,
) -> Simulation:
    """Play the embedded years week by week, and write what each policy of retraining would have come to.

    Uploads go through `data ingest` into a store of their own, and through the checks of the data gate; models are
    those of the settings, trained on all rows that had arrived, once for all policies; each week they know the labels
    that had arrived (see `modeling.feedback`).

    Args:
        settings: the settings; `retraining.policy` is what "this policy" decides by.
        every: days between the runs of the policies that go by the calendar.
        seed: of late uploads, outages, poisoned uploads and drift.
        injections: whether there are any; without, each upload comes when its week is over.
        output: the folder for picture and figures; by default <workspace>/reports.

    Raises:
        MissingExtraError: the extra `notebooks` is not installed, which draws.
    """
    import numpy as np

    from bike_pipeline import extras
    from bike_pipeline.retraining.simulation import drawing, policies
    from bike_pipeline.retraining.simulation.plan import Plan
    from bike_pipeline.storage.atomic_files import replace_file

    extras.require("notebooks", "drawing the simulation")
    weeks = int(_rows(None)["week"].max()) + 1
    plan = Plan.drawn(weeks, seed) if injections else Plan.punctual(weeks)
    rows = _rows(plan)
    progress.report(0.0, "checking the uploads")
    checked = _checked(settings, rows, plan)
    scores = _scores(settings, _world_of(rows, checked.arrivals), sorted(checked.uploads))
    of = policies.Simulated(scores, np.bincount(rows["week"]), checked.uploads)
    outcomes = [policies.outcome(of, policies.NEVER, lambda *_: False)]
    outcomes.append(policies.outcome(of, policies.ALWAYS, lambda *_: True))
    outcomes += [policies.outcome(of, f"every {days} days", policies.every_days(days)) for days in every]
    outcomes.append(policies.outcome(of, policies.DRIFT, lambda _, drifted: drifted))
    this = policies.SettingsPolicy(settings.retraining.policy, checked.uploads)
    outcomes.append(policies.outcome(of, policies.THIS, this))
    outcomes.append(policies.oracle(of, len(outcomes[-1].trained)))
    folder = output or settings.workspace_path / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    found = Simulation(outcomes, checked.poisoned, checked.refused, folder / PICTURE, folder / FIGURES)
    happened = {"arrivals": plan.arrivals.tolist(), "poisoned": plan.poisoned, "drifts": plan.drifts}
    document = {**asdict(found), "plan": happened}
    replace_file(found.figures, (json.dumps(document, indent=1, default=str) + "\n").encode())
    replace_file(found.picture, drawing.draw(of, outcomes, plan))
    return found


class _Checked(NamedTuple):
    """What became of the uploads; the first two by the week at whose beginning they came, the others by theirs."""

    arrivals: npt.NDArray[np.int64]
    uploads: dict[int, list[int]]
    poisoned: list[tuple[str, str]]
    refused: dict[str, str]


def _checked(settings: Settings, rows: pd.DataFrame, plan: Plan) -> _Checked:
    """Bring every upload in as `data ingest` does, and hold it against the history as the data gate does."""
    import numpy as np
    import pyarrow as pa

    from bike_pipeline import features
    from bike_pipeline.components.data_gate import severity_of
    from bike_pipeline.data import calendar_sums, plausibility
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.retraining.simulation.plan import FIRST_WEEKS, POISONS

    of_weeks = [rows[rows["week"] == week] for week in range(len(plan.arrivals))]
    uploads = [(int(at), week, "") for week, at in enumerate(plan.arrivals)]
    uploads += [(int(plan.arrivals[week]) - 1, week, kind) for week, kind in plan.poisoned.items()]
    history = none = calendar_sums.total([])
    found = _Checked(np.full(len(of_weeks), len(of_weeks) + 1), {}, [], {})

    def why_not(path: Path, own: Settings) -> str:
        nonlocal history
        store = SpanStore(own.store_uri)
        try:
            version = ingest(own, str(path)).version
        except DataError as error:
            return error.what
        table = store.read(version.span, version.version)
        days = table.column(features.DATE).cast(pa.int32())
        columns = {name: table.column(name).to_numpy() for name in calendar_sums.COLUMNS if name != features.DATE}
        sums = calendar_sums.of_rows(columns | {features.DATE: days.to_numpy()})
        for anomaly in plausibility.anomalies(sums, none, history, own.gate.limits):
            if severity_of(anomaly, own.gate) == "error":
                store.withdraw(version.span, version.version, anomaly.reason)
                return anomaly.reason
        history = calendar_sums.total([history, sums])
        return ""

    with tempfile.TemporaryDirectory(prefix="bike-simulation-") as folder:
        own = settings.model_copy(update={"data": settings.data.model_copy(update={"store": f"{folder}/store"})})
        for at, week, kind in sorted(uploads):
            upload = of_weeks[week].copy()
            upload = POISONS[kind](upload, of_weeks[week - FIRST_WEEKS // 2].copy()) if kind else upload
            path = Path(folder, f"week-{week}.csv")
            upload.drop(columns="week").to_csv(path, index=False)
            reason = why_not(path, own)
            if kind:
                found.poisoned.append((kind, reason))
            elif reason:
                found.refused[str(upload["dteday"].iloc[0])] = reason
            if not reason:
                found.arrivals[week] = at
            if not reason and at < len(of_weeks):
                found.uploads.setdefault(max(at, FIRST_WEEKS), []).append(len(upload))
    return found


def _rows(plan: Plan | None) -> pd.DataFrame:
    """Return the embedded data as the plan lets it come to pass, with a column `week`."""
    import pandas as pd

    from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE, embedded_bytes
    from bike_pipeline.retraining.simulation.plan import DRIFTS, WEEK_DAYS

    embedded_bytes()
    rows = pd.read_csv(EMBEDDED_FILE)
    days = pd.to_datetime(rows["dteday"])
    rows["week"] = (days - days[0]).dt.days // WEEK_DAYS
    for name, first in (plan.drifts if plan else {}).items():
        later = rows[rows["week"] >= first].copy()
        DRIFTS[name](later)
        rows.loc[later.index] = later
    return rows


def _world_of(rows: pd.DataFrame, arrivals: Any) -> World:
    import numpy as np

    from bike_pipeline import features
    from bike_pipeline.data.past_weather import COLUMNS, optional_inputs
    from bike_pipeline.modeling.feedback import FIRST_DAY, HOURS_A_DAY
    from bike_pipeline.retraining.simulation.scores import World

    wanted = (*features.INPUTS, *(features.BY_NAME[name] for name in features.LABELS))
    kinds = {"int": np.int64, "float": np.float32}
    columns = {feature.name: rows[feature.name].to_numpy(kinds[feature.kind]) for feature in wanted}
    days = rows["dteday"].to_numpy("datetime64[D]").astype(np.int64)
    hours = days * HOURS_A_DAY + rows["hr"].to_numpy()
    columns |= optional_inputs(hours, {name: rows[name].to_numpy() for name in COLUMNS})
    return World(columns, hours - FIRST_DAY.astype(np.int64) * HOURS_A_DAY, arrivals[rows["week"].to_numpy()])


def _begin(world: World) -> None:
    """Prepare a process that trains: the processes share the cores."""
    global _world  # noqa: PLW0603 (what each process of the pool is given once)
    os.environ["OMP_NUM_THREADS"] = "1"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _world = world


def _score(week: int, training: dict[str, Any], monitoring: Any, seed: int) -> Scores:
    from bike_pipeline.retraining.simulation.scores import of_model

    assert _world is not None
    return of_model(_world, week, training, monitoring, seed)


def _scores(settings: Settings, world: World, weeks: list[int]) -> dict[int, Scores]:
    """Train the model of each week once, in two processes, the long ones first."""
    training = settings.training.model_dump(mode="json")
    context = multiprocessing.get_context("spawn")
    found: dict[int, Scores] = {}
    with ProcessPoolExecutor(PROCESSES, context, _begin, (world,)) as pool:
        jobs = {pool.submit(_score, week, training, settings.monitoring, settings.seed): week for week in weeks}
        for job in as_completed(jobs):
            found[jobs[job]] = job.result()
            progress.report(len(found) / len(jobs), f"trained {len(found)} of {len(jobs)} models")
    return found
