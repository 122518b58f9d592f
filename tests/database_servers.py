"""Real database servers for tests: on loopback, with a data folder and a free port of their own, stopped afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import database_servers

USER, PASSWORD, DATABASE = "bike", 'it\'s-a "secret"', "bike_metadata"
ACCOUNT = {"BIKE_METADATA_USER": USER, "BIKE_METADATA_PASSWORD": PASSWORD}


def program(server: str) -> Path:
    """Return the server's main program; skip the test, saying why, where there is none."""
    found = database_servers.find(server)
    if found is None:
        pytest.skip(
            f"no {server} on this machine: neither installed (Debian, Ubuntu: apt install {server}-server) nor fetched "
            "(`make databases`)"
        )
    return found


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server: `start` and `stop` as often as a test wants.

    Attributes:
        port: its port on loopback, the same after a restart.
        setting: what to `--set` so that the product uses it.
    """

    def __init__(self, kind: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        """Keep how it is started; `command` listens on `port`."""
        self.port = free_port()
        self.setting = f"metadata.{kind}={{host: 127.0.0.1, port: {self.port}}}"
        self.address = f"{kind}://127.0.0.1:{self.port}/{DATABASE}"
        self.log = log
        self._command, self._environment = command, environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        command = [part.replace("{port}", str(self.port)) for part in self._command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/"
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{command[0]} does not answer: {self.log.read_text(errors='replace')[-1000:]}")

    def stop(self) -> None:
        """Stop it and wait for its end."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextmanager
def mariadb(folder: Path) -> Iterator[Server]:
    """Run MariaDB with its data in `folder`; USER has all rights on DATABASE, which does not exist yet."""
    binary = program("mariadb")
    root = binary.parents[2] if binary.parts[-3:-1] == ("usr", "sbin") else Path("/")
    share = root / "usr" / "share" / "mysql"
    share = share if share.is_dir() else root / "usr" / "share" / "mariadb"
    libraries = [str(path) for path in (root / "usr" / "lib").glob("*-linux-gnu")] if root != Path("/") else []
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    data = folder / "mariadb"
    data.mkdir()
    common = [
        str(binary), "--no-defaults", f"--datadir={data}", f"--lc-messages-dir={share}",
        f"--character-sets-dir={share / 'charsets'}", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M",
        *(["--user=root"] if os.geteuid() == 0 else []),
    ]  # fmt: skip
    tables = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
    statements = "CREATE DATABASE mysql;\nUSE mysql;\n" + "".join(
        (share / name).read_text(encoding="utf-8", errors="replace") for name in tables
    )
    made = subprocess.run(
        [*common, "--bootstrap"], input=statements, env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    account = folder / "account.sql"
    account.write_text(
        f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD.replace(chr(39), chr(39) * 2)}';\n"
        f"GRANT ALL PRIVILEGES ON {DATABASE}.* TO '{USER}'@'%';\n",
        encoding="utf-8",
    )
    # A socket's path may have 107 characters at most, and a test's folder is longer: TCP only.
    server = Server(
        "mysql",
        [*common, "--bind-address=127.0.0.1", "--port={port}", "--socket=", f"--pid-file={data / 'pid'}",
         f"--init-file={account}", "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve"],
        environment, folder / "mariadb.log",
    )  # fmt: skip
    server.start()
    try:
        yield server
    finally:
        server.stop()
