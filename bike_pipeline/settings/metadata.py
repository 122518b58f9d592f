"""Where ML Metadata keeps what ran: a SQLite file in the workspace, or a server that several workspaces share."""

from __future__ import annotations

from typing import Annotated, Final, Self
from urllib.parse import urlencode

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Section

METADATA_USER: Final = "BIKE_METADATA_USER"
METADATA_PASSWORD: Final = "BIKE_METADATA_PASSWORD"  # noqa: S105 (the variable's name, never its value)
METADATA_PASSWORD_FILE: Final = "BIKE_METADATA_PASSWORD_FILE"  # noqa: S105

Port = Annotated[int, Field(ge=1, le=65535)]
DatabaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class MySql(Section):
    """ML Metadata in MySQL or MariaDB. User and password come from the environment, never from here.

    The variables are `BIKE_METADATA_USER` and `BIKE_METADATA_PASSWORD`, or `BIKE_METADATA_PASSWORD_FILE`, which names a
    file that holds the password.
    """

    host: Annotated[str, Field(min_length=1)]
    port: Port = 3306
    database: DatabaseName = "bike_metadata"

    @property
    def address(self) -> str:
        """The server as one address, without user and password."""
        return f"mysql://{self.host}:{self.port}/{self.database}"


class MetadataSettings(Section):
    """Where ML Metadata is: a file or a server.

    Attributes:
        sqlite_file: a file of its own; empty for `<workspace>/metadata.sqlite`. For one run at a time.
        ca_file: certificate authority that the server's certificate must come from; empty: as the server has it.
        upgrade: bring a store of an older release up to this one's schema when a run opens it.
    """

    sqlite_file: str = ""
    mysql: MySql | None = None
    ca_file: str = ""
    upgrade: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.sqlite_file and self.mysql:
            raise ValueError("metadata takes either sqlite_file or mysql")
        if self.ca_file and self.mysql is None:
            raise ValueError("metadata.ca_file is for mysql")
        return self

    @property
    def server_address(self) -> str:
        """The server as one address, without user and password; "" if the store is a file."""
        authority = f"?{urlencode({'ca': self.ca_file})}" if self.ca_file else ""
        return f"{self.mysql.address}{authority}" if self.mysql else ""
