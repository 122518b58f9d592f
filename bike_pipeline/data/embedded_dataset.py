"""The published hourly data set: embedded, downloaded again, or cut into two uploads; see `embedded/ATTRIBUTION.md`."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from pathlib import Path

from bike_pipeline.errors import DataError
from bike_pipeline.storage.atomic_files import one_error, replace_file

EMBEDDED_FILE = Path(__file__).resolve().parent / "embedded" / "hour.csv"
EMBEDDED_SHA256 = "b03a2d02e8c10f435c43c7f0b358b7e34a003afea53dbc37f0183f2763295133"
ORIGINAL_URL = "https://archive.ics.uci.edu/static/public/275/bike+sharing+dataset.zip"
MEMBER = "hour.csv"
FIRST_UPLOAD, SECOND_UPLOAD = "bike-2011.csv", "bike-2012.csv"


def _check_content(content: bytes, where: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != EMBEDDED_SHA256:
        raise DataError(
            f"this is not the published hourly data set: SHA-256 {found}, expected {EMBEDDED_SHA256}",
            where=where,
            fix="restore the file from the project's repository or run `bike-pipeline data fetch` again",
        )


def embedded_bytes(path: Path = EMBEDDED_FILE) -> bytes:
    """Return the embedded CSV (LF line ends) after checking its SHA-256."""
    with one_error("read", path):
        content = path.read_bytes()
    _check_content(content, str(path))
    return content


def split_demo(target_dir: Path) -> tuple[Path, Path]:
    """Write the embedded data set as two uploads into a folder: 2011 (8,645 rows) and 2012 (8,734 rows)."""
    header, *rows = embedded_bytes().splitlines(keepends=True)
    first, second = target_dir / FIRST_UPLOAD, target_dir / SECOND_UPLOAD
    for path, year in ((first, b"2011-"), (second, b"2012-")):
        replace_file(path, header + b"".join(row for row in rows if row.split(b",", 2)[1].startswith(year)))
    return first, second


def fetch_original(target: Path, *, url: str | None = None) -> Path:
    """Download the original archive, by default UCI's, and write its hourly table, checked, with LF line ends."""
    from bike_pipeline.data.sources.registry import download

    url = url or ORIGINAL_URL
    archive = download(url)
    retry = "run it again; the same data is embedded, so `bike-pipeline data split-demo` works without the network"
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            content = opened.read(MEMBER)
    except KeyError:
        raise DataError(f"the archive holds no {MEMBER}", where=url, fix=retry) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"the download is not a whole zip archive ({error})", where=url, fix=retry) from error
    content = content.replace(b"\r\n", b"\n")
    _check_content(content, url)
    replace_file(target, content)
    return target
