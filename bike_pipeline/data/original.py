"""Fetching the original data set from UCI's own site."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

from bike_pipeline.data.embedded_dataset import check_content
from bike_pipeline.data.sources.http_url import download
from bike_pipeline.errors import DataError
from bike_pipeline.storage.atomic_files import replace_file

ORIGINAL_URL = "https://archive.ics.uci.edu/static/public/275/bike+sharing+dataset.zip"
MEMBER = "hour.csv"


def fetch_original(target: Path, *, url: str | None = None, timeout: float = 60.0) -> Path:
    """Download the original archive, check its hourly table and write that to `target` with LF line ends.

    Args:
        target: the CSV file to write; replaced only after every check has passed.
        url: address of the zip archive; UCI's own without it.
        timeout: seconds to wait for the site to answer.

    Returns:
        `target`.

    Raises:
        DataError: the site does not answer, the archive is damaged or holds no hour.csv, or the content is not the
            published one.
        StorageError: `target` cannot be written.
    """
    url = url or ORIGINAL_URL
    archive = download(url, timeout=timeout)
    retry = "run it again; the same data is embedded, so `bike-pipeline data split-demo` works without the network"
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            content = opened.read(MEMBER)
    except KeyError:
        raise DataError(f"the archive holds no {MEMBER}", where=url, fix=retry) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"the download is not a whole zip archive ({error})", where=url, fix=retry) from error
    content = content.replace(b"\r\n", b"\n")
    check_content(content, url)
    replace_file(target, content)
    return target
