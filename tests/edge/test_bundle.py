"""The bundle: what is in it, that it is signed whole, and that each part works on its own."""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.edge import bundle, device, documents, updates
from bike_pipeline.edge.updates import UpdateError
from bike_pipeline.errors import EdgeError
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.formats.c.c_source import CSource
from tests.edge import making
from tests.edge.making import Key

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


@pytest.fixture(scope="module")
def unpacked(bundles: dict[int, bundle.Bundle], key: Key, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "bundle.tar").write_bytes(bundles[1].archive)
    updates.extract(folder / "bundle.tar", folder / "1", key.public)
    return folder / "1"


def run_guarded(program: Path, *arguments: str, forbidden: tuple[str, ...], stdin: str = "") -> Any:
    code = GUARD.format(forbidden=set(forbidden), argv=[str(program), *arguments], program=str(program))
    return subprocess.run(
        [sys.executable, "-I", "-c", code], input=stdin, capture_output=True, text=True, check=False, timeout=120
    )


def columns_of(golden: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    return [{name: values[i] for name, values in golden["columns"].items()} for i in range(rows)]


def test_every_part_is_there_and_signed(unpacked: Path, key: Key) -> None:
    manifest = updates.verify(unpacked, key.public)
    there = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert there == {*manifest["files"], "manifest.json", "manifest.json.sig"}
    assert there >= {
        "README.md", "feature_contract.json", "golden.json", "predictor.py", "bike-edge.pyz",
        "models/tflite_float32/model.tflite", "c/bike_model.c", "c/bike_model.h", "c/main.c",
        "android/app/src/main/assets/bike_demand.tflite",
    }  # fmt: skip
    assert manifest["model"] == {
        "name": "bike_demand", "version": 1, "format": "tflite_float32", "file": "models/tflite_float32/model.tflite",
    }  # fmt: skip
    assert manifest["forced"] is False
    assert manifest["minimum"].keys() == {"python", "ai_edge_litert", "numpy"}


def test_the_same_model_gives_the_same_bytes(versions: Path, bundles: dict[int, bundle.Bundle], key: Key) -> None:
    assert making.build(versions / "1", key).archive == bundles[1].archive
    assert bundles[1].sha256 != bundles[2].sha256


def test_a_device_would_take_it_and_refuse_a_model_that_answers_otherwise(
    bundles: dict[int, bundle.Bundle], key: Key
) -> None:
    bundle.prove(bundles[1], key.public)
    with pytest.raises(EdgeError, match=r"a device would refuse the bundle: manifest\.json: the signature"):
        bundle.prove(bundles[1], making.new_key().public)


def test_the_contract_names_what_the_model_reads(unpacked: Path) -> None:
    agreed = json.loads((unpacked / documents.CONTRACT_FILE).read_text())
    assert [entry["name"] for entry in agreed["inputs"]] == [f.name for f in features.MODEL_INPUTS]
    for entry, feature in zip(agreed["inputs"], features.MODEL_INPUTS, strict=True):
        assert (entry["minimum"], entry["maximum"]) == (feature.minimum, feature.maximum)
        assert entry["dtype"] == {"int": "int64", "float": "float32"}[feature.kind]


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


def without_broken_rows(small_model: Path, folder: Path) -> Path:
    """Return what an earlier release made: golden rows without those of a broken sensor."""
    shutil.copytree(small_model, folder)
    path = folder / "exports" / "golden.json"
    golden = json.loads(path.read_text())
    del golden["not_finite"]
    path.write_text(json.dumps(golden))
    return folder


def test_an_export_that_was_never_asked_for_a_broken_sensors_rows_goes_to_devices_only_by_force(
    small_model: Path, key: Key, tmp_path: Path
) -> None:
    version = making.push(without_broken_rows(small_model, tmp_path / "made"), tmp_path / "serving", 1, key)
    with pytest.raises(EdgeError, match="exported by an earlier release, and may answer NaN"):
        making.build(version, key)
    forced = making.build(version, key, force=True)
    assert forced.manifest["forced"] is True
    bundle.prove(forced, key.public)
    with tarfile.open(fileobj=io.BytesIO(forced.archive)) as tar:
        text = tar.extractfile("README.md").read().decode()  # type: ignore[union-attr]
    assert "THIS MODEL MAY ANSWER WITH A NUMBER" in text


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


def test_kotlin_names_every_input_as_the_signature_does_and_in_its_type(unpacked: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    asset = unpacked / "android" / "app" / "src" / "main" / "assets" / "bike_demand.tflite"
    source = next((unpacked / "android").rglob("*.kt")).read_text()
    interpreter = Interpreter(str(asset))
    run = interpreter.get_signature_runner("serving_default")
    kinds = {np.dtype(np.int64): "Long", np.dtype(np.float32): "Float"}
    wanted = {name: kinds[np.dtype(detail["dtype"])] for name, detail in run.get_input_details().items()}
    fields = re.findall(r"^    val (\w+): (\w+)( = 0[Lf])?,$", source, re.MULTILINE)
    assert {name: kind for name, kind, _ in fields} == wanted
    assert {name for name, _, default in fields if default} == set(features.OPTIONAL_NAMES)
    passed = re.findall(r'"(\w+)" to (\w+)Array\(hours\.size\) \{ hours\[it\]\.(\w+) \}', source)
    assert {name: kind for name, kind, _ in passed} == wanted
    assert all(name == field for name, _, field in passed)
    read = re.findall(r'(\w+) = columns\.getJSONArray\("(\w+)"\)\.(getLong|getDouble)', source)
    assert {name: {"getLong": "Long", "getDouble": "Float"}[getter] for name, _, getter in read} == wanted
    assert all(name == column for name, column, _ in read)
    (output,) = run.get_output_details()
    assert f'mapOf<String, Any>("{output}" to rentals), "serving_default")' in source
    assert source.count("{") == source.count("}")
    assert f'"{asset.name}"' in source


def read_text(table: Any, slot: int) -> str:
    offset = table.Offset(4 + 2 * slot)
    return table.String(table.Pos + offset).decode() if offset else ""


def read_tables(table: Any, slot: int) -> list[Any]:
    offset = table.Offset(4 + 2 * slot)
    start = table.Vector(offset)
    return [flatbuffers.table.Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(offset))]


def test_the_metadata_describes_every_tensor_in_the_files_own_order(unpacked: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    path = unpacked / "models" / "tflite_float32" / "model.tflite"
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (entry,) = [item for item in model.metadata if item.name == documents.BUFFER_NAME]
    packed = bytes(bytearray(model.buffers[entry.buffer].data))
    assert packed[4:8] == b"M001"
    root = flatbuffers.table.Table(packed, int.from_bytes(packed[:4], "little"))
    assert read_text(root, 0) == "bike_demand"
    assert read_text(root, 2) == "1"
    assert read_text(root, 4) == "bike-pipeline"
    assert "CC BY 4.0" in read_text(root, 5)
    (graph,) = read_tables(root, 3)
    described = read_tables(graph, 2)
    details = Interpreter(str(path)).get_input_details()
    names = [read_text(tensor, 0) for tensor in described]
    assert names == [re.sub(r"^serving_default_(\w+):0$", r"\1", detail["name"]) for detail in details]
    assert all(features.BY_NAME[name].meaning in read_text(t, 1) for name, t in zip(names, described, strict=True))
    assert [read_text(tensor, 0) for tensor in read_tables(graph, 3)] == ["cnt"]
    assert [read_text(file, 0) for file in read_tables(root, 6)] == [documents.CONTRACT_FILE]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read(documents.CONTRACT_FILE) == (unpacked / documents.CONTRACT_FILE).read_bytes()


def test_weights_lie_where_a_strict_processor_can_read_them(unpacked: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = (unpacked / "models" / "tflite_float32" / "model.tflite").read_bytes()
    model = schema.Model.GetRootAsModel(content, 0)
    starts = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            starts.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert len(starts) > 2
    assert not [start for start in starts if start % 16]


def test_a_model_with_another_input_is_refused(small_model: Path) -> None:
    content = (small_model / "exports" / "tflite_float32" / "model.tflite").read_bytes()
    agreed = documents.feature_contract()
    agreed["inputs"] = [entry for entry in agreed["inputs"] if entry["name"] != "hum"]
    with pytest.raises(EdgeError, match="reads hum, which is not in the feature contract"):
        documents.with_metadata(content, agreed, {}, {})


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (None, "there is no verdict"),
        ({"blessed": False, "format": "tflite_float32", "reason": "mae on hour_band"}, "mae on hour_band"),
        ({"blessed": "true", "format": "tflite_float32", "reason": ""}, "no reason is given"),
        ({"blessed": True, "format": "tflite_int8", "reason": ""}, "given for tflite_int8"),
        ({"blessed": True}, "given for no format"),
    ],
    ids=["absent", "refused", "text", "other_format", "no_format"],
)
def test_the_edge_gate_decides_unless_forced(
    small_model: Path, key: Key, tmp_path: Path, gate: dict[str, Any] | None, told: str
) -> None:
    version = making.push(small_model, tmp_path, 3, key, edge_gate=gate)
    with pytest.raises(EdgeError, match=rf"the edge gate did not bless this model: .*{told}"):
        making.build(version, key)
    forced = making.build(version, key, force=True).manifest
    assert forced["forced"] is True
    assert forced["model"]["format"] == "tflite_float32"


def test_a_model_of_fewer_bits_is_held_to_its_own_answers(small_model: Path, key: Key, tmp_path: Path) -> None:
    report = json.loads((small_model / "exports" / "parity.json").read_text())
    report["formats"]["tflite_float32"]["precision"] = "int8"
    shutil.copytree(small_model, tmp_path / "made")
    path = tmp_path / "made" / "exports" / "golden.json"
    golden = json.loads(path.read_text())
    golden["cnt"] = [value * 1.03 for value in golden["cnt"]]
    path.write_text(json.dumps(golden))
    version = making.push(tmp_path / "made", tmp_path / "serving", 1, key, formats=report["formats"])
    built = making.build(version, key)
    assert built.manifest["golden"]["max_relative_difference"] == 0.05
    bundle.prove(built, key.public)


def test_force_goes_against_no_signature_and_no_formats_own_check(small_model: Path, key: Key, tmp_path: Path) -> None:
    unsigned = making.push(small_model, tmp_path / "unsigned", 1, None)
    with pytest.raises(EdgeError, match="the manifest is not signed"):
        bundle.read_exports(unsigned, key.trusted, force=True)
    changed = making.push(small_model, tmp_path / "changed", 1, key)
    with (changed / "assets.extra" / "exports" / "tflite_float32" / "model.tflite").open("ab") as file:
        file.write(b" ")
    with pytest.raises(EdgeError, match=r"model\.tflite was changed"):
        bundle.read_exports(changed, key.trusted, force=True)
    formats = {"tflite_float32": {"passed": False, "file": "model.tflite"}, "c_source": {"passed": True, "file": "x.c"}}
    failed = making.push(small_model, tmp_path / "failed", 1, key, formats=formats)
    with pytest.raises(EdgeError, match="no LiteRT format of this model passed"):
        bundle.read_exports(failed, key.trusted, force=True)


def test_a_version_without_exports_says_what_to_do(small_model: Path, key: Key, tmp_path: Path) -> None:
    shutil.copytree(small_model, tmp_path / "made")
    for path in (tmp_path / "made" / "exports").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "made" / "exports" / "parity.json").write_text("{}")
    version = making.push(tmp_path / "made", tmp_path / "serving", 1, key)
    with pytest.raises(EdgeError, match="this version was pushed without exports") as raised:
        bundle.read_exports(version, key.trusted, force=True)
    assert "exporting.formats" in raised.value.fix


