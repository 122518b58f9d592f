"""LiteRT model metadata: who made a model, what its inputs and outputs mean, and a file packed beside it.

Written as the metadata schema 1.1 of LiteRT says (tflite-support, metadata_schema.fbs, identifier M001), whose own
library needs an old TensorFlow. Field numbers below are the positions of the fields in that schema.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from bike_pipeline.errors import EdgeError

BUFFER_NAME = b"TFLITE_METADATA"
_IDENTIFIER, _MODEL_IDENTIFIER = b"M001", b"TFL3"
# LiteRT's schema forces it on constants; without it a processor with strict alignment reads them slowly or not at all.
_ALIGNMENT = 16
_FEATURE_PROPERTIES = 1
_PARSER_VERSION = "1.0.0"
# The earliest date that a zip archive can carry: the same content must be the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def with_metadata(
    content: bytes, contract: Mapping[str, Any], about: Mapping[str, str], associated: Mapping[str, bytes]
) -> bytes:
    """Return a LiteRT model, its weights unchanged, with metadata in it and files appended to it as a zip archive.

    Args:
        content: the model.
        contract: see `documents.feature_contract`.
        about: "name", "description", "version", "author" and "license".
        associated: files by name.

    Raises:
        EdgeError: an input of the model is not in the contract.
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
            archive.writestr(zipfile.ZipInfo(name, _DATE), associated[name], zipfile.ZIP_DEFLATED)
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
    builder.Finish(_packed(builder, {**texts, 3: [graph], 6: packed_files}), file_identifier=_IDENTIFIER)
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
