"""The demonstration: the embedded data set cut into two uploads, one a year."""

from __future__ import annotations

from pathlib import Path

from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.storage.atomic_files import replace_file

FIRST_UPLOAD = "bike-2011.csv"
SECOND_UPLOAD = "bike-2012.csv"


def split_demo(target_dir: Path) -> tuple[Path, Path]:
    """Write the years 2011 and 2012 of the embedded data set as two upload files.

    Args:
        target_dir: folder for the two files; made where it is missing, files of those names are replaced.

    Returns:
        The paths of the first half (2011, 8,645 rows) and the second half (2012, 8,734 rows).

    Raises:
        DataError: the embedded data set was changed.
        StorageError: a file cannot be read or written.
    """
    header, *rows = embedded_bytes().splitlines(keepends=True)
    first, second = target_dir / FIRST_UPLOAD, target_dir / SECOND_UPLOAD
    for path, year in ((first, b"2011-"), (second, b"2012-")):
        replace_file(path, header + b"".join(row for row in rows if row.split(b",", 2)[1].startswith(year)))
    return first, second
