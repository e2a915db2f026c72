"""Being told by the kernel that a file is written to, where it tells (Linux, inotify): it saves looking at it."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import time
from pathlib import Path

_EVENT = struct.Struct("iIII")
_MODIFIED, _MOVED_IN, _MADE = 0x2, 0x80, 0x100
_READ_BYTES = 65_536
_OTHERS_S = 0.005
"""Writes to other files of the folder cost no more than a look so often."""


class FileWrites:
    """The writes to a file and to what lies beside it with a longer name: a database and its write-ahead log."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._name = os.fsencode(file.name)
        self._descriptor: int | None = None
        self._is_told = sys.platform == "linux"

    def wait(self, seconds: float, stop: int) -> bool:
        """Wait for a write after the last call: whether there was any within ``seconds``, or it cannot be known.

        So it is in the first call, and at once where the kernel does not tell. Ends as well when ``stop`` (a file
        descriptor) can be read.
        """
        if self._descriptor is None:
            self._begin()
            return True
        deadline_s = time.monotonic() + seconds
        while True:
            ready = select.select([self._descriptor, stop], [], [], max(deadline_s - time.monotonic(), 0.0))[0]
            if not ready or stop in ready:
                return False
            if self._take(self._descriptor):
                return True
            time.sleep(_OTHERS_S)

    def close(self) -> None:
        """Be told no more, until the next call of :meth:`wait`."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _begin(self) -> None:
        if not self._is_told:
            return
        libc = ctypes.CDLL(None)
        descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        # Of the whole folder, as these files come and go.
        folder = os.fsencode(self._file.parent)
        if descriptor < 0 or libc.inotify_add_watch(descriptor, folder, _MODIFIED | _MOVED_IN | _MADE) < 0:
            # There are as many users of it as the system allows, or none.
            self._is_told = False
        if descriptor >= 0 and not self._is_told:
            os.close(descriptor)
        elif descriptor >= 0:
            self._descriptor = descriptor

    def _take(self, descriptor: int) -> bool:
        """Take all that is told: whether any is of these files, or some of it was lost."""
        ours = False
        while True:
            try:
                told = os.read(descriptor, _READ_BYTES)
            except BlockingIOError:
                return ours
            place = 0
            while place < len(told):
                watch, _, _, length = _EVENT.unpack_from(told, place)
                place += _EVENT.size + length
                # -1: there was more than the kernel keeps.
                ours = ours or watch < 0 or told[place - length : place].startswith(self._name)
