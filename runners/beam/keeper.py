"""Keeps one program running for as long as the process that wants it: `python keeper.py PROGRAM ARGUMENT…`.

A job server must not outlive its run, however that one ends. Its input is a pipe from the run: when the run closes it
or dies, even of a kill signal, the pipe ends and the program is stopped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

STOP_SECONDS = 10


def main() -> int:
    """Run the program until it ends or the input does; return its exit code."""
    # An interruption from the keyboard reaches every process in the terminal; the run decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def stop_at_the_end_of_input() -> None:
        while os.read(0, 1024):
            pass
        program.terminate()
        try:
            program.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()

    threading.Thread(target=stop_at_the_end_of_input, daemon=True).start()
    return program.wait()


if __name__ == "__main__":
    sys.exit(main())
