"""The process in which a version is tried before it is promoted: the embedded server with this one version.

Called as `python -m bike_pipeline.rollout.trial_server PARENT_PID KEY=VALUE …`, with settings. It prints its REST port
and the versions that serve as one line of JSON, and ends with its parent.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.serving.server.app import Server

# From linux/prctl.h: the signal that a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until the parent stops it or ends."""
    parent, *assignments = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        # The parent died before the line above.
        return
    from bike_pipeline.serving.server import app
    from bike_pipeline.settings import load_settings

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = load_settings(None, tuple(assignments))

    def print_ready(server: Server) -> None:
        model = server.versions.models[settings.serving.model_name]
        ready = {
            "rest_port": server.rest_port,
            "versions": [version.number for version in model.available()],
            "problems": [str(version.error) for version in model.failed],
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()

    app.run(settings, print_ready)


if __name__ == "__main__":
    main()
