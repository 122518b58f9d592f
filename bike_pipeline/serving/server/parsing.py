"""Parses large messages in a process of its own, `python -m …parsing`, while the event loop goes on answering.

Python's parsers hold the interpreter while they work, so that a thread would hold up the event loop as the loop itself
would. A job is the pickle of a function with its arguments, then the message; its answer is the pickle of a result or
of an error. The process ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from bike_pipeline.serving.statuses import Code, StatusError

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Parsing:
    """One process, started by the first large message; jobs wait for each other in a thread."""

    def __init__(self, timeout_seconds: float) -> None:
        """Start nothing yet; a message that takes longer than that ends the process, which begins anew."""
        self._timeout = timeout_seconds
        self._thread = ThreadPoolExecutor(1, "parsing")
        self._process: subprocess.Popen[bytes] | None = None

    async def run(self, function: Callable[..., _Result], content: bytes, *arguments: Any) -> _Result:
        """Return what a function of a module makes of a message, computed in the other process.

        Args:
            function: called with the message and the arguments.
            content: the message.
            arguments: what else it needs; small, as is what it returns besides arrays.

        Raises:
            StatusError: it took too long, or the process ended, as it does if memory is short.
            Exception: what the function raises.
        """
        job = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
        succeeded, result = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, job, content)
        if not succeeded:
            raise result
        found: _Result = result
        return found

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._end()

    def _ask(self, job: bytes, content: bytes) -> tuple[bool, Any]:
        process = self._process
        try:
            if process is None or process.poll() is not None:
                # The terminal's Ctrl-C is for the server, which ends the other process when it is done.
                process = self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                    start_new_session=True,
                )
            assert process.stdin is not None
            assert process.stdout is not None
            jobs = Connection(os.dup(process.stdin.fileno()), readable=False)
            answers = Connection(os.dup(process.stdout.fileno()), writable=False)
            with jobs, answers:
                for part in (job, content):
                    jobs.send_bytes(part)
                if answers.poll(self._timeout):
                    answer: tuple[bool, Any] = answers.recv()
                    return answer
        except (EOFError, OSError):
            code = self._end()
            _log.warning("the process that parses large messages ended (exit code %s); the next one starts it", code)
            message = "The request could not be parsed; try again, or send several smaller ones."
            return False, StatusError(Code.UNAVAILABLE, message)
        self._end()
        return False, StatusError(Code.DEADLINE_EXCEEDED, f"no answer within {self._timeout:g} s")

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


def _answer(job: bytes, message: bytes) -> bytes:
    # Only the server writes to this pipe.
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
    """Answer jobs until the input ends."""
    # Whatever else prints must not get between the answers.
    jobs, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    # Parsing makes no cycles; looking for some takes longer than the parsing.
    gc.disable()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            answers.send_bytes(_answer(jobs.recv_bytes(), jobs.recv_bytes()))


if __name__ == "__main__":
    main()
