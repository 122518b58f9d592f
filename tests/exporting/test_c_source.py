"""Model as code: the generated C against the SavedModel, compiled here by the machine's own compiler."""

import ctypes
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.exporting.formats.c import c_source
from bike_pipeline.exporting.formats.c.c_source import CSource
from bike_pipeline.exporting.formats.c.formulas import HELPERS
from bike_pipeline.modeling.golden import broken_rows, golden_rows
from bike_pipeline.modeling.loaded_model import LoadedModel
from tests.conftest import TRAINING, Exported

SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    return golden_rows(1000)


@pytest.fixture(scope="module")
def generated(exported: Exported, rows: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c_source")
    CSource().export(Source(exported.path, rows), folder)
    return folder


def written(model: Any, exported: Exported, folder: Path) -> Path:
    from bike_pipeline.modeling import saved_model, training

    start = training.first_feedback(model, str(exported.transform_graph), TRAINING, None)
    saved_model.write(model, str(exported.transform_graph), str(folder / "model"), {}, start)
    return folder / "model"


def as_csv(rows: dict[str, Any]) -> str:
    lines = [
        ",".join(rows),
        *(",".join(map(str, row)) for row in zip(*(v.tolist() for v in rows.values()), strict=True)),
    ]
    return "\n".join(lines) + "\n"


def test_it_answers_as_the_saved_model_on_golden_rows(
    exported: Exported, generated: Path, rows: dict[str, Any]
) -> None:
    reference = LoadedModel(exported.path).predict(rows)
    assert len(np.unique(reference)) > 500
    assert compare(reference, CSource().load(generated).predict(rows)).max_relative_difference <= 1e-5


def test_one_row_is_answered_as_many(generated: Path, rows: dict[str, Any]) -> None:
    loaded = CSource().load(generated)
    answers = loaded.predict(rows)
    alone = [loaded.predict({name: values[i : i + 1] for name, values in rows.items()})[0] for i in range(100)]
    assert (answers[:100] == alone).all()
    # Whole blocks, and what is left of them: few rows, and so many that they are answered as a block.
    for count in (2, 8, 9, 15, 16, 17, 31, 33, 100):
        some = loaded.predict({name: values[:count] for name, values in rows.items()})
        assert (some == answers[:count]).all()


def test_its_exponential_function_is_that_of_the_mathematics_library_at_the_ends_too(tmp_path: Path) -> None:
    headers = "".join(f"#include <{name}.h>\n" for name in ("math", "stddef", "stdint", "string"))
    every = "void all(const float *x, size_t n, float *y) { for (size_t i = 0; i < n; i++) y[i] = exponential(x[i]); }"
    (tmp_path / "e.c").write_text(headers + HELPERS["exponential"] + every)
    c_source.compiled(tmp_path / "e.c", tmp_path / "e.so", "-shared", "-fPIC")
    inside = np.random.default_rng(1).uniform(-87.3, 88.7, 100_000).astype(np.float32)
    ends = np.float32([-np.inf, -3e38, -1e5, -105, -104, -100, -0.0, 0, 1e-40, 88.8, 89, 1e5, 3e38, np.inf, np.nan])
    x = np.concatenate([inside, ends])
    y = np.empty_like(x)
    ctypes.CDLL(str(tmp_path / "e.so")).all(
        ctypes.c_void_p(x.ctypes.data), ctypes.c_size_t(len(x)), ctypes.c_void_p(y.ctypes.data)
    )
    with np.errstate(over="ignore", under="ignore"):
        expected = np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(y[:-1], expected[:-1], rtol=2.4e-7, atol=1e-44)
    assert np.isnan(y[-1])


def test_the_single_row_function_takes_the_struct_of_the_header(generated: Path, rows: dict[str, Any]) -> None:
    kinds = {"int": ctypes.c_int64, "float": ctypes.c_float}

    class Row(ctypes.Structure):
        _fields_ = [(f.name, kinds[f.kind]) for f in features.MODEL_INPUTS]

    loaded = CSource().load(generated)
    one = loaded._library.bike_predict
    one.argtypes, one.restype = [ctypes.POINTER(Row)], ctypes.c_float
    answers = [one(Row(*(values[i].item() for values in rows.values()))) for i in range(50)]
    assert (np.asarray(answers, np.float32) == loaded.predict(rows)[:50]).all()


@pytest.mark.parametrize(
    "wanted",
    [
        {"hidden_units": (), "embedding_dimensions": 2},
        {"hidden_units": (21,), "embedding_dimensions": 1},
        {"hidden_units": (40, 16, 3), "embedding_dimensions": 8},
        {"architecture": "linear"},
    ],
)
@pytest.mark.parametrize(("repeated", "knots"), [(False, 0), (False, 7), (True, 800)])
def test_other_architectures_depths_and_widths_are_generated_alike(
    exported: Exported, rows: dict[str, Any], tmp_path: Path, wanted: dict[str, Any], repeated: bool, knots: int
) -> None:
    import keras

    from bike_pipeline.modeling import architectures
    from bike_pipeline.modeling.trend import Trend

    keras.utils.set_random_seed(5)
    model = architectures.build(
        {**TRAINING, **wanted}, Trend((4.0, 2.0, 3.0), (0.05, 0.04, 0.06), repeated, 1.0, knots)
    )
    # The level begins at zero, where a mistake would not show.
    for weights in model.weights:
        weights.assign(weights + np.random.default_rng(3).normal(0, 0.2, weights.shape))
    path = written(model, exported, tmp_path)
    (tmp_path / "c").mkdir()
    CSource().export(Source(path, rows), tmp_path / "c")
    reference = LoadedModel(path).predict(rows)
    assert reference.std() > 1
    assert compare(reference, CSource().load(tmp_path / "c").predict(rows)).max_relative_difference <= 1e-5


def test_the_same_model_gives_the_same_files(
    exported: Exported, generated: Path, rows: dict[str, Any], tmp_path: Path
) -> None:
    CSource().export(Source(exported.path, rows), tmp_path)
    names = sorted(path.name for path in generated.iterdir())
    assert names == ["CMakeLists.txt", "bike_model.c", "bike_model.h", "main.c"]
    assert all((tmp_path / name).read_bytes() == (generated / name).read_bytes() for name in names)


def test_the_program_reads_csv_in_any_order_and_stays_clean_under_sanitizers(
    generated: Path, rows: dict[str, Any], tmp_path: Path
) -> None:
    program = tmp_path / "bike_predict"
    c_source.compiled(generated / "main.c", program, *SANITIZERS, str(generated / "bike_model.c"), f"-I{generated}")
    shuffled = {name: rows[name] for name in reversed(rows)} | {"casual": np.zeros(1000, np.int64)}
    done = subprocess.run([program], input=as_csv(shuffled), capture_output=True, text=True, check=True)
    answers = np.asarray([float(line) for line in done.stdout.splitlines()])
    np.testing.assert_allclose(answers, CSource().load(generated).predict(rows), rtol=1e-5, atol=1e-5)


def test_the_program_takes_columns_that_are_optional_for_not_known_where_they_are_missing(
    generated: Path, rows: dict[str, Any], tmp_path: Path
) -> None:
    program = tmp_path / "bike_predict"
    c_source.compiled(generated / "main.c", program, str(generated / "bike_model.c"), f"-I{generated}")
    required = {feature.name: rows[feature.name][:50] for feature in features.REQUIRED_INPUTS}
    done = subprocess.run([program], input=as_csv(required), capture_output=True, text=True, check=True)
    answers = np.asarray([float(line) for line in done.stdout.splitlines()])
    expected = CSource().load(generated).predict(features.with_defaults(required))
    np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5)


