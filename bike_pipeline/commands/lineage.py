"""Commands about what is on record: `runs`, `lineage`, `explain-run`, `verify`, `evidence`, `gc`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bike_pipeline.commands import shared

if TYPE_CHECKING:
    from bike_pipeline.lineage.store.entities import RunRecord
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.evidence import EvidenceFolder
    from bike_pipeline.use_cases.lineage import Form, GarbageCollection
    from bike_pipeline.use_cases.serving import Verification


_COLUMNS = ("run", "started (UTC)", "span", "state", "ran", "cached", "seconds", "outcome")


@shared.command()
@shared.cluster_option
@shared.json_option
def runs_command(settings: Settings, cluster: bool, as_json: bool) -> None:
    """List every run, from ML Metadata: when, on which span, how many stages were run or cached, and its outcome."""
    from bike_pipeline.use_cases.lineage import runs

    shared.answer(runs(settings, cluster=cluster), _runs_view, as_json)


def _runs_view(found: list[RunRecord]) -> shared.Parts:
    rows = []
    for run in found:
        ran = sum(stage.state in ("done", "failed") for stage in run.stages)
        cached = sum(stage.state == "cached" for stage in run.stages)
        seconds = f"{sum(stage.seconds for stage in run.stages):.1f}"
        span = f"{run.span} v{run.version}" if run.span else "-"
        started = f"{run.started:%Y-%m-%d %H:%M:%S}"
        rows.append((run.run_id, started, span, run.state, ran, cached, seconds, run.outcome))
    return shared.table(_COLUMNS, rows, right=("ran", "cached", "seconds"))


class _ShowIsDefault(click.Group):
    """`lineage`, `lineage MODEL` and `lineage --run ID` mean `lineage show …`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ShowIsDefault)
def lineage_command() -> None:
    """Show where a model came from: `lineage [MODEL]` is short for `lineage show [MODEL]`."""


@shared.command(lineage_command)
@click.argument("model", required=False)
@click.option("--serving", is_flag=True, help="The model that serves now; so without any argument.")
@click.option("--run", "run_id", help="A run, as `bike-pipeline runs` lists it.")
@click.option("--impact", metavar="SPAN/VERSION", help="List every model that saw these rows, as history too.")
@shared.cluster_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "dot", "html", "card"]),
    default="text",
    show_default=True,
    help="dot is for Graphviz; html and card (the model card) are one page that needs no network.",
)
@click.option("--output", type=shared.PATH, help="Write to this file.")
def show(settings: Settings, cluster: bool, form: Literal["text"] | Form, output: Path | None, **subject: Any) -> None:
    """Show the way from a MODEL back to the rows and the code, with its gates and metrics.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a pushed folder.
    """
    if sum(named not in (None, False) for named in subject.values()) > 1:
        raise click.UsageError("MODEL, --serving, --run and --impact exclude each other")
    model, run_id, impact = subject["model"], subject["run_id"], subject["impact"]
    if impact is not None and form not in ("text", "json"):
        raise click.UsageError("--impact knows the formats text and json")
    if run_id is not None and form == "card":
        raise click.UsageError("a card is a model's, not a run's")
    from bike_pipeline.commands import lineage_text
    from bike_pipeline.use_cases import lineage

    if impact is not None:
        seen = lineage.impact(settings, impact, cluster=cluster)
        _write(shared.as_document(seen) if form == "json" else lineage_text.impact_text(seen), output)
        return
    report = lineage.lineage_report(settings, model, run_id=run_id, cluster=cluster)
    _write(lineage_text.report_text(report) if form == "text" else lineage.rendered(report, form), output)


@shared.command(lineage_command)
@click.argument("first")
@click.argument("second")
@shared.json_option
def diff(settings: Settings, first: str, second: str, as_json: bool) -> None:
    """Show what changed from the model FIRST to the model SECOND: data, schema, features, code, settings, metrics."""
    from bike_pipeline.commands import lineage_text
    from bike_pipeline.use_cases.lineage import compare

    shared.answer(compare(settings, first, second), lineage_text.comparison_text, as_json)


def _write(parts: shared.Parts, output: Path | None) -> None:
    """Print, or write to a file."""
    if output is None:
        shared.show(parts)
        return
    with output.open("w", encoding="utf-8") as file:
        shared.show(parts, file)
    click.echo(f"wrote {output}")


