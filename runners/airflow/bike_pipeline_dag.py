"""Airflow's DAG of continuous training: at each of its times `bike-pipeline watch --once` does what there is to do.

What has changed, and which change has had its run, the ledger says. Airflow only says when to look: its events may come
twice, or be lost while a run is under way, and neither matters here. Airflow needs nothing of the product in its own
environment, whose packages do not go with TFX's; variables of its workers say where the product is:

    BIKE_PIPELINE_COMMAND    the program; `bike-pipeline` on the PATH by default
    BIKE_PIPELINE_PROJECT    the folder to call it in, where its workspace is; the present one by default
    BIKE_PIPELINE_CONFIG     settings laid over configs/base.yaml, a file
    BIKE_PIPELINE_CRON       when to look; every five minutes by default
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

# Ledger states of a run that somebody has to look at; a refused candidate is an answer, and what serves stays.
BROKEN = ("failed", "dead")
# The command line's exit code where another process has the workspace or watches (docs/errors.md).
BUSY = 7


@dag(
    dag_id="bike_pipeline",
    schedule=os.environ.get("BIKE_PIPELINE_CRON", "*/5 * * * *"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # The ledger tries again what failed, after a back-off of its own.
    default_args={"retries": 0},
    params={"because": Param("", type="string", description="Run even if nothing has changed; why, for the history")},
    doc_md=__doc__,
    tags=["bike-pipeline"],
)
def bike_pipeline() -> None:
    """Let the ledger's triggers be asked, and tell what came of each run."""

    @task(execution_timeout=timedelta(hours=12))
    def watch() -> list[dict[str, Any]]:
        """Do what there is to do; return a document for each run that ended, and skip the rest where there was none."""
        because = get_current_context()["params"]["because"]
        command = [os.environ.get("BIKE_PIPELINE_COMMAND", "bike-pipeline")]
        command += ["retrain", "--because", because] if because else ["watch", "--once"]
        if config := os.environ.get("BIKE_PIPELINE_CONFIG"):
            command += ["--config", config]
        folder = os.environ.get("BIKE_PIPELINE_PROJECT") or None
        # Its log goes to Airflow's as it comes; its answers are the documents.
        done = subprocess.run([*command, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == BUSY:
            raise AirflowSkipException("another process has the workspace; the ledger keeps what there is to do")
        # `retrain` has an answer where its run was refused or failed, too; `watch` has none where it ends like this.
        if done.returncode and not (because and done.stdout):
            raise AirflowFailException(f"{' '.join(command)} ended with exit code {done.returncode}; its log says why")
        if because:
            # Where another process watches, it does what was asked for.
            run = json.loads(done.stdout)["run"]
            runs = [{**run["facts"], "run": run["number"], "state": run["state"], "why": run["why"]}] if run else []
        else:
            runs = [json.loads(line) for line in done.stdout.splitlines()]
        if not runs:
            raise AirflowSkipException("nothing to do; `bike-pipeline triggers list` says why")
        return runs

    @task
    def judge(runs: list[dict[str, Any]]) -> list[str]:
        """Tell what came of each run; fail where one broke."""
        told = [f"run {run['run']}: {run['state']}, {run['why']}" for run in runs]
        print(*told, sep="\n")  # noqa: T201 (a task's log)
        if any(run["state"] in BROKEN for run in runs):
            raise AirflowFailException("; ".join(told))
        return told

    judge(watch())


bike_pipeline()