def test_the_program_reads_what_a_spreadsheet_saves(generated: Path, rows: dict[str, Any], tmp_path: Path) -> None:
    program = tmp_path / "bike_predict"
    c_source.compiled(generated / "main.c", program, str(generated / "bike_model.c"), f"-I{generated}")
    plain = as_csv({name: values[:5] for name, values in rows.items()})
    saved = "\ufeff" + plain.replace("\n", "\r\n")
    answers = [
        subprocess.run([program], input=text.encode(), capture_output=True, check=True).stdout
        for text in (plain, saved)
    ]
    assert answers[0] == answers[1] != b""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: "", "there is no header line"),
        (lambda text: text.replace("weathersit", "weather", 1), "the column weathersit is missing"),
        (lambda text: text.replace("\n", "\n1,", 1), "line 2 has 19 cells, the header has 18"),
        (lambda text: text.replace("\n", "\nnan,", 1).replace("yr,", "yr,x,", 1), "line 2: nan is no number for yr"),
        (
            lambda text: text.replace("\n", "\n8.5,", 1).replace("yr,", "yr,x,", 1),
            "line 2: 8.5 is no whole number for yr",
        ),
        (lambda text: text.replace("\n", ",hr\n", 1), "the column hr is there twice"),
    ],
    ids=["empty", "column", "cells", "nan", "part", "twice"],
)
def test_the_program_refuses_bad_rows_with_one_line(
    generated: Path, rows: dict[str, Any], tmp_path: Path, change: Any, told: str
) -> None:
    program = tmp_path / "bike_predict"
    c_source.compiled(generated / "main.c", program, str(generated / "bike_model.c"), f"-I{generated}")
    text = change(as_csv({name: values[:1] for name, values in rows.items()}))
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {told}\n"


