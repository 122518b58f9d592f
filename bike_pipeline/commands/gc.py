"""`bike-pipeline gc`: frees the files of old artifacts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import FiniteRange, settings_options

if TYPE_CHECKING:
    from rich.table import Table

    from bike_pipeline.lineage.queries.garbage_collection import Payload
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option(
    "--keep-blessed",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Keep the lineage of so many of the newest blessed models.",
)
@click.option(
    "--keep-days",
    type=FiniteRange(min=0),
    default=30,
    show_default=True,
    help="Keep what was made, or read from the cache, in so many days.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@click.option("--wait", is_flag=True, help="Wait for a run in this workspace instead of refusing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a line for each artifact.")
def command(settings: Settings, keep_blessed: int, keep_days: float, dry_run: bool, wait: bool, as_json: bool) -> None:
    """Free the files of old artifacts; their records stay, and `lineage` says what is gone.

    Never freed is what the lineage of the model that serves needs, or that of its baseline. Pushed models in the
    serving folder, the span store and logs are not touched. Interrupted, the next call goes on where this one stopped.
    """
    from bike_pipeline.lineage.queries import garbage_collection
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.records.last_run import last_run
    from bike_pipeline.lineage.store.writing import close_interrupted
    from bike_pipeline.storage.workspace_lock import workspace_lock
    from bike_pipeline.use_cases.metadata import lineage_of

    # A store that is not there must not make a workspace.
    lineage_of(settings)
    with workspace_lock(settings.workspace_path, wait):
        lineage = lineage_of(settings)
        if not dry_run:
            # The lock is ours: what a killed run left as running does not run any more.
            close_interrupted(lineage, last_run(settings.workspace_path))
        history = History(lineage)
        payloads = garbage_collection.plan(
            lineage, history, settings.pipeline_root, settings.serving_path, keep_blessed, keep_days
        )
        if not dry_run:
            garbage_collection.free(lineage, history, payloads)
    freed = [payload for payload in payloads if payload.free]
    total = sum(payload.size for payload in freed)
    if as_json:
        found = {"dry_run": dry_run, "freed_bytes": total, "artifacts": [asdict(payload) for payload in payloads]}
        click.echo(json.dumps(found, indent=2))
        return
    from bike_pipeline.commands.output import console_on

    console_on(sys.stdout).print(_table(payloads, "would be freed" if dry_run else "freed"))
    verb = "would free" if dry_run else "freed"
    click.echo(f"{verb} {_size(total)} of {len(freed)} artifacts in {settings.pipeline_root}")


def _table(payloads: list[Payload], freed: str) -> Table:
    from rich.table import Table

    groups: dict[tuple[str, str], list[int]] = {}
    for payload in payloads:
        groups.setdefault((freed if payload.free else payload.reason, payload.kind), []).append(payload.size)
    table = Table(box=None, pad_edge=False)
    for name in ("what becomes of it", "artifact", "number", "size"):
        table.add_column(name, justify="right" if name in ("number", "size") else "left", overflow="fold")
    last = ""
    for (reason, kind), sizes in sorted(groups.items(), key=lambda group: (group[0][0] != freed, group[0])):
        said = reason if reason == freed else f"kept: {reason}"
        table.add_row("" if said == last else said, kind, str(len(sizes)), _size(sum(sizes)))
        last = said
    return table


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit in ("B", "kB") else f"{count:,.1f} {unit}"
