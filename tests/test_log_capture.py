from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bike_pipeline.commands.shared import log_file
from bike_pipeline.errors import StorageError
from bike_pipeline.log_capture import captured
from bike_pipeline.settings import load_settings


def test_all_that_is_written_goes_to_the_file_and_the_screen_stays_a_persons(tmp_path, capfd):
    log = tmp_path / "logs" / "run.log"
    with captured(log) as screen:
        os.write(1, b"from C++\n")
        os.write(2, b"from C++, an error\n")
        subprocess.run([sys.executable, "-c", "print('from a process')"], check=True, timeout=60)
        screen.write("for a person ✔\n")
    os.write(1, b"after\n")
    os.write(2, b"after, an error\n")
    assert capfd.readouterr() == ("for a person ✔\nafter\n", "after, an error\n")
    assert log.read_text(encoding="utf-8").splitlines() == ["from C++", "from C++, an error", "from a process"]


def test_an_error_gives_the_streams_back_and_leaves_no_descriptor_open(tmp_path, capfd):
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    def fail():
        with captured(tmp_path / "run.log"):
            os.write(1, b"inside\n")
            raise ZeroDivisionError

    before = opened()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail()
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\n", "")
    assert (tmp_path / "run.log").read_text(encoding="utf-8") == "inside\n" * 3
    assert opened() == before


def test_what_python_kept_back_is_written_where_it_belongs(tmp_path):
    # A process of its own: under pytest Python's streams are not those of the descriptors.
    code = (
        "import sys\nfrom pathlib import Path\nfrom bike_pipeline.log_capture import captured\n"
        "print('before')\n"
        "with captured(Path(sys.argv[1])) as screen:\n    print('inside')\n    screen.write('screen\\n')\n"
        "print('after')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run.log")], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "before\nscreen\nafter\n"
    assert (tmp_path / "run.log").read_text(encoding="utf-8") == "inside\n"


def test_a_log_that_cannot_be_written_is_one_clear_error(tmp_path, capfd):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write the log"), captured(tmp_path / "file" / "run.log"):
        pytest.fail("it must not begin")
    os.write(1, b"still here\n")
    assert capfd.readouterr().out == "still here\n"


def test_two_pods_that_share_a_workspace_write_a_log_each(tmp_path, monkeypatch):
    settings = load_settings(assignments=(f"workspace={tmp_path}",))
    monkeypatch.setattr("os.getpid", lambda: 1)
    names = []
    for host in ("watch-x1", "watch-x2"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        names.append(re.sub(r"\d{8}T\d{6}", "TIME", log_file(settings, "watch").name))
    assert names == ["watch-TIME-watch-x1-1.log", "watch-TIME-watch-x2-1.log"]
