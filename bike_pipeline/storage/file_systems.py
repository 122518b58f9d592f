"""Everything that fsspec reads: s3://, gs://, abfs://, hdfs://, memory://, file:// and more."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bike_pipeline.errors import DataError, MissingExtraError

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


def open_file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of `url` and the path in it."""
    import fsspec

    where = without_credentials(url)
    scheme = url.partition("://")[0]
    try:
        file_system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "the package that fsspec names")
        raise MissingExtraError(
            f"reading {scheme}:// needs {package}, which is not installed ({error})",
            where=where,
            fix=f"install it in the project's environment: `pip install {_PACKAGES.get(scheme, scheme)}`",
        ) from error
    except ValueError as error:
        raise DataError(
            f"nothing reads addresses of this kind ({error})", where=where, fix="check the address"
        ) from error
    return file_system, str(path)


def without_credentials(url: str) -> str:
    """Return `url` without user, password, query string and fragment: each of them may hold a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
