"""Views for an auditor: from a served number back to the rows and the code."""

from __future__ import annotations

from typing import Any

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.lineage.queries.audit import compare, impact_of
from bike_pipeline.lineage.queries.evidence import window_of
from bike_pipeline.lineage.queries.model_facts import UNCOMMITTED
from bike_pipeline.lineage.reports.graph import as_svg
from bike_pipeline.lineage.reports.lineage_report import LineageReport, report_of_model
from bike_pipeline.model_registry import ModelRegistry, verification
from bike_pipeline.notebook_views import elements as ui
from bike_pipeline.notebook_views.elements import Html, Picture
from bike_pipeline.pages import render, utc
from bike_pipeline.use_cases.lineage import Champion
from bike_pipeline.use_cases.serving import trusted_keys

_OWN_KEY = (
    "this workspace's own key, since signing.trusted_keys names none: that shows that nothing changed since the push, "
    "not who pushed; name the public key that you were given"
)
_ROLES = {"trained on": ui.NEW, "trained on as history": ui.BEFORE}


def answer(champion: Champion) -> Html:
    """Return one answer of the served model: the last hour that it was judged on."""
    hour = champion.evaluated.iloc[-1]
    weather = f"{ui.physical('temp', hour['temp']):.0f} °C, {features.WEATHER[int(hour['weathersit'])]}"
    return ui.sentence(
        f"For {hour['time']:%Y-%m-%d %H:00} ({weather}) version {champion.push.version} answers "
        f"{hour['predicted']:.1f} rentals; {int(hour[features.LABEL])} were counted."
    )


def report(champion: Champion) -> LineageReport:
    """Return all that is on record of the model that serves."""
    return report_of_model(champion.lineage, champion.chosen, champion.settings.store_uri)


def verified(champion: Champion) -> Html:
    """Return what `bike-pipeline verify` finds in the folder that answers."""
    folder = ModelRegistry(champion.settings.serving_path).folder(champion.push.version, fresh=True)
    checks = verification.checks(folder, trusted_keys(champion.settings))
    rows = [(f"{'✔' if check.passed else '✘'} {check.name}", check.detail) for check in checks]
    if not champion.settings.signing.trusted_keys:
        rows.append(("held against", _OWN_KEY))
    passed = all(check.passed for check in checks)
    return ui.table(("check", "what was found"), rows, "Every check passed" if passed else "NOT verified")


def facts(report: LineageReport) -> Html:
    """Return what the run that made the model was made of."""
    rows = [(f"✘ {name}" if UNCOMMITTED in text else name, text) for name, text in report.facts]
    return ui.table(("what", "on record"), [*rows, *(("✘ not on record", text) for text in report.missing)])


def graph(report: LineageReport) -> Html:
    """Return the way from the rows to the model; point at a box to read more."""
    shapes = [node.name for node in report.graph.nodes.values()]
    words = f"picture: lineage of {report.title}: {', '.join(shapes)}"
    return Html(render("cell.html", drawing=as_svg(report.graph)), words)


def files(report: LineageReport) -> Html:
    """Return every file of the data with its SHA-256."""
    rows = []
    for span in report.spans:
        name = f"{span.span} version {span.version}"
        rows.append((name, span.role, "manifest", span.manifest_sha256 or "✘ not recorded"))
        rows += [(name, span.role, file, sha256) for file, sha256 in span.files.items()]
        rows += [(name, span.role, f"✘ {span.problem}", "")] if span.problem else []
    return ui.table(("span", "used as", "file", "SHA-256"), rows)


def rows_on_disk(champion: Champion, report: LineageReport) -> Html:
    """Return whether the rows in the store still are those on record, every byte read again."""
    rows = []
    for span in report.spans:
        try:
            found = champion.store.verify(span.span, span.version)
            same = found.manifest_sha256 == span.manifest_sha256
            result = f"✔ the same, {found.manifest.rows.total:,} rows" if same else "✘ another manifest"
        except BikePipelineError as error:
            result = f"✘ {error}"
        rows.append((f"{span.span} version {span.version}", result))
    return ui.table(("span", "read again now"), rows)


def gates(report: LineageReport) -> Html:
    """Return every gate's decision with its reason, those that failed first."""
    decisions = sorted(report.gates["decisions"], key=lambda d: (d["passed"], not d["binding"])) if report.gates else []
    marks = ("✔ passed" if d["passed"] else "✘ failed" if d["binding"] else "reported only" for d in decisions)
    return ui.table(("decision", "gate and reason"), [(m, d["reason"]) for m, d in zip(marks, decisions, strict=True)])


