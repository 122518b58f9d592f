"""Root, without what lets root read and write whatever the modes of files say."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# From linux/capability.h.
_VERSION_3 = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def _call(name: str, data: ctypes.Array[_Data]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(ctypes.byref(_Header(_VERSION_3, 0)), data):
        raise OSError(ctypes.get_errno(), name)


@contextmanager
def modes_count() -> Iterator[None]:
    """Let the modes of files bind this thread, also if root runs the tests, as they bind everybody else."""
    if os.geteuid():
        yield
        return
    before, without = (_Data * 2)(), (_Data * 2)()
    _call("capget", before)
    _call("capget", without)
    without[0].effective &= ~_OVERRIDES
    _call("capset", without)
    try:
        yield
    finally:
        _call("capset", before)
