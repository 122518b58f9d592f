"""The parsers of both protocols raise nothing but what is meant for clients, whatever they read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
FUZZER = HERE.with_name("fuzzing_parsers.py")


@pytest.mark.slow
def test_nothing_unforeseen_is_raised_in_a_bounded_search_that_coverage_guides(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[3]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    written = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import fuzzing_parsers as f; "
        "[pathlib.Path(sys.argv[2], str(i)).write_bytes(s) for i, s in enumerate(f.seeds())]"
    )
    subprocess.run([sys.executable, "-c", written, str(HERE.parent), str(corpus)], check=True, env=environment)
    assert len(list(corpus.iterdir())) == 3
    search = ["-runs=20000", "-seed=20110101", "-max_len=1500", "-timeout=60", "-rss_limit_mb=3000"]
    found = subprocess.run(
        [sys.executable, str(FUZZER), str(corpus), *search, f"-artifact_prefix={tmp_path}/"],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "Done 20000 runs" in found.stderr