def rows_by_model(champion: Champion) -> Picture:
    """Return which model saw which rows, and how."""
    windows = map(window_of, champion.lineage.artifacts("Examples"))
    versions = sorted({(entry["span"], entry["version"]) for window in windows for entry in window})
    figure, (axis,) = ui.canvas(1, 1, (11, 1.4 + 0.45 * len(versions)), "Which model saw which rows")
    models = [model.model_id for model in champion.models]
    for line, (span, version) in enumerate(versions):
        for seen in impact_of(champion.lineage, span, version, champion.settings.store_uri).sightings:
            color = _ROLES.get(seen.role, ui.MARK)
            axis.scatter(models.index(seen.model_id), line, s=220, marker="s", color=color, zorder=2)
    for number, model in enumerate(champion.models):
        if model.serving:
            axis.axvspan(number - 0.4, number + 0.4, color=ui.GOOD, alpha=0.12, lw=0)
    axis.set(
        xticks=range(len(models)),
        xticklabels=[f"model {m.model_id}\n{_fate(m)}" for m in champion.models],
        yticks=range(len(versions)),
        yticklabels=[f"span {span} version {version}" for span, version in versions],
        xlim=(-0.6, len(models) - 0.4),
        ylim=(len(versions) - 0.5, -0.5),
    )
    ui.legend_beside(axis, {**_ROLES, "through a warm start": ui.MARK})
    return Picture(figure, "which model saw which span version")


def _fate(model: Any) -> str:
    if model.serving:
        return "serves now"
    if model.served_version is not None:
        return "served before"
    return {True: "blessed", False: "refused", None: "not judged"}[model.blessed]


def impact(champion: Champion, span: int) -> Html:
    """Return every model that saw a span: what is asked when its source proves wrong."""
    found = impact_of(champion.lineage, span, None, champion.settings.store_uri)
    rows = [
        (f"model {s.model_id}", utc(s.trained_at), f"{s.role}, version {s.version}",
         ", ".join(map(str, s.served_versions)) or "never", "✘ yes" if s.serving else "no")
        for s in found.sightings
    ]  # fmt: skip
    return ui.table(("model", "trained", "how it saw the rows", "served as", "serves now"), rows)


def changed(champion: Champion) -> Html:
    """Return what changed from the model that served before to the one that serves now."""
    # A metadata server may hold pushes of other workspaces too.
    registry = ModelRegistry(champion.settings.serving_path)
    own = [push.model_id for push in champion.lineage.pushes() if push.destination == registry.uri(push.version)]
    earlier = [model_id for model_id in own if model_id != champion.model_id]
    if not earlier:
        return ui.sentence("This is the first model that was pushed; there is none before it to compare with.")
    found = compare(champion.lineage, earlier[-1], champion.model_id)
    rows = [(entry.part, entry.name, entry.before or "(none)", entry.after or "(none)") for entry in found.differences]
    rows += [("the same", ", ".join(found.same), "", "")] if found.same else []
    rows += [("✘ not known", text, "", "") for text in found.unknown]
    return ui.table(("part", "what", f"model {found.first}", f"model {found.second}"), rows)


def decisions(report: LineageReport) -> Picture:
    """Return every binding gate: how much of its limit is used up, and the change against the model before."""
    entries = report.gates["decisions"] if report.gates else []
    binding = [entry for entry in entries if entry["binding"] and entry["value"] is not None]
    limits = [entry for entry in binding if entry["kind"] != "change"]
    changes = [entry for entry in binding if entry["kind"] == "change"]
    lines = max(len(limits), len(changes), 3)
    title = "Every gate: a bar that crosses its red line fails"
    figure, (left, right) = ui.canvas(1, 2, (12, 1.1 + 0.24 * lines), title)
    percents = [100 * entry["value"] for entry in changes]
    for axis, entries, values in ((left, limits, [_used(entry) for entry in limits]), (right, changes, percents)):
        colors = [ui.NEW if entry["passed"] else ui.BAD for entry in entries]
        axis.barh(range(len(entries)), values, color=colors, height=0.7)
        axis.set(yticks=range(len(entries)), yticklabels=[_gate_name(entry) for entry in entries])
        axis.tick_params(axis="y", labelsize=8)
        axis.invert_yaxis()
    left.axvline(1, color=ui.BAD, lw=1.4)
    left.set_title("share of the limit that is used up", fontsize=10)
    for line, entry in enumerate(changes):
        right.plot([100 * entry["upper"]] * 2, [line - 0.45, line + 0.45], color=ui.BAD, lw=1.4)
    right.axvline(0, color="black", lw=0.6)
    right.set_title("error against the model before, %" if changes else "there was no model before", fontsize=10)
    return Picture(figure, "how much of each gate's limit is used up, and the change against the model before")


def _gate_name(entry: dict[str, Any]) -> str:
    share = " as a share of the naive baseline's" if entry["kind"] == "reference" else ""
    return f"{entry['metric']}{share}, {features.slice_name(entry['slicing'], entry['slice'])}"


def _used(entry: dict[str, Any]) -> float:
    """Return 0 for the best value and 1 at the limit; a gate with two limits has its best value in their middle."""
    if entry["lower"] is None:
        return float(entry["value"] / entry["upper"]) if entry["upper"] else 0.0
    middle = (entry["upper"] + entry["lower"]) / 2
    return float(abs(entry["value"] - middle) / (entry["upper"] - middle))