def test_golden_rows_that_the_model_does_not_answer_stop_the_push(small_model: Path, key: Key, tmp_path: Path) -> None:
    shutil.copytree(small_model, tmp_path / "made")
    path = tmp_path / "made" / "exports" / "golden.json"
    golden = json.loads(path.read_text())
    golden["cnt"][17] *= 1.001
    path.write_text(json.dumps(golden))
    version = making.push(tmp_path / "made", tmp_path / "serving", 1, key)
    with pytest.raises(EdgeError, match="does not answer the golden rows as the SavedModel does"):
        making.build(version, key)


def archive_with(bundle_: bundle.Bundle, change: Any) -> bytes:
    """Return the archive with its members changed: a list of (TarInfo, content) goes in and out."""
    with tarfile.open(fileobj=io.BytesIO(bundle_.archive)) as tar:
        members = []
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            members.append((member, file.read()))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in change(members):
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return made.getvalue()


def named(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"x", link: str = "") -> tuple[Any, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(content) if kind == tarfile.REGTYPE else 0, link
    return member, content


def renamed(members: list[Any], name: str) -> list[Any]:
    members[3][0].name = name
    return members


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: [*m, named("more.txt")], "does not name once"),
        (lambda m: [*m, m[-1]], "does not name once"),
        (lambda m: [*m, named("../outside")], "does not name once"),
        (lambda m: renamed(m, "../../outside"), "does not name once"),
        (lambda m: renamed(m, "/outside"), "does not name once"),
        (lambda m: [*m[:-1], named(m[-1][0].name, tarfile.SYMTYPE, link="/etc/passwd")], "not the plain file"),
        (lambda m: [*m[:-1], named(m[-1][0].name, tarfile.LNKTYPE, link="manifest.json")], "not the plain file"),
        (lambda m: [*m[:-1], named(m[-1][0].name, tarfile.FIFOTYPE)], "not the plain file"),
        (lambda m: [*m[:-1], named(m[-1][0].name, content=b"y" * 10_000_000)], "not the plain file"),
        (lambda m: [*m[:-1], named(m[-1][0].name, content=m[-1][1][:-1] + b"?")], "not what its manifest promises"),
        (lambda m: m[:-1], "the bundle lacks"),
        (lambda m: m[1:], "not the plain file"),
        (lambda m: [m[1], m[0], *m[2:]], "not the plain file"),
        (lambda m: [(m[0][0], m[0][1][:-2] + b" }"), *m[1:]], "the signature is not that of the key"),
    ],
    ids=["more", "twice", "outside", "renamed", "absolute", "symlink", "hardlink", "fifo", "large", "byte", "less",
         "no_manifest", "order", "manifest"],
)  # fmt: skip
def test_an_archive_with_anything_else_in_it_is_refused(
    bundles: dict[int, bundle.Bundle], key: Key, tmp_path: Path, change: Any, told: str
) -> None:
    (tmp_path / "bundle.tar").write_bytes(archive_with(bundles[1], change))
    with pytest.raises(UpdateError, match=told):
        updates.extract(tmp_path / "bundle.tar", tmp_path / "there" / "folder", key.public)
    assert {path.name for path in tmp_path.iterdir()} <= {"bundle.tar", "there"}
    assert not (tmp_path / "there").exists() or [path.name for path in (tmp_path / "there").iterdir()] == ["folder"]


def test_what_is_no_archive_is_refused(key: Key, tmp_path: Path) -> None:
    for content in (b"", b"no archive" * 1000, b"\x1f\x8b" + b"\0" * 600):
        (tmp_path / "bundle.tar").write_bytes(content)
        with pytest.raises(UpdateError):
            updates.extract(tmp_path / "bundle.tar", tmp_path / "folder", key.public)


def test_even_a_signed_manifest_names_no_path_outside(key: Key, tmp_path: Path) -> None:
    for name in ("../x", "/x", "a/../x", "a//x", ".hidden", "a\\..\\x", "manifest.json"):
        content = json.dumps({"format": 1, "files": {name: {"size": 1, "sha256": "0" * 64}}}).encode()
        with pytest.raises(UpdateError, match="names files that no bundle has"):
            updates.read_manifest(content, key.signer.sign(content), key.public)
