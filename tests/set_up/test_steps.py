"""How the set-up runs commands, waits for another one, and is started by make."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.set_up.programs import TOOLS, steps


class TestRun:
    def test_a_long_step_gives_signs_of_life(self, monkeypatch, tmp_path):
        lines = []

        def say(line):
            lines.append(re.sub(r"\d+ s", "N s", line))
            if lines[:-2].count("  sleeping: N s (half way)"):
                (tmp_path / "enough").touch()

        monkeypatch.setattr(steps, "HEARTBEAT", 0.05)
        monkeypatch.setattr(steps, "say", say)
        script = "sleep 0.2; echo half way; until test -e enough; do sleep 0.01; done"
        assert steps.run(["sh", "-c", script], "sleeping", cwd=tmp_path) == "half way\n"
        # An old line does not pass for what is being done now.
        assert lines.count("  sleeping: N s (half way)") == 1
        assert set(lines) == {"  sleeping: N s", "  sleeping: N s (half way)"}

    def test_a_failure_shows_the_end_of_the_output_and_a_fix(self, capsys):
        with pytest.raises(SystemExit):
            steps.run(["sh", "-c", "seq 50; echo 'write: No space left on device' >&2; exit 28"], "unpacking")
        message = capsys.readouterr().err
        assert "unpacking failed with exit code 28" in message
        assert "  | 50" in message
        assert "  | 5\n" not in message
        assert "error: the disk is full" in message

    def test_a_program_that_is_not_there(self, capsys):
        with pytest.raises(SystemExit):
            steps.run(["no-such-program"], "trying")
        assert "trying: cannot run no-such-program" in capsys.readouterr().err

    def test_what_would_lead_an_installation_astray_is_kept_out(self, monkeypatch):
        monkeypatch.setenv("PIP_TARGET", "/elsewhere")
        monkeypatch.setenv("PYTHONPATH", "/elsewhere")
        assert steps.run([sys.executable, "-c", "import os; print('PIP_TARGET' in os.environ)"], "looking") == "False\n"

    @pytest.mark.parametrize(
        ("output", "meaning"),
        [
            ("OSError: [Errno 28] No space left on device", "the disk is full"),
            ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "differs from the one"),
            ("error: Hash mismatch for `absl-py==1.4.0`", "differs from the one"),
            ("NewConnectionError(...): Failed to establish a new connection: Connection refused", "cannot be reached"),
            ("Caused by: dns error: failed to lookup address information", "cannot be reached"),
            ("E: Could not resolve 'mirror'", "cannot be reached"),
            ("invalid peer certificate: UnknownIssuer", "cannot be trusted"),
            ("fatal error: Python.h: No such file or directory", "header files"),
            ("because tensorflow==2.21.0 has no wheels with a matching platform tag", "no build for this platform"),
        ],
    )
    def test_known_failures_are_explained(self, output, meaning):
        what, fix = steps.diagnose(output)
        assert meaning in what
        assert fix

    def test_an_unknown_failure_is_not_explained_away(self):
        assert steps.diagnose("Segmentation fault") is None


def test_a_second_set_up_waits_for_the_first(tmp_path):
    venv = tmp_path / "venv"
    code = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import bootstrap, steps
steps.HEARTBEAT = 0.2
bootstrap.main()
"""
    command = [sys.executable, "-c", code, str(TOOLS), "--venv", str(venv)]
    with (tmp_path / "venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            command, env={**os.environ, "PYTHON": "none"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert "another set-up of this environment is under way" in second.stdout.readline()
        assert "setup:   waiting: " in second.stdout.readline()
        assert second.poll() is None
        fcntl.flock(lock, fcntl.LOCK_UN)
        _, errors = second.communicate(timeout=60)
    assert "PYTHON=none has no usable Python" in errors
    assert not venv.exists()


def test_after_a_killed_set_up_the_next_one_waits_for_its_command_and_says_so(tmp_path, monkeypatch, capsys):
    code = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import steps
with open(sys.argv[2], "a+") as lock:
    steps.take(lock)
    script = "echo $$ > pid.new; mv pid.new pid; exec sleep 300"
    steps.run(["sh", "-c", script], "sleeping", cwd=pathlib.Path(sys.argv[3]))
"""
    arguments = [str(TOOLS), str(tmp_path / "lock"), str(tmp_path)]
    first = subprocess.Popen([sys.executable, "-c", code, *arguments])
    while not (tmp_path / "pid").exists():
        assert first.poll() is None
        time.sleep(0.01)
    orphan = int((tmp_path / "pid").read_text(encoding="utf-8"))
    monkeypatch.setattr(steps, "HEARTBEAT", 0.2)
    with (tmp_path / "lock").open("a+") as lock:
        waiting = threading.Thread(target=steps.take, args=(lock,))
        try:
            first.kill()
            first.wait()
            waiting.start()
            waiting.join(1.0)
            assert waiting.is_alive()
        finally:
            os.kill(orphan, signal.SIGKILL)
        waiting.join(60)
        assert not waiting.is_alive()
        steps.kept_open.remove(lock.fileno())
    told = capsys.readouterr().out.splitlines()
    killed = f"an earlier set-up (process {first.pid}) was killed, and a command that it had started still runs"
    assert told[0] == f"setup: {killed}; waiting for it to end"
    assert told[1].startswith("setup:   waiting: ")
    assert killed in told[1]
