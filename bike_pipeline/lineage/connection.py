"""Where an ML Metadata store is, said in one address without a secret: `sqlite:///FILE` or `mysql://HOST:PORT/NAME`."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from ml_metadata import errors as mlmd_errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError
from bike_pipeline.settings.kubeflow import METADATA_PASSWORD, METADATA_PASSWORD_FILE, METADATA_USER


def connection_config(address: str) -> pb.ConnectionConfig:
    """Return how to connect to a store; user and password of a server come from the environment.

    Raises:
        MetadataError: they are not there, or the address is of another kind.
    """
    parts = urlsplit(address)
    config = pb.ConnectionConfig()
    if parts.scheme == "sqlite":
        config.sqlite.filename_uri = parts.path
        config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        return config
    if parts.scheme != "mysql" or not parts.hostname:
        raise MetadataError("no address of a metadata store", where=address, fix="sqlite:///FILE or mysql://HOST/NAME")
    user, password = os.environ.get(METADATA_USER), _password()
    if not user or password is None:
        raise MetadataError(
            f"{METADATA_USER} and {METADATA_PASSWORD} are not in the environment",
            where=address,
            fix="in the cluster name a secret with both in kubeflow.secrets and compile again, elsewhere export them",
        )
    config.mysql.host, config.mysql.port, config.mysql.database = parts.hostname, parts.port or 3306, parts.path[1:]
    config.mysql.user, config.mysql.password = user, password
    return config


def _password() -> str | None:
    file = os.environ.get(METADATA_PASSWORD_FILE)
    if METADATA_PASSWORD in os.environ or not file:
        return os.environ.get(METADATA_PASSWORD)
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise MetadataError(
            f"cannot read the password ({error.strerror or error})", where=file, fix=f"see {METADATA_PASSWORD_FILE}"
        ) from None


def cannot_open(address: str, error: Exception) -> MetadataError:
    """Return the one line for a store that cannot be opened."""
    return MetadataError(
        f"cannot open the metadata store ({str(error).splitlines()[0]})",
        where=address,
        fix="check that it can be reached from here and that the account may use it",
    )


def open_at(address: str) -> metadata_store.MetadataStore:
    """Open the store at an address, for reading.

    Raises:
        MetadataError: it cannot be reached, or is none.
    """
    config = connection_config(address)
    if config.HasField("sqlite") and not Path(config.sqlite.filename_uri).is_file():
        raise MetadataError("there is no metadata store", where=address, fix="see kubeflow.metadata in the settings")
    try:
        return metadata_store.MetadataStore(config)
    except (mlmd_errors.StatusError, RuntimeError) as error:
        raise cannot_open(address, error) from None
