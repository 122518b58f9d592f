"""The lineage of a model and of a run, as a graph, a report, dot, SVG and a page."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError, ModelError
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_lookup import FoundModel, find_model
from bike_pipeline.lineage.reports.graph import Edge, Graph, Node, as_dot, as_svg, graph_of
from bike_pipeline.lineage.reports.lineage_report import (
    LineageReport,
    as_card,
    as_page,
    report_as_json,
    report_of_model,
    report_of_run,
)
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.settings import load_settings
from tests.lineage.test_run_page import Page
from tests.lineage.world import FIRST, SECOND, Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two runs; only read."""
    return Runs(tmp_path_factory.mktemp("world")).two()


def model_report(runs: Runs, name: str | None = None) -> LineageReport:
    lineage = Lineage(runs.recorder.store)
    chosen = find_model(lineage, runs.settings.serving_path, name)
    return report_of_model(History(lineage), chosen, runs.settings.store_uri)


def test_the_way_back_from_the_pushed_model_is_complete(runs: Runs) -> None:
    report = model_report(runs)
    names = {node.name for node in report.graph.nodes.values()}
    assert names == {
        "PushedModel", "Pusher", "ModelBlessing", "ModelEvaluation", "Evaluator", "Model", "BaselineLookup", "Trainer",
        "TransformGraph", "Transform", "Schema", "ImportSchemaGen", "ExampleStatistics", "StatisticsGen", "DataGate",
        "DataGateReport", "Examples", "CsvExampleGen", "span 1 version 1", "span 2 version 1",
    }  # fmt: skip
    (root,) = report.graph.roots
    assert report.graph.nodes[root].name == "PushedModel"
    # From the root every node but those that only look on is reached backwards, and nothing of the other run is there.
    assert {node.run for node in report.graph.nodes.values() if node.kind == "stage"} == {"run-2"}
    assert report.missing == []
    assert "(serving now)" in report.title
    facts = dict(report.facts)
    # One format of time, the same as in tables.
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC( to .*)?", facts[name]) for name in ("pushed", "trained")
    )
    assert facts["run"] == "run-2"
    assert facts["seed"] == str(runs.settings.seed)
    assert report.gates is not None
    assert report.gates["decisions"][0]["reason"] == "mae, overall: 40.0"


def test_spans_come_with_their_files_and_hashes(runs: Runs) -> None:
    history, newest = model_report(runs).spans
    assert (history.span, history.role, newest.span, newest.role) == (1, "history", 2, "train, eval")
    stored = runs.spans.get(2, 1)
    assert newest.files == {name: record.sha256 for name, record in stored.manifest.files.items()}
    assert newest.manifest_sha256 == stored.manifest_sha256
    assert newest.source.endswith("bike-2012.csv")
    assert newest.problem == ""


def test_an_older_model_and_a_run_have_their_own_lineage(runs: Runs) -> None:
    older = model_report(runs, str(FIRST))
    assert "serving now" not in older.title
    assert [span.span for span in older.spans] == [1]
    assert model_report(runs, str(runs.models[0].id)).title == older.title
    lineage = Lineage(runs.recorder.store)
    run = report_of_run(History(lineage), "run-1", runs.settings.store_uri)
    assert {node.run for node in run.graph.nodes.values() if node.kind == "stage"} == {"run-1"}
    assert run.metrics == older.metrics
    with pytest.raises(MetadataError, match="no run 'run-9'"):
        report_of_run(History(lineage), "run-9", runs.settings.store_uri)


