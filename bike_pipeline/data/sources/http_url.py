"""An http or https address."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.request
from urllib.parse import unquote, urlsplit, urlunsplit

from bike_pipeline.data.manifest import SourceRecord
from bike_pipeline.data.sources.content import read_contents
from bike_pipeline.data.sources.source_rows import SourceRows
from bike_pipeline.errors import DataError
from bike_pipeline.storage.remote_files import without_credentials

TIMEOUT = 60.0


def download(url: str, *, timeout: float = TIMEOUT) -> bytes:
    """Return the whole body behind an http(s) address; user and password in it are sent as basic authentication.

    `timeout` is in seconds, for each answer of the server.
    """
    where = without_credentials(url)
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError("it is not an http address", where=where, fix="check the address")
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        request = urllib.request.Request(bare, headers={"User-Agent": "bike-pipeline"})  # noqa: S310 - checked above
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            # Not add_header: that one would follow a redirect to another server.
            request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            content: bytes = answer.read()
        return content
    except urllib.error.HTTPError as error:
        fix = "check user and password" if error.code in (401, 403) else "check the address"
        if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            fix = "run it again later"
        raise DataError(f"the server answers {error.code} {error.reason}", where=where, fix=fix) from None
    except http.client.IncompleteRead as error:
        got = len(error.partial)
        raise DataError(f"the server broke off after {got} bytes", where=where, fix="run it again") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"the server cannot be reached ({reason})", where=where, fix="check the address and the network connection"
        ) from None


def read_http_url(source: str) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of the CSV (plain or gzip) or Parquet file behind an http(s) address."""
    location = without_credentials(source)
    return read_contents([(location, download(source))], "http", location)
