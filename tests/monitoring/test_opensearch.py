"""The request log in a real OpenSearch: every line is taken, nothing else is, and the searches are answered.

`make test-opensearch` fetches it and runs these tests; where it is not there they are skipped and say so, and where
`OPENSEARCH` names its folder, it must be there.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from bike_pipeline import features
from bike_pipeline.modeling.feedback import GROUPS
from tests.conftest import ROOT
from tests.database_servers import free_port
from tests.monitoring.logged import ROW, entry, write
from tests.serving.running import push, row, running_server, simple_model

sys.path.insert(0, str(ROOT / "tools"))

import opensearch_index
import opensearch_node

pytestmark = pytest.mark.slow
CONFIGS = ROOT / "configs" / "monitoring" / "opensearch"
PLACE = Path(os.environ.get("OPENSEARCH", opensearch_node.FOLDER)).absolute()
SHIPPERS = ("filebeat.yml", "fluent-bit.yaml", "logstash.conf")
INDEX = "bike-requests-2026.11.30"


def called(base, method, path, body=None, kind="application/json"):
    """Return the code and the answer of a server."""
    request = urllib.request.Request(f"{base}{path}", body, {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def opensearch(tmp_path_factory):
    """A node with the index template."""
    folder, port = tmp_path_factory.mktemp("opensearch"), free_port()
    command = opensearch_node.command(folder, port, PLACE)
    if command is None and "OPENSEARCH" not in os.environ:
        pytest.skip("OpenSearch is not there: run `make test-opensearch` (needs Java and Maven)")
    assert command is not None, f"{PLACE} holds no OpenSearch"
    base = f"http://127.0.0.1:{port}"
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                if called(base, "GET", "/_cluster/health?wait_for_status=yellow&timeout=30s")[0] == 200:
                    break
            except OSError:
                assert process.poll() is None, (folder / "node.log").read_text()[-2000:]
                assert time.monotonic() < deadline, (folder / "node.log").read_text()[-2000:]
                time.sleep(0.2)
        template = (CONFIGS / "index-template.json").read_bytes()
        assert called(base, "PUT", "/_index_template/bike-requests", template) == (200, {"acknowledged": True})
        yield base
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The lines that the real server wrote of requests that were answered and of those that were not."""
    base, workspace = tmp_path_factory.mktemp("logged"), tmp_path_factory.mktemp("logged-workspace")
    push(base, simple_model(base.parent / "logged-model", 1.0), 1)
    bodies = [
        {"instances": [row(8, 0.5)]},
        {"instances": [row(hour, 0.25) for hour in range(24)]},
        {"instances": [row(8, 86.0), row(40, 0.5), row(8, 0.5)]},
        {"inputs": {name: [value, value] for name, value in row(9, float("nan")).items()}},
        {"instances": [{"temp": "warm"}]},
        {"signature_name": "serving_examples", "instances": [{"b64": "bm8gRXhhbXBsZQ=="}]},
        {"signature_name": "texts", "instances": ["not of this model"]},
    ]
    with running_server(base, workspace) as server:
        for body in bodies:
            headers = {"Authorization": "Bearer not-for-the-log", "Content-Type": "application/json"}
            content = json.dumps(body).encode()
            asked = urllib.request.Request(f"{server.url}:predict", content, headers)
            try:
                urllib.request.urlopen(asked, timeout=60).close()
            except urllib.error.HTTPError as error:
                error.close()
        assert server.stop() == 0
    files = sorted((workspace / "monitoring" / "requests").glob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    assert len({line["http"]["request"]["id"] for line in lines}) == len(bodies)
    return lines


def sent(base, *lines):
    """Send lines as a shipper does; return what became of each."""
    parts = [part for line in lines for part in ({"index": {"_index": INDEX, "_id": line["event"]["id"]}}, line)]
    body = "".join(json.dumps(part) + "\n" for part in parts).encode()
    code, answer = called(base, "POST", "/_bulk?refresh=true", body, "application/x-ndjson")
    assert code == 200, answer
    return [item["index"] for item in answer["items"]]


def searched(base, name):
    search = json.loads((CONFIGS / "searches.json").read_text())[name]
    code, answer = called(base, "POST", "/bike-requests-*/_search", json.dumps(search).encode())
    assert code == 200, answer
    return answer["hits"]["total"]["value"], answer["aggregations"]


def test_every_line_of_a_real_log_is_taken_and_a_second_time_changes_nothing(opensearch, logged):
    assert {item["status"] for item in sent(opensearch, *logged)} <= {200, 201}
    assert {item["result"] for item in sent(opensearch, *logged)} == {"updated"}
    assert called(opensearch, "GET", f"/{INDEX}/_count")[1]["count"] == len(logged)


def test_answers_with_their_intervals_are_taken_too(opensearch, tmp_path):
    quantiles = np.tile(np.array([-1.0, 0.5, 2.0], np.float32), (GROUPS, 1))
    (file,) = write(tmp_path, entry("with-interval", ROW, {**ROW, "hr": 9}, quantiles=quantiles))
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert all(line["bike"]["interval"]["lower"] < line["bike"]["interval"]["upper"] for line in lines)
    assert [item["status"] for item in sent(opensearch, *lines)] == [201, 201]
    for line in lines:
        path = f"/{INDEX}/_doc/{line['event']['id'].replace('/', '%2F')}?refresh=true"
        assert called(opensearch, "DELETE", path)[0] == 200


def changed(line, **values):
    """Return a line with other values, by their path with underscores for dots."""
    line = copy.deepcopy(line)
    line["event"]["id"] = "changed/0"
    for path, value in values.items():
        *above, last = path.split("__")
        place = line
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return line


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"@timestamp": "30.11.2026 12:00"}, "failed to parse field [@timestamp]"),
        ({"@timestamp": "2026-13-01T00:00:00Z"}, "failed to parse field [@timestamp]"),
        ({"@timestamp": 20261130}, "failed to parse field [@timestamp]"),
        ({"http__request__headers__authorization": "Bearer secret"}, "[headers] within [http.request] is not allowed"),
        ({"bike__features__casual": 3}, "[casual] within [bike.features] is not allowed"),
        ({"user": {"name": "somebody"}}, "[user] within [_doc] is not allowed"),
        ({"bike__answer": "100"}, "failed to parse field [bike.answer]"),
        ({"bike__features__hr": 8.5}, "failed to parse field [bike.features.hr]"),
        ({"bike__version": "newest"}, "failed to parse field [bike.version]"),
        ({"bike": "what it was"}, "bike"),
    ],
    ids=["another date", "month 13", "a date as a number", "a credential", "a leak", "a person", "a text for a number",
         "half an hour", "a name for a version", "no object"],
)  # fmt: skip
def test_what_is_no_line_of_the_log_is_refused(opensearch, logged, values, reason):
    (item,) = sent(opensearch, changed(next(line for line in logged if "features" in line["bike"]), **values))
    assert item["status"] == 400
    assert reason in item["error"]["reason"]
    assert called(opensearch, "GET", f"/{INDEX}/_doc/changed%2F0")[0] == 404


