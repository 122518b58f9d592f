"""Connecting to a metadata store: each thing that can be wrong is one clear line."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ml_metadata import errors as mlmd_errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.store import connection
from bike_pipeline.settings import load_settings
from tests import database_servers
from tests.database_servers import ACCOUNT, DATABASE, USER, Server

# Another process: within one, POSIX locks of a file do not see each other.
HOLD_LOCKED = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and password in the environment."""
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)


def sqlite_store(path: Path) -> str:
    """Make a store at a path; return its address."""
    address = f"sqlite://{path}"
    connection.open_at(address, create=True)
    return address


def test_the_default_is_a_file_in_the_workspace(tmp_path: Path) -> None:
    settings = load_settings(assignments=(f"workspace={tmp_path}/a b",))
    assert (
        connection.connection_config(settings.metadata_address).sqlite.filename_uri == f"{tmp_path}/a b/metadata.sqlite"
    )
    own = load_settings(assignments=(f"metadata.sqlite_file={tmp_path}/own.sqlite",))
    assert own.metadata_file == tmp_path / "own.sqlite"


@pytest.mark.usefixtures("account")
def test_a_server_is_named_in_the_settings_and_its_account_in_the_environment() -> None:
    mysql = load_settings(assignments=("metadata.mysql={host: db.example, database: lineage}",))
    assert mysql.metadata_address == "mysql://db.example:3306/lineage"
    config = connection.connection_config(mysql.metadata_address).mysql
    assert (config.host, config.port, config.database) == ("db.example", 3306, "lineage")
    assert (config.user, config.password) == (USER, ACCOUNT["BIKE_METADATA_PASSWORD"])
    assert not config.HasField("ssl_options")
    trusting = load_settings(assignments=("metadata.mysql={host: db.example}", "metadata.ca_file=/etc/a b.pem"))
    secured = connection.connection_config(trusting.metadata_address).mysql.ssl_options
    assert (secured.ca, secured.verify_server_cert) == ("/etc/a b.pem", True)
    assert ACCOUNT["BIKE_METADATA_PASSWORD"] not in trusting.model_dump_json() + mysql.model_dump_json()


def test_the_password_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("from the file\n", encoding="utf-8")
    monkeypatch.setenv("BIKE_METADATA_USER", "somebody")
    monkeypatch.delenv("BIKE_METADATA_PASSWORD", raising=False)
    monkeypatch.setenv("BIKE_METADATA_PASSWORD_FILE", str(tmp_path / "password"))
    assert connection.connection_config("mysql://db/x").mysql.password == "from the file"
    monkeypatch.setenv("BIKE_METADATA_PASSWORD_FILE", str(tmp_path / "absent"))
    with pytest.raises(MetadataError, match="absent: cannot read the password"):
        connection.connection_config("mysql://db/x")
    monkeypatch.delenv("BIKE_METADATA_PASSWORD_FILE")
    with pytest.raises(MetadataError, match="BIKE_METADATA_USER and BIKE_METADATA_PASSWORD are not in the environment"):
        connection.connection_config("mysql://db/x")


def test_an_address_of_another_kind() -> None:
    with pytest.raises(MetadataError, match="no address of a metadata store"):
        connection.connection_config("postgresql://db/x")


def test_an_absent_file_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="there is no metadata store"):
        connection.open_at(f"sqlite://{tmp_path}/metadata.sqlite")
    assert not list(tmp_path.iterdir())


def test_an_older_schema_is_told_and_brought_up_only_on_request(tmp_path: Path) -> None:
    address = sqlite_store(tmp_path / "metadata.sqlite")
    metadata_store.downgrade_schema(connection.connection_config(address), 9)
    with pytest.raises(MetadataError, match=r"older release \(schema 9, this one needs 10\).*metadata\.upgrade=true"):
        connection.open_at(address)
    connection.open_at(address, upgrade=True)
    assert connection.open_at(address).get_artifacts() == []


def test_a_newer_schema(tmp_path: Path) -> None:
    address = sqlite_store(tmp_path / "metadata.sqlite")
    with sqlite3.connect(tmp_path / "metadata.sqlite") as raw:
        raw.execute("update MLMDEnv set schema_version = 99")
    with pytest.raises(MetadataError, match=r"newer release \(schema 99, this one knows 10\).*Upgrade bike-pipeline"):
        connection.open_at(address)


def test_a_half_written_store(tmp_path: Path) -> None:
    address = sqlite_store(tmp_path / "metadata.sqlite")
    with sqlite3.connect(tmp_path / "metadata.sqlite") as raw:
        raw.execute("drop table Event")
    with pytest.raises(MetadataError, match="half-written") as refused:
        connection.open_at(address)
    # What can be read of it may be all that is left.
    assert not re.search("drop|delete|remove", str(refused.value))


