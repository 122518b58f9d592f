"""A Kubeflow Pipelines API for tests, on loopback: it keeps state, and takes no request that its models do not know.

Every JSON body is read by kfp-server-api's models, which are generated from the API's definition: a field that the
model does not have, a value of another type, or a missing field that KFP's server asks for is answered with 400, and
kept in `refused` so that a test sees it.
"""

from __future__ import annotations

import datetime
import json
import re
import threading
import uuid
from email.message import Message
from email.parser import BytesParser
from functools import partialmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api

from bike_pipeline.runners.kubeflow import go_yaml

BASE = "/apis/v2beta1"
NOW = "2026-01-02T03:04:05Z"


class RefusalError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


# JSON's kinds of the API's plain types. protobuf's JSON takes 64-bit numbers as text and as numbers.
PLAIN = {"str": (str, int), "int": int, "float": (int, float), "bool": bool, "datetime": str, "object": object}


def read_as(kind, value, path="body"):
    """Return nothing where a value is what a type of the API's models says; else raise."""
    if value is None:
        return
    if found := re.fullmatch(r"(list|dict)(?:\[|\((?:\w+, )?)(.+)[\])]", kind):
        _read_items(found[1], found[2], value, path)
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind in {"str", "int", "float"}):
            raise RefusalError(400, f"{path} is no {kind}: {value!r}")
        if kind == "datetime":
            datetime.datetime.fromisoformat(value)
    else:
        _read_model(getattr(kfp_server_api, kind), value, path)


def _read_items(container, kind, value, path):
    if not isinstance(value, list if container == "list" else dict):
        raise RefusalError(400, f"{path} is no {container}")
    for key, item in value.items() if container == "dict" else enumerate(value):
        read_as(kind, item, f"{path}.{key}")


def _read_model(model, value, path):
    if not model.openapi_types:
        if value not in model.allowable_values:
            raise RefusalError(400, f"{path} is none of {model.allowable_values}: {value!r}")
        return
    if not isinstance(value, dict):
        raise RefusalError(400, f"{path} is no {model.__name__}")
    names = {json_name: attribute for attribute, json_name in model.attribute_map.items()}
    for key, item in value.items():
        if key not in names:
            raise RefusalError(400, f"unknown field {path}.{key} in {model.__name__}")
        read_as(model.openapi_types[names[key]], item, f"{path}.{key}")


def needed(body, *paths):
    for path in paths:
        value = body
        for part in path.split("."):
            value = (value or {}).get(part)
        if not value:
            raise RefusalError(400, f"invalid input: {path} is required")


