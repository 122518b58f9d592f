"""The bundle: what is in it, that it is signed whole, and which models may not go into one."""

import io
import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.edge import bundle, documents, updates
from bike_pipeline.errors import EdgeError
from tests.edge import making
from tests.edge.making import Key


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
