"""The shipped configuration of Prometheus and Alertmanager, for a test: short times, free ports, own addresses."""

from __future__ import annotations

import hmac
import http.server
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "monitoring"


def get(port: int, path: str, **query: str) -> Any:
    """Return what a server of loopback answers, as JSON."""
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def wait_for(look: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """Return the first answer that is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except (OSError, urllib.error.URLError):
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"in {seconds} s there was no {what}"
        time.sleep(0.2)


def prometheus_configuration(folder: Path, alertmanager: int, **targets: int) -> Path:
    """Write the shipped configuration with short times; `targets` are the ports of the jobs."""
    shipped = yaml.safe_load((CONFIGS / "prometheus.yml").read_text())
    shipped["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    shipped["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
    for job in shipped["scrape_configs"]:
        name = job["job_name"].removeprefix("bike-")
        job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[name]}"]}]
    (folder / "rules").mkdir()
    for path in (CONFIGS / "rules").glob("*.yml"):
        rules = yaml.safe_load(path.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule):
            # What waits for minutes is what the test waits for; what waits longer shall not fire in it.
            rule["for"] = "1s" if rule["for"] == "1m" else rule["for"]
        (folder / "rules" / path.name).write_text(yaml.safe_dump(rules))
    target = folder / "prometheus.yml"
    target.write_text(yaml.safe_dump(shipped))
    return target


def alertmanager_configuration(folder: Path, webhook: int, token: str) -> Path:
    """Write the shipped configuration with short times, the test's receiver and a token in a file."""
    shipped = yaml.safe_load((CONFIGS / "alertmanager.yml").read_text())
    for route in (shipped["route"], *shipped["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s"}
    (receiver,) = (one for one in shipped["receivers"] if one["name"] == "retraining")
    (told,) = receiver["webhook_configs"]
    told["url"] = f"http://127.0.0.1:{webhook}/retraining"
    secret = folder / "retraining-token"
    secret.write_text(f"{token}\n")
    secret.chmod(0o600)
    told["http_config"]["authorization"]["credentials_file"] = str(secret)
    target = folder / "alertmanager.yml"
    target.write_text(yaml.safe_dump(shipped))
    return target


class Receiver:
    """Takes what the contract of concept drift allows, from whoever has the token, and nothing else.

    Attributes:
        port: where it listens.
        taken: what it took.
        refused: the codes that it refused with.
    """

    def __init__(self, token: str) -> None:
        """Prepare it."""
        self.taken: list[dict[str, Any]] = []
        self.refused: list[int] = []
        schema = json.loads((CONFIGS / "retraining-webhook.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                code = self._code(content)
                receiver.refused += [code] if code != 200 else []
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _code(self, content: bytes) -> int:
                if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {token}"):
                    return 401
                try:
                    message = json.loads(content)
                    validator.validate(message)
                except (ValueError, jsonschema.ValidationError):
                    return 400
                receiver.taken.append(message)
                return 200

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
