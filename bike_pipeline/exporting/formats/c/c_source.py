"""Model as code: the whole serving graph as one C99 file that needs a compiler and the mathematics library only."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.formats.base import Columns, Format, Predictions, Source
from bike_pipeline.exporting.formats.c import templates

FILE = "bike_model.c"
HEADER = "bike_model.h"
COMPILER_VARIABLE = "CC"
# What the code must compile with; the tests and `load` use the same.
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
_DTYPES = {"int64_t": np.int64, "float": np.float32}


def compiler() -> list[str]:
    """Return the C compiler's command: the variable CC, or `cc`."""
    command = shlex.split(os.environ.get(COMPILER_VARIABLE, "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise ExportError(
            f"there is no C compiler '{command[0]}' to compile the model with",
            where="c_source",
            fix=f"install one (Debian, Ubuntu: apt install gcc libc6-dev) or name it in {COMPILER_VARIABLE}",
        )
    return command


def compiled(source: Path, target: Path, *flags: str) -> None:
    """Compile C files of one model to a program or, with -shared, a library."""
    command = [*compiler(), *FLAGS, *flags, str(source), "-o", str(target), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise ExportError(
            f"the C compiler refuses it ({first})", where=str(source), fix="export the model again, or try another CC"
        )


class _Rows:
    """Memory for some number of rows and their answers, which calls of the same size use again."""

    def __init__(self, count: int, row: np.dtype[Any]) -> None:
        rows: npt.NDArray[Any] = np.empty(count, row)
        self.fields = [(name, rows[name]) for name in row.names or ()]
        self.answers = np.empty(count, np.float32)
        self.arguments = (rows.ctypes.data, count, self.answers.ctypes.data)


class _Answering:
    """The compiled model in this process."""

    def __init__(self, folder: Path) -> None:
        names = templates.fields_of(folder / HEADER)
        self._row = np.dtype([(name, _DTYPES[kind]) for name, kind in names], align=True)
        with tempfile.TemporaryDirectory(prefix="bike-model-") as aside:
            library = Path(aside) / "libbike_model.so"
            compiled(folder / FILE, library, "-shared", "-fPIC")
            # The library stays mapped after its file is gone.
            self._library = ctypes.CDLL(str(library))
        self._batch = self._library.bike_predict_batch
        self._batch.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        self._batch.restype = None
        self._rows = _Rows(0, self._row)

    def predict(self, columns: Columns) -> Predictions:
        count = len(next(iter(columns.values())))
        if count != len(self._rows.answers):
            self._rows = _Rows(count, self._row)
        for name, field in self._rows.fields:
            field[:] = columns[name]
        self._batch(*self._rows.arguments)
        return self._rows.answers.copy()


class CSource(Format):
    """Plain C99 without a runtime: raw features in, rentals out."""

    name = "c_source"
    title = "C source"
    file = FILE
    in_process = True

    def export(self, source: Source, folder: Path) -> None:
        """Generate bike_model.c and .h from the served signature, with a program that reads CSV and a CMakeLists."""
        from bike_pipeline.exporting.formats import frozen_graph
        from bike_pipeline.exporting.formats.c.generator import Body
        from bike_pipeline.exporting.formats.c.operators import HELPERS

        graph = frozen_graph.read(source)
        body = Body(graph)
        helpers = "\n".join(text for name, text in HELPERS.items() if name in body.helpers)
        code = templates.code(helpers, "\n".join(body.tables), body.statements)
        fields = [(value.name, "float" if value.dtype == "float32" else "int64_t") for value in graph.inputs]
        unknown = [name for name, _ in fields if name not in features.BY_NAME]
        if unknown:
            raise ExportError(f"the model reads {unknown[0]}, which is no feature", where=str(source.saved_model))
        identity = hashlib.sha256((repr(fields) + code).encode()).hexdigest()
        texts = {
            FILE: code,
            HEADER: templates.header(fields, identity),
            "main.c": templates.program(fields),
            "CMakeLists.txt": templates.text_of("CMakeLists.txt"),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    def load(self, folder: Path) -> _Answering:
        """Compile it to a shared library and load that."""
        return _Answering(folder)
