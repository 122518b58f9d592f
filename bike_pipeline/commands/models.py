"""Commands about trained models: `models`, `export`, `parity`, `compress`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands import shared
from bike_pipeline.features import ANSWERS
from bike_pipeline.use_cases.compression import METHODS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bike_pipeline.exporting.compression.rule import Candidate
    from bike_pipeline.lineage.store.entities import ModelRecord
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.compression import Compression
    from bike_pipeline.use_cases.export import Export, ParityMatrix

_NUMBERS = ("max difference", "mean", "max relative", "golden row", "RMSE", "MAE +")
_SPEEDS = ("size", "cold start", "one row", "rows/s")


@shared.command()
@shared.cluster_option
@shared.json_option
def models_command(settings: Settings, cluster: bool, as_json: bool) -> None:
    """List every trained model, from ML Metadata: its span, its metrics, whether it is blessed, what it serves as."""
    from bike_pipeline.use_cases.lineage import models

    shared.answer(models(settings, cluster=cluster), _models_view, as_json)


def _models_view(found: list[ModelRecord]) -> shared.Parts:
    rows = []
    # A workspace may hold models of several targets.
    kinds = [a for a in ANSWERS.values() if any(a.metrics[0] in model.metrics for model in found)]
    there = {name for answer in kinds or [ANSWERS["rentals"]] for name in answer.metrics}
    shown = [name for name in shared.METRIC_NAMES if name in there]
    for model in found:
        served = "-" if model.served_version is None else str(model.served_version)
        rows.append(
            (
                model.model_id,
                f"{model.trained:%Y-%m-%d %H:%M:%S}",
                f"{model.span} v{model.version}",
                shared.BLESSED[model.blessed],
                f"{served} (serving)" if model.serving else f"{served} (NOT serving)" if model.wrong else served,
                *(f"{model.metrics[m]:.3f}" if m in model.metrics else "-" for m in shown),
            )
        )
    names = tuple(shared.METRIC_NAMES[m] for m in shown)
    wrong = [f"version {m.served_version} is promoted and cannot serve: {m.wrong}" for m in found if m.wrong]
    return [shared.table(("model", "trained (UTC)", "span", "blessed", "served as", *names), rows, right=names), *wrong]


@shared.command()
@shared.formats_option
@shared.model_option
@shared.json_option
@click.option("--output", type=shared.PATH, help="Write to this folder instead of <workspace>/exports/<model>.")
@click.option("--force", is_flag=True, help="Export a model that was not blessed; the exports are marked as such.")
def export_command(settings: Settings, as_json: bool, **options: Any) -> None:
    """Export a model to each format, check it against the SavedModel, and measure it.

    The folder holds a folder a format, parity.json and golden.json; it appears whole or not at all. Ends with exit code
    18 if a format that was asked for cannot be exported or fails its check.
    """
    from bike_pipeline.use_cases.export import export

    log = shared.log_file(settings, "export")
    with shared.captured(log) as screen:
        with shared.progress_on(screen, silent=as_json):
            made = export(settings, **options)
        document = {"folder": made.folder, **made.report}
        shared.answer(document, lambda _: [_export_view(made), f"log: {log}"], as_json, screen)
    made.require()


def _export_view(made: Export) -> shared.Parts:
    from rich.text import Text

    warning = Text("NOT blessed: the exports are marked as such; never serve them", style="bold red")
    return [_parity_table(made.report), *([] if made.report["blessed"] else [warning]), f"exported to {made.folder}"]


@shared.command()
@shared.formats_option
@shared.model_option
@shared.json_option
def parity_command(settings: Settings, as_json: bool, **options: Any) -> None:
    """Measure the parity matrix of a model: every format against the SavedModel, in one run.

    Each format is exported anew and loaded in a process of its own. Columns: largest and mean difference on the golden
    rows, the worst of them, RMSE and MAE on the eval split, size, cold start, latency of one row and throughput with
    1,024 rows a call.
    """
    from bike_pipeline.use_cases.export import parity

    log = shared.log_file(settings, "parity")
    with shared.captured(log) as screen:
        with shared.progress_on(screen, silent=as_json):
            found = parity(settings, **options)
        shared.answer(found.report, lambda _: [_parity_view(found), f"log: {log}"], as_json, screen)


def _parity_view(found: ParityMatrix) -> shared.Parts:
    golden, evaluated = found.report["golden"]["rows"], found.report["eval_rows"]
    rows = f"{golden:,} golden rows, {evaluated:,} rows of the eval split"
    return [f"model {found.model_id}, {rows}", _parity_table(found.report)]


def _parity_table(report: dict[str, Any]) -> RenderableType:
    """Return the content of `parity.json` as a table, the worst golden row of each format, and why formats failed."""
    from rich.console import Group
    from rich.text import Text

    formats = report["formats"].values()
    marks = {True: Text("✔", style="green"), False: Text("✘", style="bold red")}
    rows = [(entry["title"], marks[entry["passed"]], *_parity_cells(entry)) for entry in formats]
    columns = ("format", "", *_NUMBERS, "worst slice", *_SPEEDS)
    parts: list[RenderableType] = [shared.table(columns, rows, right=(*_NUMBERS, *_SPEEDS))]
    if worst := [e for e in formats if e["worst_golden_row"] and e["parity"]["max_difference"]]:
        names = list(worst[0]["worst_golden_row"])
        head = ("row", *names[:-2], "SavedModel", "format's answer")
        values = [(_number(entry["worst_golden_row"][name], ".6g") for name in names) for entry in worst]
        rows = [(e["title"], e["parity"]["worst_row"], *cells) for e, cells in zip(worst, values, strict=True)]
        title = "\ngolden rows that are furthest from the SavedModel, rentals an hour"
        parts += [Text(title, style="bold"), shared.table(("format", *head), rows, right=head)]
    failed = [entry for entry in formats if not entry["passed"]]
    parts += [Text("")] if failed else []
    parts += [Text.assemble(("✘ ", "bold red"), f"{entry['title']}: {entry['reason']}") for entry in failed]
    gate = report["edge_gate"]
    note = "" if all(entry["own_process"] for entry in formats) else "\n* without TensorFlow's import"
    parts.append(Text(f"\nedge: {'blessed' if gate['blessed'] else 'NOT blessed'}: {gate['reason']}{note}"))
    return Group(*parts)


def _parity_cells(entry: dict[str, Any]) -> list[str]:
    from bike_pipeline.exporting.acceptance.report import size_in_words

    parity = entry["parity"]
    if parity is None:
        return ["-"] * 11
    slice_increase = entry["worst_slice_mae_increase"]
    return [
        _number(parity["max_difference"], ".3g"),
        _number(parity["mean_difference"], ".2g"),
        _number(parity["max_relative_difference"], ".2g"),
        str(parity["worst_row"]),
        _number(entry["rmse"], ".2f"),
        _share(entry["mae_increase"]),
        "-" if slice_increase is None else f"{_share(slice_increase)} {entry['worst_slice']}",
        size_in_words(entry["size_bytes"]),
        f"{entry['cold_start_ms']:,.0f} ms{'' if entry['own_process'] else ' *'}",
        f"{entry['latency_us']:,.1f} µs",
        f"{entry['rows_per_second']:,.0f}",
    ]


def _share(value: float | None) -> str:
    # Without the addition a tiny negative number would read "-0.00%".
    return "no number" if value is None else f"{round(value, 4) + 0.0:+.2%}"


def _number(value: float | None, how: str) -> str:
    return "no number" if value is None else f"{value:{how}}"


def _names(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = shared.comma_separated(value) or ()
    if parameter.name == "methods" and (unknown := sorted(set(names) - set(METHODS))):
        raise click.BadParameter(f"there is no method '{unknown[0]}'; choose from {', '.join(METHODS)}")
    return names


@shared.command()
@click.option("--methods", callback=_names, metavar="NAME,…", help=f"Of {', '.join(METHODS)}; by default all of them.")
@click.option("--formats", callback=_names, metavar="NAME,…", help="Export formats instead of the settings'.")
@shared.json_option
@click.argument("model", required=False)
def compress_command(settings: Settings, as_json: bool, **options: Any) -> None:
    """Make smaller models of MODEL, measure them on the eval split, and choose one by the rule of the settings.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a pushed folder; without it, the
    model that serves now. Candidates and the table are kept in <workspace>/compression. Nothing that serves is changed.
    Ends with exit code 18 if no candidate is within the limits of exporting.compression.
    """
    from bike_pipeline.use_cases.compression import compress

    with shared.captured(shared.log_file(settings, "compress")) as screen:
        found = compress(settings, **options)
        document = {"model_id": found.model_id, "folder": found.folder, **found.table}
        shared.answer(document, lambda _: _compress_view(found), as_json, screen)
    found.require()


def _compress_view(found: Compression) -> list[RenderableType]:
    choice = found.choice
    rows = [
        ("✔" if c is choice.winner else "·", c.method, c.format, *_cells(c), choice.reasons[c.name])
        for c in choice.candidates
    ]
    numbers = ("size", "gzip", "one row", "MAE", "overall", "worst slice")
    return [
        f"model {found.model_id}, on {found.eval_rows:,} rows of its eval split",
        shared.table(("", "method", "format", *numbers, "why"), rows, right=numbers),
        f"candidates and table: {found.folder}",
    ]


def _cells(candidate: Candidate) -> list[str]:
    def number(value: float | None, form: str, unit: float = 1) -> str:
        return "-" if value is None else form.format(value / unit)

    worst = number(candidate.worst_slice_mae_increase, "{:+.1%}")
    return [
        number(candidate.size_bytes, "{:.1f} kB", 1024),
        number(candidate.compressed_bytes, "{:.1f} kB", 1024),
        number(candidate.latency_us, "{:.1f} µs"),
        number(candidate.mae, "{:.2f}"),
        number(candidate.mae_increase, "{:+.1%}"),
        f"{worst} {candidate.worst_slice}" if candidate.worst_slice else worst,
    ]
