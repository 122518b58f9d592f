"""Parses large messages in a process of their own, while the event loop goes on answering (see `parsing_process`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import select
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from bike_pipeline.serving.server import parsing_process
from bike_pipeline.serving.server.statuses import Code, StatusError

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Parsing:
    """One process, started by the first large message; jobs wait for each other in a thread."""

    def __init__(self, timeout_seconds: float) -> None:
        """Start nothing yet.

        Args:
            timeout_seconds: how long one message may take; beyond it the process is ended, and begins anew.
        """
        self._timeout = timeout_seconds
        self._thread = ThreadPoolExecutor(1, "parsing")
        self._process: subprocess.Popen[bytes] | None = None

    async def run(self, function: Callable[..., _Result], content: bytes, *arguments: Any) -> _Result:
        """Return what a function makes of a message, computed in the other process.

        Args:
            function: a function of a module, called with the message and the arguments.
            content: the message.
            arguments: what else it needs; small, as is what it returns besides arrays.

        Raises:
            StatusError: it took too long, or the process ended, as it does where memory is short.
            Exception: what the function raises.
        """
        job = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
        succeeded, result = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, job, content)
        if not succeeded:
            raise result
        found: _Result = result
        return found

    def close(self) -> None:
        """End the process."""
        self._thread.shutdown(cancel_futures=True)
        self._end()

    def _ask(self, job: bytes, content: bytes) -> tuple[bool, Any]:
        try:
            return self._asked(job, content)
        except TimeoutError:
            self._end()
            message = f"no answer within {self._timeout:g} s"
            return False, StatusError(Code.DEADLINE_EXCEEDED, message)
        except (EOFError, OSError):
            code = self._end()
            _log.warning("the process that parses large messages ended (exit code %s); the next one starts it", code)
            message = "The request could not be parsed; try again, or send several smaller ones."
            return False, StatusError(Code.UNAVAILABLE, message)

    def _asked(self, job: bytes, content: bytes) -> tuple[bool, Any]:
        process = self._process
        if process is None or process.poll() is not None:
            # The terminal's Ctrl-C is for the server, which ends the other process when it is done.
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", parsing_process.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        for frame in (job, content):
            parsing_process.write(process.stdin.fileno(), frame)
        ends = time.monotonic() + self._timeout
        readable = select.poll()
        readable.register(process.stdout, select.POLLIN)

        def wait() -> None:
            if not readable.poll(max(0.0, ends - time.monotonic()) * 1000):
                raise TimeoutError

        # It is this package's own process that writes there.
        answer: tuple[bool, Any] = pickle.loads(parsing_process.read(process.stdout.fileno(), wait))  # noqa: S301
        return answer

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return process.wait()