def test_a_line_without_changes_would_have_been_taken(opensearch, logged):
    (item,) = sent(opensearch, changed(logged[0]))
    assert item["status"] == 201
    assert called(opensearch, "DELETE", f"/{INDEX}/_doc/changed%2F0?refresh=true")[0] == 200


def test_the_searches_of_the_dashboard_count_what_the_log_says(opensearch, logged):
    sent(opensearch, *logged)
    first = [line for line in logged if line["bike"]["row"] == 0]
    _, found = searched(opensearch, "requests_by_version")
    versions = {bucket["key"]: bucket["doc_count"] for bucket in found["versions"]["buckets"]}
    assert versions == Counter(line["bike"]["version"] for line in first if "version" in line["bike"])
    _, found = searched(opensearch, "requests_that_failed")
    codes = {bucket["key"]: bucket["doc_count"] for bucket in found["codes"]["buckets"]}
    assert codes == Counter(line["error"]["code"] for line in first if "error" in line)
    assert codes
    _, found = searched(opensearch, "latency_nanoseconds")
    durations = [line["event"]["duration"] for line in first]
    assert min(durations) <= found["duration"]["values"]["50.0"] <= found["duration"]["values"]["99.0"]
    assert found["duration"]["values"]["99.0"] <= max(durations) * 1.01
    total, found = searched(opensearch, "answers_by_hour")
    answers = [line["bike"] for line in logged if line["bike"].get("answer") is not None]
    assert total == len(answers)
    for bucket in found["hours"]["buckets"]:
        expected = [one["answer"] for one in answers if one["features"]["hr"] == bucket["key"]]
        assert bucket["rentals"]["count"] == len(expected)
        assert bucket["rentals"]["max"] == pytest.approx(max(expected), rel=1e-6)
    total, found = searched(opensearch, "rows_out_of_range")
    assert total == 2
    by_feature = {name: one["doc_count"] for name, one in found["by_feature"]["buckets"].items()}
    assert {name for name, count in by_feature.items() if count} == {"temp", "hr"}


