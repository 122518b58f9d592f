"""Pages for a real Prometheus to scrape, since no container runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from tests import monitoring_servers
from tests.database_servers import free_port


@contextmanager
def pages(answer: Callable[[str], str]) -> Iterator[str]:
    """Serve what `answer` returns for a path and its query, one after the other; where that is nothing, an error."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = answer(self.path)
            self.send_response(200 if text else 503)
            # Prometheus takes a list of targets as JSON alone.
            self.send_header("Content-Type", "application/json" if text.startswith("[") else "text/plain")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def scraping(folder: Path, *jobs: dict[str, Any]) -> Iterator[str]:
    """Run Prometheus, which looks each second; yield its address."""
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": list(jobs)}))
    address = f"127.0.0.1:{free_port()}"
    arguments = (f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}")
    with monitoring_servers.started(folder, "prometheus", *arguments):
        yield f"http://{address}"
