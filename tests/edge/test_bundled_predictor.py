"""The parts of bundles work on their own, with what a device has."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.edge import device
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.formats.c.c_source import CSource

INSTANCE = {
    "yr": 1, "mnth": 6, "hr": 8, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 1,
    "temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2,
}  # fmt: skip
# What a device has: nothing of this product's own, no TensorFlow.
GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden}:
            raise ImportError(f"{{name}} is not on a device")
sys.meta_path.insert(0, Guard())
import runpy
sys.argv = {argv}
runpy.run_path({program!r}, run_name="__main__")
"""


def run_guarded(program: Path, *arguments: str, forbidden: tuple[str, ...], stdin: str = "") -> Any:
    code = GUARD.format(forbidden=set(forbidden), argv=[str(program), *arguments], program=str(program))
    return subprocess.run(
        [sys.executable, "-I", "-c", code], input=stdin, capture_output=True, text=True, check=False, timeout=120
    )


def columns_of(golden: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    return [{name: values[i] for name, values in golden["columns"].items()} for i in range(rows)]


def test_the_predictor_needs_nothing_but_litert_and_numpy(unpacked: Path) -> None:
    golden = json.loads((unpacked / "golden.json").read_text())
    done = run_guarded(
        unpacked / "predictor.py",
        forbidden=("tensorflow", "bike_pipeline", "keras", "cryptography", "pandas"),
        stdin=json.dumps(columns_of(golden, 40)),
    )
    assert done.returncode == 0, done.stderr
    answers = [float(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose(answers, golden["cnt"][:40], atol=0.0051, rtol=1e-5)
    assert len((unpacked / "predictor.py").read_text().splitlines()) < 70


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hr": 8.5}, "record 1: hr is 8.5"),
        ({"temp": None}, "record 1: temp is None"),
        ({"temp": float("nan")}, "record 1: temp is nan"),
        ({"hum": "wet"}, "record 1: hum is 'wet'"),
        ({"hum": float("-inf")}, "record 1: hum is -inf"),
        ({"hr": 10**400}, "hr is [1000"),
    ],
    ids=["part", "none", "nan", "text", "infinite", "large"],
)
def test_the_predictor_refuses_bad_records_with_one_line(unpacked: Path, change: dict[str, Any], told: str) -> None:
    done = run_guarded(unpacked / "predictor.py", forbidden=("tensorflow",), stdin=json.dumps({**INSTANCE, **change}))
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# What an app on a device does with the bundle: the columns as JSON on standard input, numbers or one line back.
APP = """
import json, sys
sys.path.insert(0, {folder!r})
from predictor import Predictor
try:
    answers = Predictor().predict(json.load(sys.stdin))
except ValueError as error:
    sys.exit(f"error: {{error}}")
print(json.dumps([answers.tolist(), str(answers.dtype)]))
"""


def asked_in_a_program(folder: Path, columns: dict[str, Any]) -> Any:
    code = APP.format(folder=str(folder))
    return subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(columns),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_broken_sensor_gets_nan_in_a_program_and_the_other_hours_their_answers(unpacked: Path) -> None:
    three = {name: [value] * 3 for name, value in INSTANCE.items()}
    sound = json.loads(asked_in_a_program(unpacked, three).stdout)[0]
    for value in (float("nan"), float("inf"), float("-inf"), 1e300):
        done = asked_in_a_program(unpacked, {**three, "hum": [0.5, value, 0.5]})
        answers, kind = json.loads(done.stdout)
        assert (answers[0], answers[2], kind) == (sound[0], sound[2], "float32"), done.stderr
        assert np.isnan(answers[1])
    assert json.loads(asked_in_a_program(unpacked, INSTANCE).stdout)[0] == sound[:1]
    assert json.loads(asked_in_a_program(unpacked, {name: [] for name in INSTANCE}).stdout) == [[], "float32"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hr": [8, 8.7]}, "hr is [8, 8.7]; see feature_contract.json"),
        ({"hr": [8, float("nan")]}, "hr is [8, nan]; see feature_contract.json"),
        ({"hr": [8, 1e300]}, "hr is [8, 1e+300]; see feature_contract.json"),
        ({"hr": [8, 10**30]}, f"hr is [8, {10**30}]; see feature_contract.json"),
        ({"hr": ["8", "9"]}, "hr is ['8', '9']; see feature_contract.json"),
        ({"temp": ["warm", "cold"]}, "temp is ['warm', 'cold']; see feature_contract.json"),
        ({"temp": [[0.5], [0.6]]}, "temp is [[0.5], [0.6]]; see feature_contract.json"),
        ({"temp": None}, "temp is None; see feature_contract.json"),
        ({"temp": [0.5]}, "the inputs differ in their number of rows: {'yr': 2, 'mnth': 2, 'hr': 2,"),
        ({"temp": [0.5, 0.6, 0.7]}, "'temp': 3, 'atemp': 2"),
    ],
    ids=["part", "nan", "large", "larger", "text", "words", "nested", "none", "fewer", "more"],
)
def test_columns_that_are_not_what_the_model_takes_are_refused_in_words(
    unpacked: Path, change: dict[str, Any], told: str
) -> None:
    done = asked_in_a_program(unpacked, {**{name: [value] * 2 for name, value in INSTANCE.items()}, **change})
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert told in last
    assert "Warning" not in done.stderr