def test_a_locked_store(tmp_path: Path) -> None:
    address = sqlite_store(tmp_path / "metadata.sqlite")
    command = [sys.executable, "-c", HOLD_LOCKED, str(tmp_path / "metadata.sqlite")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(MetadataError, match="another process holds it locked"):
            connection.open_at(address)
        holder.communicate()
    connection.open_at(address)


@pytest.mark.slow
def test_a_lock_that_is_released_while_a_command_waits_is_no_half_written_store(tmp_path: Path) -> None:
    address = sqlite_store(tmp_path / "metadata.sqlite")
    command = [sys.executable, "-c", HOLD_LOCKED, str(tmp_path / "metadata.sqlite")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert holder.stdin is not None
        # Late enough that some of the tables could not be looked at, too early for all of them.
        letting_go = threading.Timer(10.0, holder.stdin.close)
        letting_go.start()
        assert connection.open_at(address).get_artifacts() == []
        letting_go.join()
        holder.stdin = None
        holder.communicate()


SUBSET = "There are a subset of tables in MLMD instance. This may be due to concurrent connection to the empty database"


@pytest.mark.parametrize("address", ["sqlite:///w/metadata.sqlite", "mysql://db.example/lineage"])
@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("ABORTED: Concurrent writes aborted after max number of retries.", "another process holds it locked"),
        ("INTERNAL: mysql_query failed: errno: 1205, error: Lock wait timeout exceeded", "holds it locked"),
        (
            "INTERNAL: mysql_query failed: errno: 1142, error: SELECT command denied to user",
            "not all of its tables",
        ),
        ("INTERNAL: Error when executing query: no such table: Event", "it is half-written"),
        ("INTERNAL: mysql_query failed: errno: 1146, error: Table 'x.Event' doesn't exist", "it is half-written"),
    ],
)
def test_only_tables_that_are_absent_make_a_store_half_written(address: str, cause: str, words: str) -> None:
    told = connection.cannot_open(address, RuntimeError(f"{SUBSET} missing tables: event_table Errors: {cause}"))
    assert words in str(told)
    assert not re.search("drop|delete|remove", told.fix)


@pytest.mark.usefixtures("account")
def test_a_server_out_of_reach() -> None:
    port = database_servers.free_port()
    with pytest.raises(MetadataError, match=f"mysql://127.0.0.1:{port}/x: the metadata server cannot be reached"):
        connection.open_at(f"mysql://127.0.0.1:{port}/x")


def test_only_errors_of_the_store_are_taken_for_such() -> None:
    lost = RuntimeError("Failed to establish connection to Metadata storage with error: mysql_real_connect failed: ")
    told = connection.failure_of(lost)
    assert told is not None
    assert "the connection was lost" in str(told)
    assert connection.failure_of(mlmd_errors.InternalError("Lost connection to MySQL server during query")) is not None
    assert connection.failure_of(ValueError("Lost connection to MySQL server")) is None
    assert connection.failure_of(RuntimeError("Connection refused by the other side")) is None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server."""
    with database_servers.mariadb(tmp_path_factory.mktemp("mariadb")) as found:
        yield found


@pytest.mark.slow
@pytest.mark.usefixtures("account")
def test_a_real_server_from_first_use_to_its_loss(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MetadataError, match="no such database"):
        connection.open_at(server.address)
    store = connection.open_at(server.address, create=True)
    type_id = store.put_artifact_type(pb.ArtifactType(name="Thing"))
    store.put_artifacts([pb.Artifact(type_id=type_id, uri="ü/ß")])
    assert [found.uri for found in connection.open_at(server.address).get_artifacts()] == ["ü/ß"]
    metadata_store.downgrade_schema(connection.connection_config(server.address), 9)
    with pytest.raises(MetadataError, match="older release"):
        connection.open_at(server.address)
    connection.open_at(server.address, upgrade=True)
    monkeypatch.setenv("BIKE_METADATA_PASSWORD", "wrong")
    with pytest.raises(MetadataError, match="refuses this user, or its password"):
        connection.open_at(server.address)
    monkeypatch.setenv("BIKE_METADATA_PASSWORD", database_servers.PASSWORD)
    server.stop()
    with pytest.raises(mlmd_errors.StatusError) as lost:
        store.get_artifacts()
    told = connection.failure_of(lost.value)
    assert told is not None
    assert "the connection was lost" in str(told)
    with pytest.raises(MetadataError, match=f"{DATABASE}: the metadata server cannot be reached"):
        connection.open_at(server.address)
    server.start()
    assert len(connection.open_at(server.address).get_artifacts()) == 1
