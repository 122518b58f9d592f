"""YAML is read and written as Kubeflow Pipelines' server, a Go program, reads it."""

from __future__ import annotations

import pytest
import yaml

from bike_pipeline.runners.kubeflow.go_yaml import dump_all, load_all

# What gopkg.in/yaml.v3 3.0.1 made of each plain scalar, written as JSON.
GO = {
    "65e3": 65000, "1E5": 100000, "1e-3": 0.001, "1.5e3": 1500, ".5e1": 5, "08": 8, "0o17": 15, "-0o7": -7, "1_0": 10,
    "0b1": 1, "on": "on", "y": "y", "Y": "Y", "N": "N", "yes": "yes", "no": "no", "off": "off", "true": True,
    "TRUE": True, "tRue": "tRue", "~": None, "Null": None, "1:30": "1:30", "190:20:30": "190:20:30",
    "2026-11-28": "2026-11-28T00:00:00Z", "12e3456": "12e3456", "1e309": "1e309", "017": 15, "0777": 511, "0888": 888,
    "0x1F": 31, "0x_1": 1, "+5": 5, "-5": -5, "1.": 1, ".5": 0.5, "-.5": -0.5, "+.5": 0.5, "NaN": "NaN", "inf": "inf",
    "1__0": 10, "0o": "0o", "0o18": "0o18", "0x": "0x", "09": 9, "00": 0, "-0": 0, "1e+3": 1000, "1.e3": 1000,
    "1_000.5": 1000.5, "0b102": "0b102", "-0b1": -1, "123456789012345678901234567890": 1.2345678901234568e29,
    "0x1p4": "0x1p4", "1e": "1e", "1_e3": 1000, "1e1_0": 1e10, "++5": "++5", "_1": "_1", "0_8": 8, "0_7": 7,
    "08.5": 8.5, "010e2": 1000, ".": ".", "=": "=", "2026-11-28T10:00:00Z": "2026-11-28T10:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize("text", GO)
def test_a_plain_scalar_is_what_go_takes_it_for(text):
    [document] = load_all(f"a: {text}\n")
    value = document["a"]
    assert value == GO[text]
    assert isinstance(value, bool) == isinstance(GO[text], bool)


@pytest.mark.parametrize(
    "text", [*GO, "", "<<", "a: b", "two\nlines", "- x", " ", "\t", "ü", "x" * 300, "{{$}}", "'", '"']
)
def test_a_text_that_is_written_is_a_text_to_both_readers(text):
    documents = [{"a": text, text: ["b", text], "number": 3, "share": 1e-05, "yes": True}, {"second": None}]
    written = dump_all(documents)
    assert load_all(written) == documents
    assert list(yaml.safe_load_all(written)) == documents


@pytest.mark.parametrize(("text", "words"), [("65e3: a", "is no text"), ("a: 1\na: 2", "stands there twice")])
def test_keys_that_go_refuses_are_refused(text, words):
    with pytest.raises(yaml.YAMLError, match=words):
        load_all(text)
