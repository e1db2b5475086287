"""Errors of the operating system, in words and with a way out."""

from __future__ import annotations

import errno
import os

from coralx.errors import SetupError

WAYS_OUT = {
    errno.ENOSPC: "Free space on its file system.",
    errno.EDQUOT: "Free space, or have the quota raised.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or use another file system.",
    errno.EROFS: "Make its file system writable.",
    errno.EACCES: "Fix its permissions.",
    errno.EPERM: "Fix its permissions.",
}
"""What to do about errors that name a file, by error number."""

WITHOUT_FOLDER = "Change to a folder that exists, and start again."

_PROCESSES = (
    "Raise the limit on processes (ulimit -u; in a container, its pids limit), end other "
    "processes, or lower runtime.workers and runtime.threads_per_worker."
)
_MEMORY = "End other programs, raise the limit on memory (ulimit -v), or lower runtime.workers."
_FILES = "Raise the limit on open files (ulimit -n), or lower runtime.workers."

_SHORTAGES = {
    errno.EAGAIN: ("no further process or thread can be started: the limit is reached", _PROCESSES),
    errno.ENOMEM: ("the machine has no memory left", _MEMORY),
    errno.EMFILE: ("too many open files in this process", _FILES),
    errno.ENFILE: ("too many open files on this machine", _FILES),
    errno.ENOSPC: ("no space is left on a file system", "Free space on it."),
}
"""Message and way out of errors that are about the machine and not about the file they name."""


def as_setup_error(error: Exception) -> SetupError | None:
    """An error of the operating system as a SetupError; None for an error of another kind."""
    if isinstance(error, MemoryError):
        return SetupError(*_SHORTAGES[errno.ENOMEM])
    # CPython has no class of its own for a thread that cannot be started.
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return SetupError(*_SHORTAGES[errno.EAGAIN])
    if not isinstance(error, OSError):
        return None
    # Without a working folder every relative path is missing, whatever it names.
    if isinstance(error, FileNotFoundError) and not has_working_folder():
        return SetupError("the working folder no longer exists", WITHOUT_FOLDER)
    # Only a full disk is found by the file that does not fit: its name says which disk.
    if error.errno in _SHORTAGES and (error.filename is None or error.errno != errno.ENOSPC):
        return SetupError(*_SHORTAGES[error.errno])
    if error.filename is None or error.strerror is None:
        return None
    return SetupError(f"{error.filename}: {error.strerror}", WAYS_OUT.get(error.errno or 0, ""))


def has_working_folder() -> bool:
    """Whether the folder in which the process was started still exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True