def test_a_run_that_failed_early_shows_what_it_came_to(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    examples = runs.artifact("Examples", "CsvExampleGen", "examples", span=1, version=1, **runs.window(1))
    runs.recorder.execution("CsvExampleGen", "broken", outputs={"examples": examples})
    runs.recorder.execution("DataGate", "broken", state=pb.Execution.FAILED, error="span 1 is refused")
    lineage = Lineage(runs.recorder.store)
    report = report_of_run(History(lineage), "broken", runs.settings.store_uri)
    assert "span 1 is refused" in report.title
    assert (report.gates, report.metrics) == (None, None)
    assert {node.name for node in report.graph.nodes.values()} == {"Examples", "CsvExampleGen", "span 1 version 1"}
    assert report.missing == ["the record of the run"]


def test_what_is_not_on_record_is_said(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.run("older", (1,), FIRST, record=False)
    shutil.rmtree(runs.workspace / "spans")
    report = model_report(runs)
    assert "the record of the run" in report.missing
    assert "the span store does not tell" in report.spans[0].problem
    assert "Not on record" in as_page(report)


def test_a_span_that_was_replaced_is_not_passed_off_as_the_one_that_was_read(tmp_path: Path) -> None:
    runs = Runs(tmp_path).two()
    manifest = runs.workspace / "spans" / "span-0001" / "version-0001" / "manifest.json"
    other = json.loads(manifest.read_text(encoding="utf-8"))
    other["created_at"] = "2001-01-01T00:00:00Z"
    from bike_pipeline.data.manifest import parse_manifest, render_manifest

    manifest.write_bytes(render_manifest(parse_manifest(json.dumps(other).encode(), "")))
    span = model_report(runs, str(FIRST)).spans[0]
    assert span.files == {}
    assert "another manifest" in span.problem


def test_freed_and_missing_payloads_are_marked(tmp_path: Path) -> None:
    runs = Runs(tmp_path).two()
    (examples, *_) = [a for a in runs.recorder.store.get_artifacts() if a.type == "Examples"]
    examples.state = pb.Artifact.DELETED
    runs.recorder.store.put_artifacts([examples])
    shutil.rmtree(runs.models[0].uri)
    report = model_report(runs, str(FIRST))
    states = {node.name: node.payload for node in report.graph.nodes.values() if node.kind == "artifact"}
    assert states["Examples"] == "freed"
    assert "missing" in {n.payload for n in report.graph.nodes.values() if n.key == f"artifact-{runs.models[0].id}"}
    assert states["Schema"] == "there"
    assert "style=dashed" in as_dot(report.graph, "x")
    assert 'class="artifact gone"' in as_svg(report.graph)


def test_a_warm_start_brings_the_lineage_it_began_from(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    first = runs.run("run-1", (1,), FIRST)
    runs.run("run-2", (2,), SECOND, base=first)
    graph = model_report(runs).graph
    assert {"span 1 version 1", "span 2 version 1"} <= {node.name for node in graph.nodes.values()}
    assert "warm start" in {edge.role for edge in graph.edges if edge.source == f"artifact-{first.id}"}


def test_json_holds_everything(runs: Runs) -> None:
    plain = json.loads(json.dumps(report_as_json(model_report(runs))))
    keys = {node["key"] for node in plain["graph"]["nodes"]}
    assert all(edge["source"] in keys and edge["target"] in keys for edge in plain["graph"]["edges"])
    assert plain["spans"][0]["files"]


def test_dot_is_balanced_and_quotes_what_needs_it(runs: Runs) -> None:
    text = as_dot(model_report(runs).graph, 'a "title"')
    assert text.startswith('digraph "a \\"title\\"" {\n')
    assert text.rstrip().endswith("}")
    assert len(re.findall(r"shape=cylinder", text)) == 2
    assert '"span-2/1" -> ' in text


def test_the_drawing_holds_every_node_inside_of_its_frame_and_none_on_another(runs: Runs) -> None:
    graph = model_report(runs).graph
    root = ElementTree.fromstring(as_svg(graph))
    space = "{http://www.w3.org/2000/svg}"
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = [
        tuple(float(rect.get(name, 0)) for name in ("x", "y", "width", "height")) for rect in root.iter(f"{space}rect")
    ]
    assert len(boxes) == len(graph.nodes)
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    assert len(list(root.iter(f"{space}path"))) == len(graph.edges)


def test_a_circle_is_drawn_and_not_followed_for_ever() -> None:
    nodes = {key: Node(key, "artifact", key, "") for key in ("a", "b")}
    graph = Graph(nodes, [Edge("a", "b", ""), Edge("b", "a", ""), Edge("gone", "a", "")], ["a"])
    assert as_svg(graph).count("<rect") == 2
    assert as_svg(Graph()).startswith("<svg")


def test_the_page_is_whole_and_asks_for_nothing_from_outside(runs: Runs) -> None:
    page = as_page(model_report(runs))

    class Outside(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag in ("script", "link", "img", "iframe") or any(name in ("src", "href") for name, _ in attrs):
                self.found.append(tag)

    parser = Outside()
    parser.feed(page)
    assert parser.found == []
    assert "url(" not in page
    # Each line of the drawing has its arrow head, and paper, where nobody points at a box, has a row for each box.
    assert page.count('class="head"') == page.count('class="edge"') > 0
    report = model_report(runs)
    for node in report.graph.nodes.values():
        assert f"<span>{node.key.replace('-', ' ')}</span>" in page
        assert node.detail in unescape(page)
    for text in ("span 2 version 1", "mae, overall: 40.0", runs.spans.get(1, 1).manifest_sha256, "CsvExampleGen"):
        assert text in page


def test_names_are_escaped(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.run("<script>alert(1)</script>", (1,), FIRST)
    assert "<script>" not in as_page(model_report(runs))


def test_a_graph_of_nothing_is_empty(runs: Runs) -> None:
    lineage = Lineage(runs.recorder.store)
    assert graph_of(History(lineage), [99_999]) == Graph()
    assert find_model(lineage, runs.settings.serving_path, None) == FoundModel(
        runs.models[1].id, lineage.serving_model()
    )


def test_of_several_workspaces_on_one_store_each_has_its_own_serving_model(runs: Runs) -> None:
    lineage, own = Lineage(runs.recorder.store), runs.settings.serving_path
    # The other workspace has pushed later, and once in the same second.
    runs.settings = load_settings(assignments=(f"workspace={runs.workspace}", "serving.base_path=/elsewhere"))
    other = runs.settings.serving_path
    later, same_second = runs.run("run-3", (1,), SECOND + 5), runs.run("run-4", (1,), SECOND)
    assert find_model(lineage, own, None).model_id == runs.models[1].id
    assert find_model(lineage, other, None).model_id == later.id
    assert find_model(lineage, "", None).model_id == later.id
    assert find_model(lineage, own, str(SECOND)).model_id == runs.models[1].id
    assert find_model(lineage, other, str(SECOND)).model_id == same_second.id
    # Whoever asks for another workspace's version by its number gets it.
    assert find_model(lineage, own, str(SECOND + 5)).model_id == later.id
    with pytest.raises(ModelError, match="no model has been pushed yet"):
        find_model(lineage, "/nowhere/bike_demand", None)


def test_a_model_card_says_what_the_model_is_how_good_it_is_and_what_it_is_not_for(runs: Runs) -> None:
    report = model_report(runs)
    assert report.gates is not None
    assert report.metrics is not None
    overall = f"overall 900 {report.metrics[0]['mae']:g}"
    over = {**report.gates["decisions"][0], "passed": False, "binding": False, "reason": "mae, winter: +113.1 %"}
    weak = replace(report, gates={**report.gates, "decisions": [over]})
    words = Page(as_card(weak)).text
    for text in ("Model card: model", "What it reads", "windspeed", "span", "What it is not for", overall):
        assert text in words
    assert "over its limit, reported only mae, winter: +113.1 %" in words
    assert words.index("overall 900") < words.index("winter 900")
    assert "It was never evaluated." in Page(as_card(replace(report, gates=None, metrics=None))).text
