"""What the operating system refuses, in words and with a way out."""

from __future__ import annotations

import errno
import os

from coralx.errors import SetupError

WAYS_OUT = {
    errno.ENOSPC: "Make room on its file system.",
    errno.EDQUOT: "Make room within the quota.",
    errno.EFBIG: "Lift the limit on the size of files (ulimit -f), or the file system's own.",
    errno.EROFS: "Make its file system writable.",
    errno.EACCES: "Mend its permissions.",
    errno.EPERM: "Mend its permissions.",
}
"""Of errors that are about a file."""

WITHOUT_FOLDER = "Change to a folder that exists, and start again."

_PROCESSES = (
    "Lift the limit on processes (ulimit -u; in a container, its pids limit), end others, or set "
    "runtime.workers and runtime.threads_per_worker lower."
)
_MEMORY = "End other programs, lift the limit on memory (ulimit -v), or set runtime.workers lower."
_FILES = "Lift the limit on open files (ulimit -n), or set runtime.workers lower."

_OF_THE_SYSTEM = {
    errno.EAGAIN: ("the system allows no further process or thread", _PROCESSES),
    errno.ENOMEM: ("the machine has no memory left", _MEMORY),
    errno.EMFILE: ("this process may open no further file", _FILES),
    errno.ENFILE: ("the system can open no further file", _FILES),
    errno.ENOSPC: ("no space is left on a file system", "Make room on it."),
}
"""Of errors that no file of its own is about."""


def in_words(error: Exception) -> SetupError | None:
    """What the system refused, for an error of its; None for an error of another kind."""
    if isinstance(error, MemoryError):
        return SetupError(*_OF_THE_SYSTEM[errno.ENOMEM])
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return SetupError(*_OF_THE_SYSTEM[errno.EAGAIN])
    if not isinstance(error, OSError):
        return None
    if isinstance(error, FileNotFoundError) and not has_working_folder():
        return SetupError("the working folder no longer exists", WITHOUT_FOLDER)
    if error.errno in _OF_THE_SYSTEM and (error.filename is None or error.errno != errno.ENOSPC):
        return SetupError(*_OF_THE_SYSTEM[error.errno])
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
