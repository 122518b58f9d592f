"""LiteRT model metadata: who made a model, what its inputs and outputs mean, and a file packed beside it.

Written as the metadata schema 1.1 of LiteRT says (tflite-support, metadata_schema.fbs, identifier M001), whose own
library needs an old TensorFlow. Field numbers below are the positions of the fields in that schema.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
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


def input_order(content: bytes) -> list[str]:
    """Return the names that the signature gives the input tensors, in the tensors' order in the file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    by_index = {item.tensorIndex: item.name.decode() for item in model.signatureDefs[0].inputs}
    return [by_index[index] for index in model.subgraphs[0].inputs]


def with_metadata(
    content: bytes, contract: Mapping[str, Any], about: Mapping[str, str], associated: Mapping[str, bytes]
) -> bytes:
    """Return a LiteRT model with metadata in it and files appended to it as a zip archive.

    Args:
        content: the model; its weights stay as they are.
        contract: see `contract.feature_contract`.
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
    names = input_order(content)
    unknown = [name for name in names if name not in inputs]
    if unknown:
        raise EdgeError(f"the LiteRT model reads {unknown[0]}, which is not in the feature contract")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    packed = _metadata([inputs[name] for name in names], contract["output"], about, tuple(associated))
    buffers = []
    for buffer in model.buffers:
        buffers.append(Aligned())
        buffers[-1].data = buffer.data
    buffers.append(Aligned())
    buffers[-1].data = np.frombuffer(packed, np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = BUFFER_NAME.decode(), len(buffers) - 1
    model.buffers = buffers
    model.metadata = [item for item in model.metadata or [] if item.name != BUFFER_NAME] + [entry]
    builder = flatbuffers.Builder(len(content) + len(packed))
    builder.Finish(model.Pack(builder), file_identifier=_MODEL_IDENTIFIER)
    return _with_files(bytes(builder.Output()), associated)


def _with_files(content: bytes, associated: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO(content)
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(associated):
            archive.writestr(zipfile.ZipInfo(name, _DATE), associated[name], zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _metadata(
    inputs: Sequence[Mapping[str, Any]], output: Mapping[str, Any], about: Mapping[str, str], files: Sequence[str]
) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(4096)

    def table(fields: int, values: Mapping[int, tuple[str, Any]]) -> int:
        builder.StartObject(fields)
        for slot, (kind, value) in values.items():
            if kind == "offset":
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                builder.PrependUint8Slot(slot, value, 0)
        done: int = builder.EndObject()
        return done

    def vector(items: Sequence[Any], prepend: Callable[[Any], None]) -> int:
        builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            prepend(item)
        done: int = builder.EndVector()
        return done

    def text(value: str) -> tuple[str, int]:
        return "offset", builder.CreateString(value)

    def tensor(entry: Mapping[str, Any]) -> int:
        bounds = [(slot, entry.get(key)) for slot, key in ((0, "maximum"), (1, "minimum"))]
        vectors = {
            slot: ("offset", vector([float(bound)], builder.PrependFloat32))
            for slot, bound in bounds
            if bound is not None
        }
        stats = table(2, vectors)
        content = table(3, {0: ("byte", _FEATURE_PROPERTIES), 1: ("offset", table(0, {}))})
        name, description = text(entry["name"]), text(f"{entry['meaning']}; {entry['unit']}")
        return table(7, {0: name, 1: description, 3: ("offset", content), 5: ("offset", stats)})

    def file(name: str) -> int:
        return table(4, {0: text(name), 1: text("what each input and the output mean")})

    def tables(items: Sequence[int]) -> tuple[str, int]:
        return "offset", vector(items, builder.PrependUOffsetTRelative)

    graph_name = text(about["name"])
    read, made = tables([tensor(entry) for entry in inputs]), tables([tensor(output)])
    graph = table(7, {0: graph_name, 2: read, 3: made})
    texts = {slot: text(about[key]) for slot, key in enumerate(("name", "description", "version"))}
    texts |= {4: text(about["author"]), 5: text(about["license"]), 7: text(_PARSER_VERSION)}
    root = table(8, {**texts, 3: tables([graph]), 6: tables([file(name) for name in files])})
    builder.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())
