from __future__ import annotations

import io
import zipfile

import pytest

from bike_pipeline.data.embedded_dataset import embedded_bytes, fetch_original
from bike_pipeline.errors import DataError, StorageError
from tests.data.making import serving

PATH = "/bike+sharing+dataset.zip"


def archive(name="hour.csv", content=None):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("Readme.txt", "about")
        opened.writestr(name, embedded_bytes() if content is None else content)
    return buffer.getvalue()


def fetch(body, target, status=200, headers=None):
    with serving({PATH: (status, headers or {}, body)}) as address:
        return fetch_original(target, url=address + PATH)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_original_is_the_embedded_data_set(tmp_path, line_end):
    target = tmp_path / "new" / "hour.csv"
    assert fetch(archive(content=embedded_bytes().replace(b"\n", line_end)), target) == target
    assert target.read_bytes() == embedded_bytes()
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("body", "status", "headers", "message"),
    [
        (archive(content=embedded_bytes() + b"1\n"), 200, {}, "not the published hourly data set"),
        (archive()[:-5000], 200, {}, "not a whole zip archive"),
        (archive()[:3000] + b"\0" * 500 + archive()[3500:], 200, {}, "not a whole zip archive"),
        (b"<html>moved</html>", 200, {}, "not a whole zip archive"),
        (archive(name="day.csv"), 200, {}, "holds no hour.csv"),
        (b"", 404, {}, "the server answers 404"),
        (b"", 503, {}, "the server answers 503"),
        (archive()[:1000], 200, {"Content-Length": "200000"}, "broke off after 1000 bytes"),
    ],
    ids=["wrong hash", "cut short", "damaged", "not a zip", "no hour.csv", "404", "503", "broken off"],
)
def test_whatever_goes_wrong_the_old_file_stays(tmp_path, body, status, headers, message):
    target = tmp_path / "hour.csv"
    target.write_bytes(b"old")
    with pytest.raises(DataError, match=message):
        fetch(body, target, status, headers)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_without_a_network_it_says_so(tmp_path):
    with serving({}) as address:
        pass  # the port is free again
    with pytest.raises(DataError, match=r"the server cannot be reached .*network"):
        fetch_original(tmp_path / "hour.csv", url=f"{address}/x.zip")


def test_a_target_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        fetch(archive(), tmp_path / "file" / "hour.csv")
