"""Files answered as the embedded server answers them, whatever they are and wherever it was broken off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import requests

from bike_pipeline import features
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.errors import ConfigurationError, DataError, ModelError
from bike_pipeline.serving.batch import inputs, shards
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases import batch
from tests.serving.running import MODEL, push, running_server, with_export

# A model is exported, a server started, and Beam.
pytestmark = pytest.mark.slow
HEADER, *LINES = embedded_bytes().decode().splitlines()
ROWS = LINES[::40]
QUANTILES = ["p05", "p50", "p95"]


@pytest.fixture(scope="module")
def served(exported, tmp_path_factory):
    """The folder of a served model of C source."""
    base = tmp_path_factory.mktemp("served")
    push(base, with_export(exported.path, base / "model", "c_source"), 1)
    return base


@pytest.fixture
def settings(served, tmp_path):
    return load_settings(None, (f"workspace={tmp_path / 'workspace'}", f"serving.base_path={served}"))


def written(folder: Path, name: str, lines: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return folder / name


def with_value(line: str, **values: str) -> str:
    fields = dict(zip(HEADER.split(","), line.split(","), strict=True))
    return ",".join((fields | values).values())


def rows_in(folder: Path) -> list[dict]:
    found = pa.dataset.dataset(folder, partitioning="hive", format="parquet").to_table().to_pylist()
    return sorted(found, key=lambda row: row["request_id"])


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name[0] != "."}


def test_every_row_is_answered_as_the_embedded_server_does_to_the_bit_and_what_it_cannot_answer_is_set_aside(
    served, settings, tmp_path
):
    broken = {
        10: {"temp": "NaN"},
        20: {"hum": "inf"},
        30: {"weathersit": "9"},
        40: {"hr": ""},
        50: {"windspeed": "-inf"},
    }
    lines = [with_value(line, **broken.get(number, {})) for number, line in enumerate(ROWS)]
    source = written(tmp_path / "in", "rides.csv", [*lines, "1,2"])
    done = batch.predict_batch(settings, source, tmp_path / "out", partition="day")
    answers, rejected = rows_in(tmp_path / "out" / "answers"), rows_in(tmp_path / "out" / "rejected")
    assert (done.rows, done.rejected, done.backend) == (len(ROWS) - 5, 6, "c_source")
    assert done.reasons == {"not_finite": 3, "range": 1, "missing": 1, "fields": 1}
    with pytest.raises(DataError, match=f"6 of {len(ROWS) + 1} rows were not answered"):
        done.require_all()
    by_line = {row["line"]: row for row in answers}
    aside = {row["line"]: row for row in rejected}
    assert sorted([*by_line, *aside]) == [*range(2, len(ROWS) + 3)]
    assert aside[12]["reasons"] == "temp: 'NaN' is not finite"
    assert aside[32]["reasons"] == "weathersit: 9 is above 4"
    assert aside[42]["reasons"] == "hr: missing"
    assert aside[len(ROWS) + 2]["reasons"] == "fields: 2 where the header has 17"
    assert aside[32]["weathersit"] == "9"
    assert len({row["request_id"] for row in (*answers, *rejected)}) == len(ROWS) + 1

    with running_server(served, tmp_path / "server") as server:

        def ask(number: int) -> dict[str, float]:
            fields = dict(zip(HEADER.split(","), lines[number].split(","), strict=True))
            fields["day"] = fields["dteday"][-2:]
            sent = {}
            for feature in features.MODEL_INPUTS:
                value = fields.get(feature.name, feature.default)
                sent[feature.name] = int(value) if feature.kind == "int" else float(value)
            body = json.dumps({"instances": [sent], "signature_name": "serving_intervals"})
            reply = requests.post(f"{server.url}:predict", data=body, timeout=60)
            (answer,) = json.loads(reply.text)["predictions"]
            return answer

        for number in range(len(ROWS)):
            if number in (30, 40):
                continue  # Unknown weather is answered online as the nearest, and no hour is no request.
            online = ask(number)
            if number in (10, 20, 50):
                assert np.isnan(online["cnt"])
                assert "not finite" in aside[number + 2]["reasons"]
                continue
            row = by_line[number + 2]
            offline = [row["predicted_cnt"], *(row[name] for name in QUANTILES)]
            expected = np.float32([online["cnt"], *(online[name] for name in QUANTILES)])
            assert np.float32(offline).tobytes() == expected.tobytes()
            assert row["version"] == 1
            assert str(row["dteday"]) == lines[number].split(",")[1]
            assert row["day"] == str(row["dteday"])


def test_csv_gzip_and_parquet_are_answered_alike_and_a_second_time_with_the_same_ids(settings, tmp_path):
    import gzip

    from pyarrow import csv

    source = written(tmp_path / "csv", "a.csv", ROWS)
    (tmp_path / "zip").mkdir()
    (tmp_path / "zip" / "a.csv.gz").write_bytes(gzip.compress(source.read_bytes()))
    (tmp_path / "parquet").mkdir()
    pq.write_table(csv.read_csv(source), tmp_path / "parquet" / "a.parquet", row_group_size=100)
    found = []
    for form in ("csv", "zip", "parquet"):
        batch.predict_batch(settings, tmp_path / form, tmp_path / f"out-{form}")
        rows = rows_in(tmp_path / f"out-{form}" / "answers")
        found.append(sorted((row["dteday"], row["hr"], row["predicted_cnt"], row["month"]) for row in rows))
    assert found[0] == found[1] == found[2]
    before = rows_in(tmp_path / "out-csv" / "answers")
    batch.predict_batch(settings, str(tmp_path / "csv" / "*.csv"), tmp_path / "again")
    assert rows_in(tmp_path / "again" / "answers") == before


KILLED = """
import os, signal, sys, pickle
from pathlib import Path
from bike_pipeline.serving.batch import shards
job, address, at = pickle.loads(bytes.fromhex(sys.argv[1]))
steps = 0
def dying(method):
    def call(*arguments, **options):
        global steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments, **options)
    return call
