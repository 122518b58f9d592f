"""Parses large messages in a process of its own, `python -m …parsing`, while the event loop goes on answering.

Python's parsers hold the interpreter, so that a thread would hold the event loop up. A job is the pickle of a function
with its arguments, then the message; its answer is the pickle of a result or of an error. The process ends with its
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from bike_pipeline.serving.statuses import Code, StatusError

_log = logging.getLogger(__name__)


class Parsing:
    """One process, started by the first large message; jobs wait for each other in a thread."""

    def __init__(self, timeout_seconds: float) -> None:
        """Start nothing yet; a message that takes longer than that ends the process, which begins anew."""
        self._timeout = timeout_seconds
        self._thread = ThreadPoolExecutor(1, "parsing")
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None

    async def run(self, function: Callable[..., Any], content: bytes, *arguments: Any) -> Any:
        """Return what a function of a module makes of a message and small arguments, or raise what it raises.

        A StatusError also says that it took too long, or that the process ended, as it does if memory is short.
        """
        job = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
        succeeded, result = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, job, content)
        if not succeeded:
            raise result
        return result

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._end()

    def _ask(self, job: bytes, content: bytes) -> Any:
        """Return whether the function succeeded, and what it returned or raised."""
        try:
            if self._child is None or self._child[0].poll() is not None:
                self._child = _started()
            _, jobs = self._child
            jobs.send_bytes(job)
            jobs.send_bytes(content)
            if jobs.poll(self._timeout):
                return jobs.recv()
        except (EOFError, OSError):
            code = self._end()
            _log.warning("the process that parses large messages ended (exit code %s); the next one starts it", code)
            message = "The request could not be parsed; try again, or send several smaller ones."
            return False, StatusError(Code.UNAVAILABLE, message)
        self._end()
        return False, StatusError(Code.DEADLINE_EXCEEDED, f"no answer within {self._timeout:g} s")

    def _end(self) -> int | None:
        if self._child is None:
            return None
        (process, jobs), self._child = self._child, None
        process.kill()
        jobs.close()
        return process.wait()


def _started() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, its = Pipe()
    with its:
        # Whatever else it prints belongs to the log. The terminal's Ctrl-C is for the server, which ends the process
        # when it is done.
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(its.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
    return process, ours


def _answer(job: bytes, message: bytes) -> bytes:
    # Only the server writes to this connection.
    function, arguments = pickle.loads(job)  # noqa: S301
    answer: tuple[bool, Any]
    try:
        answer = (True, function(message, *arguments))
    except StatusError as error:
        answer = (False, error)
    except Exception as error:  # noqa: BLE001 - whatever it is belongs to that request
        # As text: an error that cannot be rebuilt from its pickle would end the server's job instead.
        answer = (False, RuntimeError("".join(traceback.format_exception(error))))
    return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)


def main() -> None:
    """Answer the jobs of the connection whose number is given, until it ends."""
    jobs = Connection(int(sys.argv[1]))
    # Parsing makes no cycles; looking for some takes longer than the parsing.
    gc.disable()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            jobs.send_bytes(_answer(jobs.recv_bytes(), jobs.recv_bytes()))


if __name__ == "__main__":
    main()
