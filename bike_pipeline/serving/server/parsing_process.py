"""The process beside the server that parses large messages: `python -m …parsing_process`, spoken to over its pipes.

Python's parsers hold the interpreter while they work, so that a thread would hold up the event loop as the loop itself
would. A frame is eight bytes of length and that many bytes. A job is two frames, the pickle of a function with its
arguments and the message; its answer is one, the pickle of a result or of an error. It ends with its input.
"""

from __future__ import annotations

import gc
import os
import pickle
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

LENGTH = struct.Struct("<Q")


def read(fd: int, wait: Callable[[], None] = lambda: None) -> bytearray:
    """Return a frame.

    Args:
        fd: where it comes from.
        wait: called before each read, to wait no longer than one may.

    Raises:
        EOFError: the other side is gone.
    """
    (length,) = LENGTH.unpack(_exactly(fd, LENGTH.size, wait))
    return _exactly(fd, length, wait)


def _exactly(fd: int, length: int, wait: Callable[[], None]) -> bytearray:
    found = bytearray(length)
    view, at = memoryview(found), 0
    while at < length:
        wait()
        count = os.readv(fd, [view[at:]])
        if not count:
            raise EOFError
        at += count
    return found


def write(fd: int, content: bytes | bytearray) -> None:
    """Write a frame.

    Raises:
        BrokenPipeError: the other side is gone.
    """
    for part in (LENGTH.pack(len(content)), content):
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view) :]


def _answer(job: bytes | bytearray, message: bytes | bytearray) -> bytes:
    # Only the server writes to this pipe.
    function, arguments = pickle.loads(job)  # noqa: S301
    try:
        answer: tuple[bool, Any] = (True, function(bytes(message), *arguments))
        return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - whatever it is belongs to that request
        try:
            # An error that cannot be rebuilt from its pickle would end the server's job instead.
            content = pickle.dumps((False, error), pickle.HIGHEST_PROTOCOL)
            pickle.loads(content)  # noqa: S301
        except Exception:  # noqa: BLE001
            told = "".join(traceback.format_exception(error))
            return pickle.dumps((False, RuntimeError(told)), pickle.HIGHEST_PROTOCOL)
        return content


def main() -> None:
    """Answer jobs until the input ends."""
    # Whatever else prints must not get between the answers.
    jobs, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    # Parsing makes no cycles; looking for some takes longer than the parsing.
    gc.disable()
    while True:
        try:
            job = read(jobs)
            message = read(jobs)
            content = _answer(job, message)
            del job, message
            write(answers, content)
        except (EOFError, BrokenPipeError):
            sys.exit(0)


if __name__ == "__main__":
    main()