@shared.command()
@click.argument("run_id", required=False)
@click.option("--output", type=shared.PATH, help="Write to this file instead of <workspace>/reports.")
def explain_run_command(settings: Settings, run_id: str | None, output: Path | None) -> None:
    """Write one HTML page, without any need of a network, about RUN_ID (by default the newest run).

    It tells why the run took place, why each stage ran or was answered from the cache, every gate with its reason, the
    new model against the one that served, the data and how they moved, and the lineage.
    """
    from bike_pipeline.use_cases.lineage import explain_run

    click.echo(explain_run(settings, run_id, output))


@shared.command()
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    type=shared.PATH,
    help="Believe only this public key (PEM); may be given more than once.",
)
@shared.json_option
@click.argument("model", required=False)
def verify_command(settings: Settings, public_keys: tuple[Path, ...], as_json: bool, model: str | None) -> None:
    """Check a pushed MODEL against its signed manifest.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a folder, also one that
    `bike-pipeline evidence` wrote; without it, the version that serves. Of a version of this workspace, the outputs of
    all stages behind it and its spans are checked too. Ends with exit code 16 if a byte was changed, a file is too
    many, or evidence is missing.
    """
    from bike_pipeline.use_cases.serving import verify

    found = verify(settings, model, public_keys)
    shared.answer(found, _verify_view, as_json)
    found.require()


def _verify_view(found: Verification) -> shared.Parts:
    rows = [("✘" if not c.passed else "?" if c.doubt else "✔", c.name, c.detail) for c in found.checks]
    return [found.folder, shared.table(("mark", "check", "detail"), rows, header=False)]


@shared.command()
@click.option("--output", type=shared.FOLDER, help="A new folder; by default <workspace>/evidence/VERSION.")
@click.option("--reproduce", is_flag=True, help="Make the model again first; what comes of it is part of the evidence.")
@shared.json_option
@click.argument("version", type=int, required=False)
def evidence_command(
    settings: Settings, output: Path | None, reproduce: bool, as_json: bool, version: int | None
) -> None:
    """Write all evidence for a pushed VERSION, by default the one that serves, into one signed folder.

    Whoever has the public key verifies it without this product, by VERIFY.md in the folder. It holds the model card,
    technical documentation by Annex IV of the EU AI Act, lineage with digests of data and code, gates, promotions, and
    a bill of materials (the extra `supply-chain`). Ends with exit code 16 if the version is not what was pushed, or
    evidence is missing.
    """
    from bike_pipeline.commands.run_view import view_on
    from bike_pipeline.use_cases.evidence import evidence

    with (
        shared.captured(shared.log_file(settings, "evidence")) as screen,
        view_on(shared.console_on(screen), silent=as_json or not reproduce) as view,
    ):
        found = evidence(settings, version, output, reproduce=reproduce, observer=view)
    shared.answer(found, _evidence_view, as_json)


def _evidence_view(found: EvidenceFolder) -> shared.Parts:
    return [
        f"wrote {found.folder}: {len(found.files)} files, signed with key {found.key_id[:16]}",
        f"{found.not_on_record} points of Annex IV are not on record: a person must write what annex_iv.md names so",
        f"verify it: bike-pipeline verify {found.folder}, or without the product by its VERIFY.md",
    ]


@shared.command()
@click.option(
    "--keep-blessed",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Keep the lineage of so many of the newest blessed models.",
)
@click.option(
    "--keep-days",
    type=shared.FiniteRange(min=0),
    default=30,
    show_default=True,
    help="Keep what was made, or read from the cache, in so many days.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@click.option("--wait", is_flag=True, help="Wait for a run in this workspace instead of refusing.")
@shared.json_option
def gc_command(settings: Settings, as_json: bool, **options: Any) -> None:
    """Free the files of old artifacts; their records stay, and `lineage` says what is gone.

    Never freed is what the lineage of the model that serves needs, or that of its baseline. Pushed models in the
    serving folder, the span store and logs are not touched. Interrupted, the next call goes on where this one stopped.
    """
    from bike_pipeline.use_cases.lineage import collect_garbage

    found = collect_garbage(settings, **options)
    shared.answer(found, lambda _: _gc_view(found, settings.pipeline_root), as_json)


def _gc_view(found: GarbageCollection, root: str) -> shared.Parts:
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
        shared.table(("what becomes of it", "artifact", "number", "size"), rows, right=("number", "size")),
        f"{verb} {_size(found.freed_bytes)} of {number} artifacts in {root}",
    ]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit in ("B", "kB") else f"{count:,.1f} {unit}"
