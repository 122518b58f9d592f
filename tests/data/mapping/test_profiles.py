"""Profiles that somebody writes: what they may reach, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bike_pipeline.data.mapping import MAPPINGS, load_profile
from bike_pipeline.errors import ConfigurationError
from tests.data import mapped


@pytest.fixture
def own(tmp_path):
    """Write the Kaggle profile with changes; return its path."""

    def write(**changes):
        profile = yaml.safe_load((MAPPINGS / "kaggle.yaml").read_text(encoding="utf-8"))
        values = profile["values"] | changes.pop("values", {})
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(profile | {"values": values} | changes, allow_unicode=True), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(SELECT content FROM read_text('/etc/hostname'))", "file system operations are disabled"),
        ("(SELECT count(*) FROM read_csv('https://example.org/x.csv'))", "disabled"),
        ("(SELECT count(*) FROM glob('/*'))", "disabled"),
        ("(SELECT secret FROM hidden)", "hidden does not exist"),
        ("getenv('HOME')", "getenv does not exist"),
        ("1) AS x FROM now; SET enable_external_access = true; SELECT (1", "configuration"),
        ("1) AS x FROM now; COPY now TO '/tmp/mapping-was-here.csv'; SELECT (1", "disabled"),
        ("1) AS x FROM now; ATTACH '/tmp/mapping-was-here.db'; SELECT (1", "disabled"),
        ("1) AS x FROM now; INSTALL httpfs; LOAD httpfs; SELECT (1", "disabled"),
        ("nothing + 1", "nothing"),
        ("1 +", "syntax error"),
    ],
)
def test_an_expression_reaches_nothing_but_the_rows(read, own, expression, message):
    import pyarrow as pa

    hidden = pa.table({"secret": [1]})
    with pytest.raises(ConfigurationError, match=rf"an expression cannot be worked out \(.*{message}"):
        read(own(values={"hum": expression}), mapped.kaggle())
    assert hidden.num_rows == 1
    assert not list(Path("/tmp").glob("mapping-was-here*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"encoding": "rot13"}, "encoding: "),
        ({"colums": {}}, "colums: Extra inputs"),
        ({"columns": {"Bad Name": {"named": ["x"]}}}, "Bad Name"),
        ({"values": {"temperature": "1"}}, "temperature"),
        ({"clip": ["cnt"]}, "clip"),
    ],
)
def test_a_wrong_profile_is_one_clear_error(read, own, changes, message):
    with pytest.raises(ConfigurationError, match=rf"the mapping is wrong \(.*{message}"):
        read(own(**changes), mapped.kaggle())


def test_a_profile_that_lacks_a_value_or_is_not_there_is_one_clear_error(read, tmp_path):
    profile = yaml.safe_load((MAPPINGS / "kaggle.yaml").read_text(encoding="utf-8"))
    del profile["values"]["hum"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(profile, allow_unicode=True))
    with pytest.raises(ConfigurationError, match="values lack hum"):
        load_profile(str(tmp_path / "own.yaml"))
    (tmp_path / "own.yaml").write_text("columns: [")
    with pytest.raises(ConfigurationError, match="the mapping is wrong"):
        load_profile(str(tmp_path / "own.yaml"))
    with pytest.raises(ConfigurationError, match=r"no such mapping.*capital-bikeshare-trips, kaggle, seoul"):
        load_profile("kagle")
    for shipped in MAPPINGS.glob("*.yaml"):
        assert load_profile(shipped.stem)[0].about