class PipelinesServer(ThreadingHTTPServer):
    """The API's state and what tests tell it to do.

    Attributes:
        fail: {regular expression of "METHOD path": (status, message)}, looked at first.
        token: the bearer token that is asked for; None for none.
        cookie: the Cookie header that is asked for; None for none.
        states: what a run answers, one entry a request, the last one for ever: (state, {task: state}, error message).
        calls: "METHOD path" of each request.
        refused: what was refused because of its body.
        prefix: path that every request is asked for below, as behind the Kubernetes API server's proxy.
        silent: requests are read and not answered until the server ends.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fail, self.token, self.cookie, self.multi_user = {}, None, None, False
        self.states = [("SUCCEEDED", {}, "")]
        self.calls, self.refused, self.bodies, self.headers = [], [], [], []
        self.prefix = ""
        self.silent, self.released = False, threading.Event()
        self.pipelines, self.versions, self.experiments, self.runs, self.recurring = {}, {}, {}, {}, {}
        self.lock = threading.Lock()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.shutdown()
        self.server_close()

    # What follows answers "METHOD path" with a dictionary.

    def get_healthz(self, _query, _body):
        return {"multi_user": self.multi_user, "pipeline_store": "database"}

    def get_pipelines(self, query, _body):
        return {"pipelines": self._listed(self.pipelines, query)}

    def post_upload(self, query, body):
        name = query.get("name", "")
        if any(one["display_name"] == name for one in self.pipelines.values()):
            raise RefusalError(409, f"The name {name} already exist. Please specify a new name.")
        self._spec(body)
        made = {"pipeline_id": str(uuid.uuid4()), "display_name": name, "created_at": NOW}
        if "namespace" in query:
            made["namespace"] = query["namespace"]
        self.pipelines[made["pipeline_id"]] = made
        self._version(made["pipeline_id"], name, body)
        return made

    def post_upload_version(self, query, body):
        if query.get("pipelineid") not in self.pipelines:
            raise RefusalError(404, "Pipeline not found")
        self._spec(body)
        return self._version(query["pipelineid"], query.get("name", ""), body)

    def _spec(self, body):
        documents = [document for document in go_yaml.load_all(body) if document]
        if not documents or documents[0].get("schemaVersion") != "2.1.0":
            raise RefusalError(400, "pipeline spec is invalid: KFP only supports schema version 2.1.0")
        return documents

    def _version(self, pipeline, name, body):
        made = {"pipeline_id": pipeline, "pipeline_version_id": str(uuid.uuid4()), "display_name": name}
        made |= {"created_at": NOW, "pipeline_spec": {"documents": self._spec(body)}}
        self.versions[made["pipeline_version_id"]] = made
        return made

    def get_versions(self, query, _body, pipeline):
        own = {key: one for key, one in self.versions.items() if one["pipeline_id"] == pipeline}
        return {"pipeline_versions": self._listed(own, query)}

    def get_experiments(self, query, _body):
        return {"experiments": self._listed(self.experiments, query)}

    def post_experiments(self, _query, body):
        read_as("V2beta1Experiment", body)
        needed(body, "display_name")
        if self.multi_user:
            needed(body, "namespace")
        made = {**body, "experiment_id": str(uuid.uuid4()), "created_at": NOW}
        self.experiments[made["experiment_id"]] = made
        return made

    def post_runs(self, _query, body):
        read_as("V2beta1Run", body)
        needed(body, "display_name")
        self._references(body)
        made = {**body, "run_id": str(uuid.uuid4()), "created_at": NOW, "state": "PENDING"}
        self.runs[made["run_id"]] = made
        return made

    def _references(self, body):
        reference = body.get("pipeline_version_reference") or {}
        if bool(reference) == bool(body.get("pipeline_spec")):
            raise RefusalError(400, "a run takes either a pipeline spec or a pipeline version")
        if reference and reference.get("pipeline_version_id") not in self.versions:
            raise RefusalError(404, "PipelineVersion not found")
        if body.get("experiment_id") not in self.experiments:
            raise RefusalError(404, "Experiment not found")

    def get_runs(self, query, _body):
        # A real server sorts by what it is asked to; these all have the same time.
        if query.get("sort_by") != "created_at desc" or query.get("experiment_id") not in self.experiments:
            raise RefusalError(400, f"invalid list of runs: {query}")
        own = [run for run in self._listed(self.runs, query) if run["experiment_id"] == query["experiment_id"]]
        return {"runs": own[::-1]}

    def get_run(self, _query, _body, run):
        if run not in self.runs:
            raise RefusalError(404, f"Run {run} not found")
        state, tasks, error = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        details = [
            {"display_name": name, "state": task, "start_time": f"2026-01-02T03:04:{number:02d}Z", "task_id": name}
            for number, (name, task) in enumerate({"root": state, "root-driver": "SUCCEEDED", **tasks}.items())
        ]
        answer = {**self.runs[run], "state": state, "run_details": {"task_details": details}}
        return answer | ({"error": {"code": 13, "message": error}} if error else {})

    def get_recurringruns(self, query, _body):
        own = [
            one
            for one in self._listed(self.recurring, query)
            if query.get("experiment_id") in {None, one["experiment_id"]}
        ]
        start = int(query.get("page_token") or 0)
        page = {"recurringRuns": own[start : start + 2]}
        return page | ({"next_page_token": str(start + 2)} if len(own) > start + 2 else {})

    def post_recurringruns(self, _query, body):
        read_as("V2beta1RecurringRun", body)
        needed(body, "display_name", "trigger", "mode", "max_concurrency")
        self._references(body)
        trigger = body["trigger"]
        if len(trigger) != 1:
            raise RefusalError(400, "a recurring run takes one trigger")
        cron = trigger.get("cron_schedule", {}).get("cron")
        if cron and not cron.startswith("@") and len(cron.split()) != 6:
            raise RefusalError(400, f"The Recurring Run cron schedule is not valid: {cron}")
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        made = {**body, "recurring_run_id": str(uuid.uuid4()), "created_at": NOW, "status": status}
        self.recurring[made["recurring_run_id"]] = made
        return made

    def post_switch(self, _query, _body, one, action):
        if one not in self.recurring:
            raise RefusalError(404, "Recurring run not found")
        self.recurring[one]["status"] = {"enable": "ENABLED", "disable": "DISABLED"}[action]
        return {}

    def delete_recurringrun(self, _query, _body, one):
        if self.recurring.pop(one, None) is None:
            raise RefusalError(404, "Recurring run not found")
        return {}

    def _listed(self, all_, query):
        found = list(all_.values())
        namespace = query.get("namespace")
        if self.multi_user and namespace is not None:
            found = [one for one in found if one.get("namespace") in {None, namespace}]
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", ()):
            if set(predicate) != {"operation", "key", "stringValue"} or predicate["operation"] not in {1, "EQUALS"}:
                raise RefusalError(400, f"invalid filter: {predicate}")
            found = [one for one in found if one[predicate["key"]] == predicate["stringValue"]]
        return found


ROUTES = (
    ("GET", "/healthz", PipelinesServer.get_healthz, "V2beta1GetHealthzResponse"),
    ("GET", "/pipelines", PipelinesServer.get_pipelines, "V2beta1ListPipelinesResponse"),
    ("POST", "/pipelines/upload", PipelinesServer.post_upload, "V2beta1Pipeline"),
    ("POST", "/pipelines/upload_version", PipelinesServer.post_upload_version, "V2beta1PipelineVersion"),
    ("GET", "/pipelines/([^/]+)/versions", PipelinesServer.get_versions, "V2beta1ListPipelineVersionsResponse"),
    ("GET", "/experiments", PipelinesServer.get_experiments, "V2beta1ListExperimentsResponse"),
    ("POST", "/experiments", PipelinesServer.post_experiments, "V2beta1Experiment"),
    ("POST", "/runs", PipelinesServer.post_runs, "V2beta1Run"),
    ("GET", "/runs", PipelinesServer.get_runs, "V2beta1ListRunsResponse"),
    ("GET", "/runs/([^/]+)", PipelinesServer.get_run, "V2beta1Run"),
    ("GET", "/recurringruns", PipelinesServer.get_recurringruns, "V2beta1ListRecurringRunsResponse"),
    ("POST", "/recurringruns", PipelinesServer.post_recurringruns, "V2beta1RecurringRun"),
    ("POST", "/recurringruns/([^/:]+):(enable|disable)", PipelinesServer.post_switch, "object"),
    ("DELETE", "/recurringruns/([^/]+)", PipelinesServer.delete_recurringrun, "object"),
)


class _Handler(BaseHTTPRequestHandler):
    server: PipelinesServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, method):
        server = self.server
        parts = urlsplit(self.path.replace(f"{server.prefix}//", "/", 1) if server.prefix else self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = f"{method} {parts.path.removeprefix(BASE)}"
        with server.lock:
            server.calls.append(call)
            server.headers.append(dict(self.headers.items()))
        if server.silent:
            self.close_connection = True
            server.released.wait(30)
            return
        try:
            with server.lock:
                status, answer = 200, self._result(method, parts.path, query, body, call)
        except RefusalError as refusal:
            status = refusal.status
            answer = {"error": str(refusal), "code": 3, "message": str(refusal)}
            if status == 400:
                server.refused.append(f"{call}: {refusal}")
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _result(self, method, path, query, body, call):
        server = self.server
        for pattern, (status, message) in server.fail.items():
            if re.search(pattern, call):
                raise RefusalError(status, message)
        if server.token is not None and self.headers.get("authorization") != f"Bearer {server.token}":
            raise RefusalError(401, "Unauthenticated: request must have a valid token")
        if server.cookie is not None and self.headers.get("Cookie") != server.cookie:
            raise RefusalError(401, "Unauthenticated: sign in first")
        for verb, pattern, function, kind in ROUTES:
            found = re.fullmatch(BASE + pattern, path)
            if found and verb == method:
                content = self._content(body)
                if isinstance(content, dict):
                    server.bodies.append((call, content))
                answer = function(server, query, content, *found.groups())
                read_as(kind, answer, "answer")
                return answer
        raise RefusalError(404, f"Not Found: {call}")

    def _content(self, body):
        kind = self.headers.get("Content-Type", "")
        if not body:
            return None
        if kind.startswith("multipart/form-data"):
            message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
            (part,) = message.get_payload()
            assert isinstance(part, Message)
            assert part.get_param("name", header="content-disposition") == "uploadfile"
            return part.get_payload(decode=True).decode()
        return json.loads(body)

    do_GET = partialmethod(_answer, "GET")  # noqa: N815 (the name that http.server asks for)
    do_POST = partialmethod(_answer, "POST")  # noqa: N815 (the name that http.server asks for)
    do_DELETE = partialmethod(_answer, "DELETE")  # noqa: N815 (the name that http.server asks for)
