"""A web server of static files on loopback that understands ranges, and breaks where a test asks it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Web:
    """What a server does and did.

    Attributes:
        url: its address.
        requests: path and Range header of each request.
        break_after: bytes after which the next answers end, one entry an answer; None for a whole answer.
        ranges: whether it understands Range headers.
        change: what becomes of a file's content on its way.
    """

    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    break_after: list[int | None] = field(default_factory=list)
    ranges: bool = True
    change: Callable[[str, bytes], bytes] = lambda _, content: content


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """Serve the files of a folder."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            web.requests.append((self.path, asked))
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = web.change(self.path, path.read_bytes())
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and web.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            limit = web.break_after.pop(0) if web.break_after and self.path.endswith(".tar") else None
            self.wfile.write(content[start:] if limit is None else content[start : start + limit])
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
