"""The ledger in MariaDB: processes that race for the same changes come to one run for each."""

import subprocess
import sys
import textwrap

import pytest

from bike_pipeline.errors import BusyError, ConfigurationError, StorageError
from bike_pipeline.retraining.events import State
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.ledger_tables import of_server
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.retraining import PolicySettings
from bike_pipeline.use_cases.retraining import open_ledger
from tests import database_servers
from tests.database_servers import ACCOUNT, DATABASE, PASSWORD, USER
from tests.retraining.conftest import event

PROCESSES, CHANGES = 3, 12
RACER = """
import sys
from bike_pipeline.errors import BusyError
from bike_pipeline.retraining.events import Event, State, digest_of
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.ledger_tables import of_server
from bike_pipeline.settings.retraining import PolicySettings

port, user, password, database, me, changes = sys.argv[1:]
ledger = Ledger(of_server("127.0.0.1", int(port), database, (user, password)))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(changes)):
    ledger.see(Event("code", "there", digest_of(str(number))))
    # Whoever comes takes the lease, alive or not: each claim may be fenced off before it is worked on.
    fence = ledger.hold_lease(me, 0.0) or 0
    try:
        open_runs = [run for run in ledger.unfinished(fence) if run.state is State.CLAIMED]
        run = open_runs[0] if open_runs else ledger.claim(fence, PolicySettings(runs_per_day=10_000))
        if run is not None:
            ledger.advance(run, State.PROMOTED, me)
    except BusyError:
        pass
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with database_servers.mariadb(tmp_path_factory.mktemp("ledger")) as found:
        yield found


def test_processes_that_race_claim_each_change_once(server):
    command = [sys.executable, "-c", textwrap.dedent(RACER), str(server.port), USER, PASSWORD, DATABASE]
    racers = [
        subprocess.Popen([*command, f"process {number}", str(CHANGES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for number in range(PROCESSES)
    ]
    for racer in racers:
        assert racer.stdout.readline() == b"ready\n"
    for racer in racers:
        racer.stdin.write(b"go\n")
        racer.stdin.flush()
    assert [racer.wait(120) for racer in racers] == [0] * PROCESSES
    ledger = Ledger(of_server("127.0.0.1", server.port, DATABASE, (USER, PASSWORD)))
    fence = ledger.hold_lease("the end", 0.0)
    for run in ledger.unfinished(fence):
        if run.ended_at is None:
            ledger.advance(run, State.PROMOTED)
    while (run := ledger.claim(fence, PolicySettings(runs_per_day=10_000))) is not None:
        ledger.advance(run, State.PROMOTED)
    answered = [identity for run in ledger.runs() for identity in run.events]
    assert len(answered) == len(set(answered)) == CHANGES
    assert {one.state for one in ledger.events()} == {State.PROMOTED}
    assert [run.number for run in ledger.runs()] == list(range(1, len(ledger.runs()) + 1))


def test_a_loop_works_on_the_server_and_another_model_s_ledger_is_refused(server, tmp_path, monkeypatch, executor):
    from bike_pipeline.retraining.loop import Loop

    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    own = f"workspace={tmp_path}", server.setting, f"retraining.database={DATABASE}"
    settings = load_settings(assignments=own)
    ledger = open_ledger(settings)
    ledger.see(event("a"))
    loop = Loop(ledger, executor, (), settings.retraining, "one")
    assert loop.work().state is State.PROMOTED
    with pytest.raises(BusyError, match="taken over"):
        ledger.claim(0, settings.retraining.policy)
    with pytest.raises(ConfigurationError, match="is that of"):
        open_ledger(load_settings(assignments=(f"workspace={tmp_path / 'other'}", *own[1:])))


def test_an_error_of_the_server_is_one_line_without_the_password(server):
    with pytest.raises(StorageError, match="cannot be used") as caught:
        of_server("127.0.0.1", server.port, DATABASE, (USER, "not the password"), where="mysql://here")
    assert "not the password" not in str(caught.value)
