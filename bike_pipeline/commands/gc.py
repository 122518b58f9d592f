"""`bike-pipeline gc`: frees the files of old artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import FiniteRange, json_option, settings_options
from bike_pipeline.commands.output import Parts, answer, table

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.gc import GarbageCollection


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
@json_option
def command(settings: Settings, as_json: bool, **options: Any) -> None:
    """Free the files of old artifacts; their records stay, and `lineage` says what is gone.

    Never freed is what the lineage of the model that serves needs, or that of its baseline. Pushed models in the
    serving folder, the span store and logs are not touched. Interrupted, the next call goes on where this one stopped.
    """
    from bike_pipeline.use_cases.gc import collect_garbage

    found = collect_garbage(settings, **options)
    answer(found, lambda _: _view(found, settings.pipeline_root), as_json)


def _view(found: GarbageCollection, root: str) -> Parts:
    freed = "would be freed" if found.dry_run else "freed"
    groups: dict[tuple[str, str], list[int]] = {}
    for payload in found.artifacts:
        groups.setdefault((freed if payload.free else payload.reason, payload.kind), []).append(payload.size)
    rows, last = [], ""
    for (reason, kind), sizes in sorted(groups.items(), key=lambda group: (group[0][0] != freed, group[0])):
        fate = reason if reason == freed else f"kept: {reason}"
        rows.append(("" if fate == last else fate, kind, len(sizes), _size(sum(sizes))))
        last = fate
    verb = "would free" if found.dry_run else "freed"
    number = sum(payload.free for payload in found.artifacts)
    return [
        table(("what becomes of it", "artifact", "number", "size"), rows, right=("number", "size")),
        f"{verb} {_size(found.freed_bytes)} of {number} artifacts in {root}",
    ]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit in ("B", "kB") else f"{count:,.1f} {unit}"