def test_no_input_at_all_leaves_the_defined_language(generated: Path, tmp_path: Path) -> None:
    """Every extreme of the struct's types, under the sanitizers: nothing reads beside a table or overflows."""
    whole = ["INT64_MIN", "-1", "0", "INT64_MAX"]
    floats = ["NAN", "INFINITY", "-INFINITY", "FLT_MAX"]
    fields = c_source.fields_of(generated / c_source.HEADER)
    sets = "\n".join(
        f"row.{name} = {'whole' if kind == 'int64_t' else 'floats'}[(k + {index}) % 4];"
        for index, (name, kind) in enumerate(fields)
    )
    (tmp_path / "extremes.c").write_text(
        f"""#include "bike_model.h"
        #include <float.h>
        #include <math.h>
        int main(void) {{
            const int64_t whole[4] = {{{", ".join(whole)}}};
            const float floats[4] = {{{", ".join(floats)}}};
            float sum = 0, answers[28];
            bike_features rows[28];
            for (int k = 0; k < 28; k++) {{ bike_features row; {sets} sum += bike_predict(&row); rows[k] = row; }}
            bike_predict_batch(rows, 28, answers);
            return sum + answers[0] + answers[27] == 1.0f;
        }}"""
    )
    program = tmp_path / "extremes"
    c_source.compiled(tmp_path / "extremes.c", program, *SANITIZERS, str(generated / "bike_model.c"), f"-I{generated}")
    subprocess.run([program], check=True)


@pytest.mark.parametrize("flags", [("-O0",), ("-O3", "-funroll-loops"), ("-Ofast", "-fno-fast-math")], ids=" ".join)
def test_a_broken_sensor_gives_no_plausible_answer(
    generated: Path, flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c_source, "FLAGS", (*c_source.FLAGS, *flags))
    # With -Ofast gcc links code that rounds subnormal numbers to zero in the thread that loads the library, for good.
    with ThreadPoolExecutor(1) as aside:
        answers = aside.submit(lambda: CSource().load(generated).predict(broken_rows())).result()
    assert np.isnan(answers).all()
    assert sys.float_info.min / 2 > 0


@pytest.mark.parametrize("flag", ["-Ofast", "-ffast-math", "-ffinite-math-only"])
@pytest.mark.parametrize("file", ["bike_model.c", "main.c"])
def test_a_compiler_that_takes_nan_for_impossible_is_refused_in_words(
    generated: Path, file: str, flag: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="compile this file without -Ofast and -ffast-math"):
        c_source.compiled(generated / file, tmp_path / "out.o", "-c", flag)


