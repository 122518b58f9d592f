"""The workflows run by act on this machine: in a checkout of their own, over programs and servers that stand in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import yaml

from tests.rollout.storages import s3
from tests.runners.kubeflow.pipelines_server import PipelinesServer

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
REPOSITORY = "Team/bike_pipeline"
GHCR = "ghcr.io/team/bike_pipeline"
AUDIENCE = "https://kubeflow.example"


FETCHED = pytest.mark.skipif("WORKFLOWS" not in os.environ, reason="`make test-workflows` fetches act and actionlint")


def tool(name):
    """Return a program that `make test-workflows` fetched."""
    return str((ROOT / os.environ["WORKFLOWS"]).resolve() / "bin" / name)


def uses():
    """Return every `uses` of the workflows that names another repository, with its inputs."""
    steps = [
        step
        for path in WORKFLOWS
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        for step in job.get("steps", ())
    ]
    return [(step["uses"], step.get("with", {})) for step in steps if not step.get("uses", "./").startswith("./")]


def drift_message():
    """Return what Alertmanager sends of one detector's concept drift."""
    labels = {"alertname": "ConceptDrift", "trigger": "concept-drift", "severity": "ticket"}
    labels |= {"detector": "error", "kind": "concept drift", "subject": "cnt"}
    annotations = {"summary": "The error has grown.", "runbook_url": "docs/runbook.md#conceptdrift"}
    alert = {"status": "firing", "labels": labels, "annotations": annotations, "generatorURL": ""}
    alert |= {
        "startsAt": "2026-11-29T04:00:07.123Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "0123456789abcdef",
    }
    message = {"version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "retraining"}
    message |= {"groupLabels": {}, "commonLabels": labels, "commonAnnotations": annotations, "externalURL": ""}
    return json.loads(json.dumps({**message, "alerts": [alert]}))


def git(folder, *arguments):
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.hooksPath=/dev/null")
    done = subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Identities(ThreadingHTTPServer):
    """GitHub's service of identity tokens, to those who show the job's request token."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _IdentityHandler)
        self.audiences = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/token?api-version=2.0"


class _IdentityHandler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        known = self.headers.get("Authorization") == "bearer of-this-job" and query.get("api-version") == ["2.0"]
        known = known and len(query.get("audience", ())) == 1
        if known:
            self.server.audiences.append(query["audience"][0])
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"value": f"identity-for-{query['audience'][0]}"} if known else {}).encode())


@dataclass
class Ran:
    """How act ended."""

    code: int
    output: str


class Checkout:
    """A repository at GitHub, its pushes, and what stands around its workflows."""

    def __init__(self, folder, template, identities):
        self.identities = identities
        self.folder = folder / "origin"
        self.stand_in = folder / "stand-in"
        self.home = folder / "home"
        self.programs = folder / "programs"
        for made in (self.stand_in, self.home, self.programs):
            made.mkdir()
        for program in (HERE / "programs").iterdir():
            with_python = sys.executable if program.name != "make" else shutil.which("bash")
            runs = f'#!/bin/sh\nexec "{with_python}" "{program}" "$@"\n'
            (self.programs / program.name).write_text(runs, encoding="utf-8")
            (self.programs / program.name).chmod(0o755)
        subprocess.run(["git", "clone", "--quiet", "--local", template, self.folder], check=True)
        git(self.folder, "remote", "set-url", "origin", f"https://github.com/{REPOSITORY}.git")
        git(self.folder, "config", "uploadpack.allowAnySHA1InWant", "true")
        self.whole_check("true")

    def whole_check(self, command):
        """Push another .ci/run: the own one would run these tests again, and the rest for an hour.

        The workflow has no switch for that; it is the program that it calls which is another one here.
        """
        run = f'#!/bin/sh\necho "called for $GITHUB_EVENT_NAME" >> "$STAND_IN/whole-check"\nexec {command}\n'
        (self.folder / ".ci" / "run").write_text(run, encoding="utf-8")
        self.push(command)

    def push(self, message):
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", message)
        return git(self.folder, "rev-parse", "HEAD")

    @property
    def calls(self):
        """What the programs that stand in were called with."""
        path = self.stand_in / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    @property
    def registry(self):
        return json.loads((self.stand_in / "docker.json").read_text(encoding="utf-8"))["registry"]

    def deploy(self, repository=GHCR):
        """Let an image be deployed; return it by its digest."""
        digest = "sha256:" + "5" * 64
        state = {"local": {}, "logins": [], "registry": {f"{repository}:deployed": digest}}
        (self.stand_in / "docker.json").write_text(json.dumps(state), encoding="utf-8")
        return f"{repository}@{digest}"

    def act(self, event, workflow, *, payload=None, variables=None, secrets=None, folder=None, local=()):
        """Run a workflow for an event, as act does on the machine itself; return how it ended."""
        (self.home / "event.json").write_text(json.dumps(payload or {}), encoding="utf-8")
        command = [tool("act"), event, "--workflows", f".github/workflows/{workflow}"]
        command += ["--eventpath", self.home / "event.json"]
        command += ["--platform", "ubuntu-24.04=-self-hosted", "--platform", "ubuntu-22.04=-self-hosted"]
        command += ["--action-cache-path", self.home / "actions", "--no-skip-checkout", "--no-cache-server"]
        command += ["--concurrent-jobs", "1", "--actor", "somebody", "--secret", "GITHUB_TOKEN=of-github"]
        for used in sorted({name for name, _ in uses()}):
            stand_in = HERE / "actions" / used.partition("@")[0].partition("/")[2]
            command += ["--local-repository", f"{used}={stand_in}"]
        for one in local:
            command += ["--local-repository", one]
        for option, values in (("--var", variables), ("--secret", secrets)):
            for name, value in (values or {}).items():
                command += [option, f"{name}={value}"]
        passed = {
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-this-job",
            "ACTIONS_ID_TOKEN_REQUEST_URL": self.identities.address,
            "ORIGIN": folder or self.folder,
            "STAND_IN": self.stand_in,
            "STAND_IN_BIN": Path(sys.executable).parent,
            "STAND_IN_MAKE": shutil.which("make"),
            "STAND_IN_PROGRAM": Path(sys.executable).with_name("bike-pipeline"),
        }
        for name, value in passed.items():
            command += ["--env", f"{name}={value}"]
        environment = {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.home)}
        done = subprocess.run(
            list(map(str, command)), cwd=folder or self.folder, env=environment, capture_output=True, text=True,
            check=False, timeout=280,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def identities():
    server = Identities()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A repository of what the project is at this moment, committed or not."""
    folder = tmp_path_factory.mktemp("template")
    listed = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    git(folder, "init", "--quiet", "--initial-branch", "main", ".")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Everything")
    return folder


@pytest.fixture
def checkout(tmp_path, template, identities):
    return Checkout(tmp_path, template, identities)


@pytest.fixture
def cluster():
    """Kubeflow Pipelines' API, which takes GitHub's identity token for its audience and no other."""
    with PipelinesServer() as server:
        server.token = f"identity-for-{AUDIENCE}"
        yield server
        assert server.refused == [], "a request had a body that the API does not know"


@pytest.fixture
def variables(cluster):
    """What the environment `kubeflow` says."""
    return {"KUBEFLOW_ENDPOINT": cluster.address, "KUBEFLOW_AUDIENCE": AUDIENCE, "SPAN_STORE": "s3://models/spans"}


@pytest.fixture
def storage(monkeypatch, variables):
    """S3 on loopback, which a job reaches by the role that it takes on."""
    with s3(monkeypatch):
        # The server's state is that of this process, and so of the test before.
        urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset", data=b"").close()
        boto3.client("s3").create_bucket(Bucket="models")
        role = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/ci", "AWS_REGION": "us-east-1"}
        yield variables | role | {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]}