def test_the_readme_has_all_that_it_takes_to_ask_the_model(unpacked: Path, tmp_path: Path) -> None:
    text = (unpacked / "README.md").read_text()
    for feature in features.MODEL_INPUTS:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{feature.name}` |")]
        top = "or more" if feature.maximum is None else f"to {feature.maximum:g}"
        default = "" if feature.default is None else f"{feature.default:g}"
        assert f"| {feature.minimum:g} {top} | {default} | {feature.unit} | {feature.meaning} |" in line
    assert "NaN or infinite**, as of a broken sensor: the answer is NaN" in text
    assert "**A code outside its range** (`hr` 24, `mnth` 0) is answered as the nearest one inside" in text

    shell, program, c = re.findall(r"```\w+\n(.*?)```", text, re.DOTALL)
    record, expected = re.match(r"echo '(.*)' \| python predictor\.py\n([\d.]+)\n$", shell).groups()
    done = run_guarded(unpacked / "predictor.py", forbidden=("tensorflow",), stdin="\ufeff" + record)
    assert done.stdout == f"{expected}\n", done.stderr
    done = subprocess.run(
        [sys.executable, "-c", program.replace("Predictor().predict", "print(*Predictor().predict", 1).rstrip() + ")"],
        cwd=unpacked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [f"{float(number):.2f}" for number in done.stdout.split()] == [expected, expected]
    build = re.search(r"`cc (-std=c99 [^`]*) -o bike_predict`", text)
    assert build
    shutil.copytree(unpacked / "c", tmp_path / "c")
    subprocess.run(["cc", *build[1].split(), "-o", "bike_predict"], cwd=tmp_path, check=True)
    done = subprocess.run(["sh", "-c", c], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(float(expected), rel=1e-4)


def test_the_devices_program_runs_the_golden_rows_alone(unpacked: Path, tmp_path: Path) -> None:
    program = shutil.copy(unpacked / "bike-edge.pyz", tmp_path / "bike-edge.pyz")
    done = run_guarded(program, "check", "--folder", str(unpacked), forbidden=("tensorflow", "click", "pydantic"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["max_relative_difference"] <= 1e-6
    with zipfile.ZipFile(program) as archive:
        shipped = archive.read("bike_pipeline/edge/device.py")
        assert archive.read("bike_pipeline/__init__.py") == b""
    assert shipped == Path(device.__file__).read_bytes()


def test_the_c_variant_answers_the_golden_rows(unpacked: Path) -> None:
    golden = json.loads((unpacked / "golden.json").read_text())
    dtypes = {f.name: {"int": np.int64, "float": np.float32}[f.kind] for f in features.MODEL_INPUTS}
    rows = {name: np.asarray(values, dtypes[name]) for name, values in golden["columns"].items()}
    reference = np.asarray(golden["cnt"], np.float32)
    assert compare(reference, CSource().load(unpacked / "c").predict(rows)).max_relative_difference <= 1e-5
