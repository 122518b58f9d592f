"""What describes a model in a bundle: the feature contract as JSON, LiteRT metadata, the README and the Android part.

The metadata are written as the metadata schema 1.1 of LiteRT says (tflite-support, metadata_schema.fbs, identifier
M001), whose own library needs an old TensorFlow. Field numbers below are the positions of the fields in that schema.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bike_pipeline import features
from bike_pipeline.errors import EdgeError

CONTRACT_FILE = "feature_contract.json"
MODEL_ASSET = "bike_demand.tflite"
# A working morning in June 2012, mild and clear.
EXAMPLE: dict[str, int | float] = {
    "yr": 1,
    "mnth": 6,
    "hr": 8,
    "holiday": 0,
    "weekday": 5,
    "workingday": 1,
    "weathersit": 1,
    "temp": 0.6,
    "atemp": 0.58,
    "hum": 0.5,
    "windspeed": 0.2,
}
_PACKAGE = "com.example.bikedemand"
_ASSETS = "android/app/src/main/assets"
SOURCE = f"android/app/src/main/java/{_PACKAGE.replace('.', '/')}/BikeDemandModel.kt"
_GRADLE = "bike_demand.gradle.kts"
_TEMPLATES = Path(__file__).parent / "templates"
BUFFER_NAME = b"TFLITE_METADATA"
_METADATA_IDENTIFIER, _MODEL_IDENTIFIER = b"M001", b"TFL3"
# LiteRT's schema forces it on constants; without it a processor with strict alignment reads them slowly or not at all.
_ALIGNMENT = 16
_FEATURE_PROPERTIES = 1
_PARSER_VERSION = "1.0.0"
# The earliest date that a zip archive can carry: the same content must be the same bytes.
DATE = (1980, 1, 1, 0, 0, 0)


def feature_contract() -> dict[str, Any]:
    """Return what a client on a device sends (inputs in the model's order) and what comes back."""
    label = features.BY_NAME[features.LABEL]
    return {
        "format": 1,
        "signature": "serving_default",
        "shape": ["rows"],
        "outside_range": "codes are clipped into their range; weather counts as four standard deviations at most",
        "not_finite": "a weather value that is NaN or infinite gives NaN for its row, and changes no other row",
        "default": "stands for what is not known, and is what an input with one may be left out for",
        "inputs": [
            {
                "name": feature.name,
                "dtype": "int64" if feature.kind == "int" else "float32",
                "minimum": feature.minimum,
                "maximum": feature.maximum,
                "unit": feature.unit,
                "meaning": feature.meaning,
                **({} if feature.default is None else {"default": feature.default}),
            }
            for feature in features.MODEL_INPUTS
        ],
        "output": {
            "name": label.name,
            "dtype": "float32",
            "minimum": 0,
            "unit": label.unit,
            "meaning": "rentals in the hour",
        },
    }


def _render(template: str, contract: Mapping[str, Any], **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701 (Markdown and Kotlin, from our own contract)
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(contract, **values)


def readme(contract: Mapping[str, Any], **values: Any) -> str:
    """Return the README; `values` are what its template asks for beside the contract and the example."""
    return _render(
        "README.md.jinja",
        contract,
        **values,
        example=json.dumps(EXAMPLE),
        columns=json.dumps({key: [value, value] for key, value in EXAMPLE.items()}),
        header=",".join(EXAMPLE),
        row=",".join(map(str, EXAMPLE.values())),
    )


def kotlin(contract: Mapping[str, Any], model_format: str, tolerance: float) -> str:
    """Return the Kotlin class, whose golden rows may differ by `tolerance`, relative to max(rentals, 1)."""
    return _render(
        "BikeDemandModel.kt.jinja",
        contract,
        package=_PACKAGE,
        model=MODEL_ASSET,
        model_format=model_format,
        tolerance=tolerance,
        kotlin={"int64": "Long", "float32": "Float"},
    )


def android_files(model: bytes, golden: bytes, contract_json: bytes, source: str) -> dict[str, bytes]:
    """Return the files of the Android part by their names in the bundle."""
    return {
        f"{_ASSETS}/{MODEL_ASSET}": model,
        f"{_ASSETS}/{CONTRACT_FILE}": contract_json,
        f"{_ASSETS}/golden.json": golden,
        SOURCE: source.encode(),
        f"android/app/{_GRADLE}": (_TEMPLATES / _GRADLE).read_bytes(),
    }


def with_metadata(
    content: bytes, contract: Mapping[str, Any], about: Mapping[str, str], associated: Mapping[str, bytes]
) -> bytes:
    """Return a LiteRT model, its weights unchanged, with metadata in it and files appended to it as a zip archive.

    `about` has "name", "description", "version", "author" and "license". An input that is not in the contract is an
    EdgeError.
    """
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:  # noqa: N802 (the name that the schema's code calls)
            start = None
            if self.data is not None and len(self.data):
                numbers = bytes(bytearray(self.data))
                builder.StartVector(1, len(numbers), _ALIGNMENT)
                builder.head -= len(numbers)
                builder.Bytes[builder.head : builder.head + len(numbers)] = numbers
                builder.vectorNumElems = len(numbers)
                start = builder.EndVector()
            schema.BufferStart(builder)
            if start is not None:
                schema.BufferAddData(builder, start)
            return schema.BufferEnd(builder)

    inputs = {entry["name"]: entry for entry in contract["inputs"]}
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    # The names that the signature gives the input tensors, in the tensors' order in the file.
    by_index = {item.tensorIndex: item.name.decode() for item in model.signatureDefs[0].inputs}
    names = [by_index[index] for index in model.subgraphs[0].inputs]
    unknown = [name for name in names if name not in inputs]
    if unknown:
        raise EdgeError(f"the LiteRT model reads {unknown[0]}, which is not in the feature contract")
    packed = _metadata([inputs[name] for name in names], contract["output"], about, tuple(associated))
    entry = schema.MetadataT()
    entry.name, entry.buffer = BUFFER_NAME.decode(), len(model.buffers)
    contents = [*(buffer.data for buffer in model.buffers), np.frombuffer(packed, np.uint8)]
    model.buffers = [Aligned() for _ in contents]
    for buffer, data in zip(model.buffers, contents, strict=True):
        buffer.data = data
    model.metadata = [item for item in model.metadata or [] if item.name != BUFFER_NAME] + [entry]
    builder = flatbuffers.Builder(len(content) + len(packed))
    builder.Finish(model.Pack(builder), file_identifier=_MODEL_IDENTIFIER)
    file = io.BytesIO(bytes(builder.Output()))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(associated):
            archive.writestr(zipfile.ZipInfo(name, DATE), associated[name], zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _metadata(
    inputs: Sequence[Mapping[str, Any]], output: Mapping[str, Any], about: Mapping[str, str], files: Sequence[str]
) -> bytes:
    import flatbuffers

    def tensor(entry: Mapping[str, Any]) -> Any:
        bounds = {0: entry.get("maximum"), 1: entry.get("minimum")}
        stats = {slot: [float(bound)] for slot, bound in bounds.items() if bound is not None}
        text = f"{entry['meaning']}; {entry['unit']}"
        return {0: entry["name"], 1: text, 3: {0: _FEATURE_PROPERTIES, 1: {}}, 5: stats}

    graph = {0: about["name"], 2: [tensor(entry) for entry in inputs], 3: [tensor(output)]}
    packed_files = [{0: name, 1: "what each input and the output mean"} for name in files]
    texts = {slot: about[key] for slot, key in enumerate(("name", "description", "version"))}
    texts |= {4: about["author"], 5: about["license"], 7: _PARSER_VERSION}
    builder = flatbuffers.Builder(4096)
    builder.Finish(_packed(builder, {**texts, 3: [graph], 6: packed_files}), file_identifier=_METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _packed(builder: Any, value: Any) -> Any:
    """Write a text, a table (a value by the field's number) or a vector; return its offset. A small int is a byte."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        items = [item if isinstance(item, float) else _packed(builder, item) for item in value]
        builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            (builder.PrependFloat32 if isinstance(item, float) else builder.PrependUOffsetTRelative)(item)
        return builder.EndVector()
    fields = {slot: item if isinstance(item, int) else _packed(builder, item) for slot, item in value.items()}
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, field in fields.items():
        if isinstance(value[slot], int):
            builder.PrependUint8Slot(slot, field, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, field, 0)
    return builder.EndObject()
