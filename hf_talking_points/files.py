"""Files that are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

# in a folder that is being written; transformers pushes no file whose name begins so
LOCK = "_lock"


@contextmanager
def whole_file(file: str | os.PathLike) -> Iterator[Path]:
    """A path to write to, which takes the place of `file` once all is written; a file that was there stays until then.

    Raises OSError, naming the file, where it cannot be written.
    """
    place = Path(os.path.realpath(file))
    half = place.with_name(f"{place.name}.half")
    try:
        yield half
        with open(half, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(half, place)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, reason, str(file)) from error
    finally:
        half.unlink(missing_ok=True)


@contextmanager
def only_writer(place: str | os.PathLike) -> Iterator[None]:
    """Keeps a file or an existing folder for this process as long as it writes there.

    Raises BlockingIOError, naming the other one, where another process does.
    """
    place = Path(os.path.realpath(place))
    if place.is_dir():
        file = place / LOCK
    else:
        file = place.with_name(f".{place.name}.lock")
    holder = ""
    with suppress(FileNotFoundError):
        holder = file.read_text()  # before the attempt, which empties it
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(
            f"{place} is being written by {holder or 'another process'}: wait for its end, or name another place"
        ) from None
    try:
        file.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()