Path.rename, Path.mkdir, Path.write_text = dying(Path.rename), dying(Path.mkdir), dying(Path.write_text)
shards.shutil.copytree = dying(shards.shutil.copytree)
shards.answer(address, job)
print(steps)
"""


def test_killed_at_any_step_it_comes_to_the_same_rows_each_once(settings, tmp_path):
    import pickle

    lines = [with_value(line, temp="NaN") if number == 3 else line for number, line in enumerate(ROWS[:60])]
    first, second = written(tmp_path / "in", "1.csv", lines), written(tmp_path / "in", "2.csv", ROWS[60:90])
    batch.predict_batch(settings, tmp_path / "in", tmp_path / "whole")
    whole = files_in(tmp_path / "whole")
    record = shards.record_in(shards.open_files(tmp_path / "whole"), shards.folder_of(str(first)))
    at, survived = 1, False
    out = tmp_path / "out"
    while not survived:
        job = shards.Job(str(out), f"{settings.serving_path}/1", 1, record.fingerprint, "month", settings)
        argument = pickle.dumps((job, str(second if at % 2 else first), at)).hex()
        done = subprocess.run([sys.executable, "-c", KILLED, argument], capture_output=True, text=True, check=False)
        survived = done.returncode == 0
        assert survived or done.returncode == -signal.SIGKILL, done.stderr
        at += 5
    assert at > 10
    batch.predict_batch(settings, tmp_path / "in", out)
    assert {name: content.replace(b"/out", b"/whole") for name, content in files_in(out).items()} == whole
    assert rows_in(out / "answers") == rows_in(tmp_path / "whole" / "answers")
    assert not list(out.rglob(".input=*"))


def test_what_is_done_is_not_done_again_unless_it_was_damaged(settings, tmp_path, monkeypatch):
    written(tmp_path / "in", "1.csv", ROWS[:50])
    batch.predict_batch(settings, tmp_path / "in", tmp_path / "out")
    filled = []
    real = shards._fill
    monkeypatch.setattr(shards, "_fill", lambda shard, *rest: (filled.append(shard.input), real(shard, *rest)))
    before = files_in(tmp_path / "out")
    batch.predict_batch(settings, tmp_path / "in", tmp_path / "out")
    assert filled == []
    damaged = next((tmp_path / "out" / "answers").rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    written(tmp_path / "in", "2.csv", ROWS[50:90])
    done = batch.predict_batch(settings, tmp_path / "in", tmp_path / "out")
    assert [Path(name).name for name in filled] == ["1.csv", "2.csv"]
    assert done.rows == 90
    assert before.items() - {("_MANIFEST.json", before["_MANIFEST.json"])} <= files_in(tmp_path / "out").items()


def test_another_input_version_layout_or_folder_is_refused_and_nothing_touched(exported, settings, served, tmp_path):
    source = written(tmp_path / "in", "1.csv", ROWS[:50])
    batch.predict_batch(settings, tmp_path / "in", tmp_path / "out")
    before = files_in(tmp_path / "out")
    with pytest.raises(ConfigurationError, match=r"by month .* by day"):
        batch.predict_batch(settings, source, tmp_path / "out", partition="day")
    with pytest.raises(ModelError, match="version 7 is not there"):
        batch.predict_batch(settings, source, tmp_path / "out", version=7)
    push(served, with_export(exported.path, tmp_path / "model"), 2)
    with pytest.raises(ConfigurationError, match=r"holds answers of version 1 .* version 2 by month"):
        batch.predict_batch(settings, source, tmp_path / "out", version=2)
    with pytest.raises(ConfigurationError, match="which is no input of this batch"):
        batch.predict_batch(settings, written(tmp_path / "other", "1.csv", ROWS), tmp_path / "out", version=1)
    written(tmp_path / "in", "1.csv", ROWS[:51])
    with pytest.raises(DataError, match="has changed since it was answered"):
        batch.predict_batch(settings, source, tmp_path / "out", version=1)
    (tmp_path / "mine" / "data").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="holds data, which no batch wrote"):
        batch.predict_batch(settings, source, tmp_path / "mine", version=1)
    assert files_in(tmp_path / "out") == before
    assert MODEL in str(settings.serving_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"temp,hum\n1,2\n", "no column yr, mnth"),
        ("a.csv", b"", "no column yr"),
        ("a.parquet", b"PAR1 and nothing", "damaged or cut short"),
        ("a.csv.gz", b"\x1f\x8b nothing", "damaged or cut short"),
        ("a.csv", HEADER.encode() + b"\n\xff\n", "not UTF-8"),
    ],
)
def test_what_is_no_file_of_rows_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        list(inputs.blocks(tmp_path / name, name))


def test_lines_keep_their_numbers_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_TEXT", 300)
    source = written(tmp_path / "in", "1.csv", [*ROWS[:20], "", "1,2", *ROWS[20:40]])
    found = list(inputs.blocks(source, "1.csv"))
    assert len(found) > 5
    assert [line for block in found for line in block.lines] == [*range(2, 22), *range(24, 44)]
    assert [line for block in found for line, _ in block.broken] == [23]


def test_inputs_are_a_file_a_folder_or_a_pattern_here_or_in_object_storage(tmp_path):
    import fsspec

    for name in ("part-2.csv", "part-10.csv", "notes.txt"):
        written(tmp_path / "in", name, ROWS[:2])
    by_name = [str(tmp_path / "in" / name) for name in ("part-2.csv", "part-10.csv")]
    assert inputs.input_files(str(tmp_path / "in")) == by_name
    assert inputs.input_files(str(tmp_path / "in" / "part-*")) == sorted(by_name)
    assert inputs.input_files(by_name[0]) == by_name[:1]
    with pytest.raises(DataError, match=r"no \.csv"):
        inputs.input_files(str(tmp_path / "nowhere"))
    fsspec.filesystem("memory").pipe_file("/batch/a.csv", Path(by_name[0]).read_bytes())
    assert inputs.input_files("memory://batch") == inputs.input_files("memory://batch/*") == ["memory:///batch/a.csv"]
    with inputs.local_input("memory:///batch/a.csv") as (path, sha256):
        assert path.read_bytes() == Path(by_name[0]).read_bytes()
        assert len(sha256) == 64


def test_answers_go_to_object_storage_with_their_record_last(settings, tmp_path):
    import fsspec

    written(tmp_path / "in", "1.csv", [with_value(ROWS[0], temp="NaN"), *ROWS[1:50]])
    done = batch.predict_batch(settings, tmp_path / "in", "memory://answers-of-batch")
    storage = fsspec.filesystem("memory")
    names = storage.find("/answers-of-batch")
    assert (done.rows, done.rejected) == (49, 1)
    assert sum(name.endswith(".parquet") for name in names) == len(
        json.loads(storage.cat_file(next(name for name in names if name.endswith("_record.json"))))["files"]
    )
    assert batch.predict_batch(settings, tmp_path / "in", "memory://answers-of-batch") == done
    assert os.sep in str(tmp_path)
