"""A full disk and too few file handles: said as what they are.

Libraries report both as something else: a broker that does not answer, a store that is not there, a bare exception.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from pathlib import Path

from headrace.errors import DataFolderError, FileHandlesError, HeadraceError

WANTED_FILES = 65_536
LEAST_FILES = 128
"""What a service needs without any state: its libraries, sockets, a store."""

FILES_A_PARTITION = 20
"""What the state of one partition takes: its log, its manifest, its tables."""

_HINT = "allow more, as `ulimit -n 4096` in the shell (LimitNOFILE= in systemd, --ulimit nofile= in Docker)"
SPARE_FILES = 8
"""With fewer than so many file handles left nothing new can be opened: a database is three files."""

SPARE_BYTES = 1024 * 1024
"""With less than this left a batch of messages may not fit."""

_FULL = re.compile(
    r"no space left on device|disk quota exceeded|file too large|database or disk is full", re.IGNORECASE
)
_NO_FILES = re.compile(r"too many open files", re.IGNORECASE)
_PATH = re.compile(r"(/[^\s:]+)")


def allow_files(needed: int = LEAST_FILES) -> None:
    """Take all the file handles that this process is allowed: shells give out few of them by default.

    Raises FileHandlesError when they are fewer than needed: what fails for want of one says so seldom.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise FileHandlesError(f"this process may open {soft} files, and needs up to {needed}", hint=_HINT)


def check_file_handles() -> None:
    """Raise FileHandlesError when this process has hardly any file handle left."""
    opened: list[int] = []
    try:
        for _ in range(SPARE_FILES):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise _too_few_files() from None
        raise
    finally:
        for handle in opened:
            os.close(handle)


def is_full(folder: Path) -> bool:
    """Whether there is hardly any room left on the disk of a folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < SPARE_BYTES


def may_not_grow() -> bool:
    """Whether this process's files are bounded in size (`ulimit -f`)."""
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


def exhausted(error: BaseException) -> HeadraceError | None:
    """What an error of the system or a library says, in our words, when a disk is full or file handles are out."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE) or _NO_FILES.search(str(cause)):
            return _too_few_files()
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _FULL.search(str(cause)):
            named = cause.filename if isinstance(cause, OSError) else None
            found = _PATH.search(str(cause))
            return full(str(named or (found[1] if found else "the data folder")))
        cause = cause.__cause__ or cause.__context__
    return None


def full(path: str) -> DataFolderError:
    """That there is no room for a file."""
    return DataFolderError(
        f"there is no room left on the disk for {path}",
        hint="make room, or give another folder with --data, and start again: it goes on from the last checkpoint",
    )


def _too_few_files() -> FileHandlesError:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FileHandlesError(
        f"this process has no file handle left: it may open {soft} files",
        hint=_HINT,
    )
