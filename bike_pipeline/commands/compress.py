"""`bike-pipeline compress`: smaller models of a blessed one, measured, and the one that the rule chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import answer, captured, log_file, table
from bike_pipeline.use_cases.compression import METHODS

if TYPE_CHECKING:
    from rich.console import RenderableType

<<<<<<< HEAD
    from bike_pipeline.exporting.compression.rule import Candidate
=======
    from bike_pipeline.exporting.compression.material import Material
    from bike_pipeline.exporting.compression.rule import Candidate, Choice
    from bike_pipeline.lineage.queries.model_lookup import FoundModel
    from bike_pipeline.lineage.store.metadata_store import Lineage
>>>>>>> 04556bf (Name the questions to the lineage by what they return)
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.compression import Method
    from bike_pipeline.use_cases.compression import Compression


def _names(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (value or "").split(",") if name.strip()))
    if parameter.name == "methods" and (unknown := sorted(set(names) - set(METHODS))):
        raise click.BadParameter(f"there is no method '{unknown[0]}'; choose from {', '.join(METHODS)}")
    return names


@click.command()
@settings_options
@click.option("--methods", callback=_names, metavar="NAME,…", help=f"Of {', '.join(METHODS)}; by default all of them.")
@click.option("--formats", callback=_names, metavar="NAME,…", help="Export formats instead of the settings'.")
@json_option
@click.argument("model", required=False)
def command(
    settings: Settings, methods: tuple[Method, ...], formats: tuple[str, ...], as_json: bool, model: str | None
) -> None:
    """Make smaller models of MODEL, measure them on the eval split, and choose one by the rule of the settings.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a pushed folder; without it, the
    model that serves now. Candidates and the table are kept in <workspace>/compression. Nothing that serves is changed.
    Ends with exit code 18 if no candidate is within the limits of exporting.compression.
    """
<<<<<<< HEAD
    from bike_pipeline.use_cases.compression import compress

    with captured(log_file(settings, "compress")) as screen:
        found = compress(settings, model, methods=methods, formats=formats)
        document = {"model_id": found.model_id, "folder": found.folder, **found.table}
        answer(document, lambda _: _view(found), as_json, screen)
    found.require()


def _view(found: Compression) -> list[RenderableType]:
    choice = found.choice
    rows = [
        ("✔" if c is choice.winner else "·", c.method, c.format, *_cells(c), choice.reasons[c.name])
        for c in choice.candidates
    ]
    numbers = ("size", "gzip", "one row", "MAE", "overall", "worst slice")
    return [
        f"model {found.model_id}, on {found.eval_rows:,} rows of its eval split",
        table(("", "method", "format", *numbers, "why"), rows, right=numbers),
        f"candidates and table: {found.folder}",
    ]
=======
    from bike_pipeline.commands.output import console_on
    from bike_pipeline.lean_imports import lean_imports
    from bike_pipeline.lineage.queries.model_lookup import find_model
    from bike_pipeline.log_capture import captured
    from bike_pipeline.storage.workspace_lock import workspace_lock
    from bike_pipeline.use_cases.metadata import lineage_of

    own = settings.exporting.compression
    if formats:
        own = own.model_copy(update={"formats": formats})
    lineage = lineage_of(settings)
    chosen = find_model(lineage, settings.serving_path, model)
    base = settings.workspace_path / "compression"
    log_file = settings.logs_path / f"compress-{datetime.now(UTC):%Y%m%dT%H%M%S}.log"
    with workspace_lock(base, wait=False), captured(log_file) as screen, lean_imports(google_cloud=True):
        from bike_pipeline.exporting.compression.candidates import Trying
        from bike_pipeline.exporting.compression.choice import TABLE_FILE, choose, refused
        from bike_pipeline.exporting.compression.results import NewResult
        from bike_pipeline.exporting.formats import registry

        registry.formats_of(own.formats)
        material = material_of(lineage, chosen)
        exporting = settings.exporting.model_copy(update={"compression": own})
        trying = Trying.of(exporting, settings.training, settings.evaluation.min_rows, settings.seed)
        with NewResult(base / str(chosen.model_id)) as result:
            choice = choose(methods or METHODS, material, _calibration(material, settings), trying, result.folder)
            folder = result.publish()
        if as_json:
            table = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))
            screen.write(json.dumps({"model_id": chosen.model_id, "folder": str(folder), **table}, indent=2) + "\n")
        else:
            console = console_on(screen)
            console.print(f"model {chosen.model_id}, on {len(material.evaluated['cnt']):,} rows of its eval split")
            console.print(_table(choice))
            console.print(f"candidates and table: {folder}")
    if choice.winner is None:
        raise refused(choice)


def material_of(lineage: Lineage, chosen: FoundModel) -> Material:
    """Return what candidates of a model are made of: its files, its transform graph, its rows.

    Raises:
        ModelError: the files of one of them are gone or changed.
        DataError: the rows cannot be read.
    """
    from bike_pipeline.exporting.compression.material import Material
    from bike_pipeline.modeling import training_rows
    from bike_pipeline.stages import EVAL, HISTORY, TRAIN
    from bike_pipeline.use_cases.model_files import changed, payload_of

    producer = lineage.producer(chosen.model_id)
    inputs = lineage.inputs(producer.id) if producer is not None else {}
    found = {}
    for key in ("transform_graph", "examples", "schema"):
        artifact = next(iter(inputs.get(key, ())), None)
        if artifact is None or not Path(artifact.uri).is_dir():
            raise ModelError(
                f"the {key.replace('_', ' ')} that model {chosen.model_id} was trained with is not there any more",
                where=artifact.uri if artifact is not None else "",
                fix="run the pipeline again, or name a newer model; `bike-pipeline gc` frees the files of old ones",
            )
        if words := changed(artifact):
            raise ModelError(
                f"the {key.replace('_', ' ')} that model {chosen.model_id} was trained with cannot be trusted: {words}",
                fix="find out what changed it; `bike-pipeline run --no-cache` makes a model anew",
            )
        found[key] = Path(artifact.uri)
    folder = payload_of(lineage, chosen)
    if folder is None:
        raise ModelError(f"the files of model {chosen.model_id} are gone or changed", fix="name another model")

    def rows(*splits: str) -> Any:
        patterns = [str(found["examples"] / f"Split-{split}" / "*") for split in splits]
        return training_rows.read(patterns, str(found["schema"] / "schema.pbtxt"))

    return Material(folder, found["transform_graph"], rows(HISTORY, TRAIN), rows(EVAL))


def _calibration(material: Material, settings: Settings) -> Any:
    """Return rows spread evenly over the training span."""
    import numpy as np

    from bike_pipeline import features

    total = len(next(iter(material.train.values())))
    places = np.unique(np.linspace(0, total - 1, min(settings.exporting.calibration_rows, total)).astype(np.int64))
    return {f.name: material.train[f.name][places] for f in features.MODEL_INPUTS}


def _table(choice: Choice) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("method", "format"):
        table.add_column(name)
    for name in ("size", "gzip", "one row", "MAE", "overall", "worst slice"):
        table.add_column(name, justify="right")
    table.add_column("why", overflow="fold")
    for candidate in choice.candidates:
        mark = "✔" if candidate is choice.winner else "·"
        table.add_row(mark, candidate.method, candidate.format, *_cells(candidate), choice.reasons[candidate.name])
    return table
>>>>>>> 04556bf (Name the questions to the lineage by what they return)


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