def test_the_template_has_every_input_and_no_place_for_more():
    mappings = json.loads((CONFIGS / "index-template.json").read_text())["template"]["mappings"]

    def objects(place):
        yield place
        for field in place["properties"].values():
            if "properties" in field:
                yield from objects(field)

    assert {one["dynamic"] for one in objects(mappings)} == {"strict"}
    inputs = mappings["properties"]["bike"]["properties"]["features"]["properties"]
    assert set(inputs) == {feature.name for feature in features.MODEL_INPUTS}


def test_what_is_shipped_is_what_the_generator_writes(tmp_path):
    opensearch_index.main(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_text() == (CONFIGS / path.name).read_text(), (
            "run: PYTHONPATH=. python tools/opensearch_index.py"
        )


def test_each_shipper_sends_the_lines_to_the_index_of_their_day():
    filebeat = yaml.safe_load((CONFIGS / "filebeat.yml").read_text())
    fluent_bit = yaml.safe_load((CONFIGS / "fluent-bit.yaml").read_text())
    logstash = (CONFIGS / "logstash.conf").read_text()
    (pattern,) = json.loads((CONFIGS / "index-template.json").read_text())["index_patterns"]
    prefix = pattern.removesuffix("*")
    assert filebeat["output.elasticsearch"]["index"].startswith(prefix)
    (output,) = fluent_bit["pipeline"]["outputs"]
    assert f"{output['logstash_prefix']}-" == prefix
    assert f'index => "{prefix}%{{' in logstash
    (tail,) = fluent_bit["pipeline"]["inputs"]
    (read,) = filebeat["filebeat.inputs"]
    assert read["paths"] == [tail["path"]]
    assert f'path => "{tail["path"]}"' in logstash
    assert tail["parser"] in {parser["name"] for parser in fluent_bit["parsers"]}
    # No credential stands in a file.
    for name in SHIPPERS:
        assert not np.any([word in (CONFIGS / name).read_text() for word in ("password: admin", "api_key:")])


@pytest.mark.parametrize(("text", "sound"), [(None, True), ("input { file {", False), ("output { opensearch }", False)])
def test_logstash_can_read_its_pipeline(text, sound, tmp_path):
    python = PLACE / "parser" / "bin" / "python"
    if not python.exists() and "OPENSEARCH" not in os.environ:
        pytest.skip("logstash-pipeline-parser is not there: run `make test-opensearch`")
    path = CONFIGS / "logstash.conf"
    if text is not None:
        path = tmp_path / "broken.conf"
        path.write_text(text)
    program = (
        "import sys; from logstash_pipeline_parser import Pipeline; print(Pipeline.from_file(sys.argv[1]).parse())"
    )
    done = subprocess.run([str(python), "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is sound, done.stderr
