"""Output files, whole or not at all, whatever their place is and however the process ends.

A file is written beside its place, as `.xbcompile-` and 16 random digits, and renamed. A process that is killed leaves that
file; it holds a lock on it (flock, which ends with the process), so that the next write into the folder can tell, and removes
it. Devices and pipes are written through, symbolic links followed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from xbcompile.errors import ProgramError

_PREFIX = ".xbcompile-"
_SCRATCH_PREFIX = "xbcompile-"
_STALE = (
    60  # seconds since the last change; assumed: there are file systems on which machines do not see each other's locks
)

_unfinished: set[str] = set()  # temporary files of this process


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that is there once all of it is written; on failure or interruption, what was there before stays.

    Mode, owner (where the process may give files away) and extended attributes of a file that is replaced are kept; of a symbolic
    link, the target is replaced or made. What is no regular file (a device, a pipe) is written through.

    Args:
        path: of the file.

    Raises:
        ProgramError: it cannot be written: see `check_file`.
    """
    name, before = _found(path)
    place = os.path.realpath(name)
    through = before is not None and not (stat.S_ISREG(before.st_mode) and _leads_to(place, before))
    try:
        with _written_through(name) if through else _replaced(place, before) as file:
            yield file
    except OSError as error:
        raise ProgramError(f"cannot write {name!r}: {error.strerror or error}") from None


def write_atomically(path: str | os.PathLike[str], data: bytes | bytearray) -> None:
    """Write a whole file as `atomic_file` does.

    Raises:
        ProgramError: it cannot be written: see `check_file`.
    """
    with atomic_file(path) as file:
        file.write(data)


def check_file(path: str | os.PathLike[str]) -> None:
    """Whether a file could be written now.

    Raises:
        ProgramError: the path names a folder, leads in a circle or holds a character that no path has; the file is
            write-protected; its folder does not exist or cannot be written.
    """
    name, before = _found(path)
    place = os.path.realpath(name)
    folder = os.path.dirname(place)
    if before is not None and not os.access(name, os.W_OK):
        raise ProgramError(f"cannot write {name!r}: it is write-protected; give another name, or change its mode")
    if before is not None and not stat.S_ISREG(before.st_mode):
        return
    if not os.path.isdir(folder):
        raise ProgramError(f"cannot write into folder {folder!r}: it does not exist or is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ProgramError(f"cannot write into folder {folder!r}: permission denied")


def regular_size(path: str | os.PathLike[str]) -> int | None:
    """Bytes of a regular file; None for a device or a pipe, or where there is none any more."""
    with suppress(OSError):
        found = os.stat(path)
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for temporary files, which is removed at the end of the block; after a kill, by the next block of the user."""
    import tempfile

    _remove_stale_folders(tempfile.gettempdir())
    with (
        tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX) as folder,
        open(os.path.join(folder, "lock"), "wb") as lock,
    ):
        _lock(lock.fileno())
        yield Path(folder)


def discard_unfinished() -> None:
    """Remove the temporary files of this process, which is about to end at once."""
    for temporary in tuple(_unfinished):
        with suppress(OSError):
            os.unlink(temporary)


def _found(path: str | os.PathLike[str]) -> tuple[str, os.stat_result | None]:
    """The path as text, and what is there; None where nothing is.

    Raises:
        ProgramError: see `check_file`.
    """
    name = os.fsdecode(path)
    if not name:
        raise ProgramError("output '' is no name of a file")
    try:
        before = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        before = None
    except OSError as error:
        raise ProgramError(f"cannot write {name!r}: {error.strerror}") from None
    except ValueError as error:  # a zero character, or one that no encoding of paths has
        raise ProgramError(f"cannot write {name!r}: {error}") from None
    if name.endswith(os.sep) or (before is not None and stat.S_ISDIR(before.st_mode)):
        raise ProgramError(f"output {name!r} is a folder; give the name of a file")
    return name, before


def _leads_to(place: str, before: os.stat_result) -> bool:
    """Whether a path without links is that of a file: what was opened and removed since has links in /proc alone."""
    try:
        return os.path.samestat(os.stat(place), before)
    except OSError:
        return False


@contextmanager
def _written_through(name: str) -> Iterator[IO[bytes]]:
    with open(os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_NOCTTY), "wb") as file:
        yield file


@contextmanager
def _replaced(place: str, before: os.stat_result | None) -> Iterator[IO[bytes]]:
    """A new file beside a place, renamed at the end."""
    check_file(place)
    folder = os.path.dirname(place)
    _remove_stale_files(folder)
    temporary = os.path.join(folder, _PREFIX + os.urandom(8).hex())
    _unfinished.add(temporary)
    try:
        mode = 0o666 if before is None else 0o600  # the former less what the umask and the folder take away
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            _lock(file.fileno())
            yield file
            if before is not None:
                _take_over(file.fileno(), place, before)
        os.replace(temporary, place)
    finally:
        with suppress(OSError):  # where it was renamed
            os.unlink(temporary)
        _unfinished.discard(temporary)


def _take_over(file: int, place: str, before: os.stat_result) -> None:
    """Give an open file the owner, the mode and the extended attributes (access control lists are such) of another."""
    own = os.fstat(file)
    if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
        with suppress(PermissionError):
            os.chown(file, before.st_uid, before.st_gid)
    if own.st_mode != before.st_mode:
        os.chmod(file, stat.S_IMODE(before.st_mode) & 0o777)
    for name in os.listxattr(place) if hasattr(os, "listxattr") else ():
        with suppress(OSError):  # those that the system keeps to itself
            os.setxattr(file, name, os.getxattr(place, name))


def _lock(file: int) -> None:
    """Hold an open file's lock until it is closed or the process ends; not where the file system has no locks."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _abandoned(path: str) -> Iterator[None]:
    """Inside, nobody writes the file.

    Raises:
        OSError: somebody holds its lock, or there is no such file.
    """
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _stale(folder: str, prefix: str) -> Iterator[os.DirEntry[str]]:
    """What this user's processes have left unchanged for a while in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                found = entry.stat(follow_symlinks=False)
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _STALE:
                    yield entry


@cache  # once in a process: folders may be large
def _remove_stale_files(folder: str) -> None:
    for entry in _stale(folder, _PREFIX):
        if entry.is_file(follow_symlinks=False):
            with suppress(OSError), _abandoned(entry.path):
                os.unlink(entry.path)


def _remove_stale_folders(folder: str) -> None:
    for entry in _stale(folder, _SCRATCH_PREFIX):
        if entry.is_dir(follow_symlinks=False):
            with suppress(OSError), _abandoned(os.path.join(entry.path, "lock")):
                shutil.rmtree(entry.path)
