"""The page for people as one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

# What a browser calls an origin: a Content-Security-Policy takes nothing more of an address, and nothing less.
_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?")


def export_page(settings: Settings, output: Path, *, server: str = "") -> Path:
    """Write the page on which people ask for forecasts as one file, for a device or a web server; return the file.

    Args:
        settings: the settings, of which the page takes the model's name.
        output: the file.
        server: address of the server that it asks, such as http://192.168.1.7:8501; without one it asks the server
            that hands it out.

    Raises:
        ConfigurationError: the address is none.
        StorageError: the file cannot be written.
    """
    from bike_pipeline.pages import forecast
    from bike_pipeline.storage.atomic_files import replace_file

    address = server.rstrip("/")
    if address and not _ORIGIN.fullmatch(address):
        raise ConfigurationError(
            f"{server!r} is no address that a page can ask",
            where="--server",
            fix="name scheme, host and port, such as http://192.168.1.7:8501",
        )
    replace_file(output, forecast.single_file(settings.serving.model_name, address).encode())
    return output