def test_an_app_that_is_built_with_fast_math_as_a_whole_takes_the_library_all_the_same(
    generated: Path, tmp_path: Path
) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    for call in (("-S", str(generated), "-B", str(tmp_path), "-DCMAKE_C_FLAGS=-Ofast"), ("--build", str(tmp_path))):
        subprocess.run(["cmake", *call], check=True, capture_output=True)
    line = as_csv({name: values[:1] for name, values in golden_rows(1000).items()})
    assert subprocess.run([tmp_path / "bike_predict"], input=line, capture_output=True, text=True, check=True).stdout


def test_the_header_serves_cpp_too(generated: Path, tmp_path: Path) -> None:
    source = tmp_path / "other.c"
    source.write_text(
        '#include "bike_model.h"\n#include "bike_model.h"\nint main(void) { return BIKE_MODEL_ID[0] == 0; }\n'
    )
    c_source.compiled(source, tmp_path / "other", "-Wpedantic", str(generated / "bike_model.c"), f"-I{generated}")
    subprocess.run([tmp_path / "other"], check=True)


@pytest.mark.parametrize("layer", ["LayerNormalization", "Softmax"])
def test_an_operator_that_is_unknown_names_its_layer(exported: Exported, tmp_path: Path, layer: str) -> None:
    import keras

    model = exported.model
    strange = getattr(keras.layers, layer)(name="strange")(model.get_layer("trunk_0").output)
    output = keras.layers.Reshape(())(keras.layers.Dense(1, name="answer")(strange))
    path = written(keras.Model(model.inputs, output, name="other"), exported, tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(ExportError, match=r"layer .*strange") as raised:
        CSource().export(Source(path, {}), tmp_path / "c")
    assert "operator" in raised.value.what
    assert not list((tmp_path / "c").iterdir())


def test_weights_that_are_no_numbers_are_refused(exported: Exported, tmp_path: Path) -> None:
    import keras

    model = keras.models.clone_model(exported.model)
    model.get_layer("trunk_0").kernel.assign(np.full(model.get_layer("trunk_0").kernel.shape, np.nan))
    path = written(model, exported, tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(ExportError, match="not finite"):
        CSource().export(Source(path, {}), tmp_path / "c")


def test_without_a_compiler_one_line_says_so(generated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O3")
    with pytest.raises(ExportError, match="there is no C compiler 'no-such-compiler'") as raised:
        CSource().load(generated)
    assert "apt install gcc" in raised.value.fix


def test_one_text_is_compiled_once_whoever_loads_it_and_another_is_compiled(
    generated: Path, rows: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [(generated / c_source.FILE).read_text() + f"/* {tmp_path} {number} */\n" for number in range(2)]
    for number, text in enumerate(texts):
        folder = tmp_path / str(number)
        shutil.copytree(generated, folder)
        (folder / c_source.FILE).write_text(text)
    compiled = []
    real = c_source.compiled
    monkeypatch.setattr(c_source, "compiled", lambda source, *rest: (compiled.append(source), real(source, *rest)))
    with ThreadPoolExecutor(4) as aside:
        loaded = list(aside.map(CSource().load, [tmp_path / "0"] * 4))
    assert compiled == [tmp_path / "0" / c_source.FILE]
    few, many = loaded[0].predict({name: values[:3] for name, values in rows.items()}), loaded[1].predict(rows)
    assert (few == many[:3]).all()
    CSource().load(tmp_path / "1")
    assert [path.parent.name for path in compiled] == ["0", "1"]


def test_damaged_code_is_refused_with_the_compilers_own_line(generated: Path, tmp_path: Path) -> None:
    for path in generated.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "bike_model.c").write_text("float bike_predict(")
    with pytest.raises(ExportError, match=r"bike_model\.c.*the C compiler refuses it \(.*error"):
        CSource().load(tmp_path)
    Path(tmp_path / "bike_model.h").unlink()
    with pytest.raises(ExportError, match="cannot read it"):
        CSource().load(tmp_path)
