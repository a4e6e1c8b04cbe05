"""The lab's folder: made for its owner alone, and written to without following a link.

The default folder lies in the current one, which may be a copy of somebody else's project: links,
directories and files may have been planted there. A new file therefore is made under a name of
its own and renamed; what stands in its place and isn't the lab's is set aside, never written to.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600
_OTHERS, _OTHERS_WRITE = 0o077, 0o022
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has none; O_EXCL makes no file through a link
_IGNORE_ALL = b"# Made by the Mail Lab: mail and keys don't belong in a project's history.\n*\n"


class FolderError(OSError):
    """A folder can't be used for mail; the text is one sentence for people."""


def prepare(path: str | os.PathLike[str]) -> Path:
    """The folder's absolute path; it is made where it is missing, with mode 0700.

    One that is made gets a `.gitignore`, so that git leaves it out of the project around it. One
    that was there keeps its mode. Raises `FolderError` where it can't be made, or is a link.
    """
    try:
        folder = Path(path).absolute()
        if folder.is_symlink():
            raise FolderError(
                f"The folder {folder} can't be used: it is a link; name the folder itself."
            )
        if folder.is_dir():
            return folder
        if folder.exists():
            raise FolderError(f"The folder {folder} can't be used: it is a file.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another lab was quicker
            folder.mkdir(mode=_PRIVATE_FOLDER)
            write(folder / ".gitignore", _IGNORE_ALL)
    except FileExistsError as error:
        raise unusable(path, OSError(0, "a part of its path is a file")) from error
    except (OSError, ValueError) as error:
        raise unusable(path, error) from error
    return folder


def unusable(path: str | os.PathLike[str], error: OSError | ValueError) -> FolderError:
    """Why that folder can't be used, in one sentence."""
    if isinstance(error, FolderError):
        return error
    why = (error.strerror if isinstance(error, OSError) else None) or error
    shown = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    if not shown.isprintable():
        shown = repr(shown)
    return FolderError(f"The folder {shown} can't be used: {why}.")


def write(path: Path, octets: bytes) -> None:
    """Put a file there that only its owner can read; what stood there is replaced, never opened.

    Raises `OSError`.
    """
    # It is made with O_CREAT, O_EXCL and O_NOFOLLOW, and mode 0600.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(octets)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def make(path: Path) -> None:
    """Put an empty file there that only its owner can read, if nothing has that name.

    Raises `OSError`.
    """
    if exists(path):  # on a disk that can only be read, too
        return
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _NO_LINKS, _PRIVATE_FILE))


def exists(path: Path) -> bool:
    """Whether anything has that name, be it a link that leads nowhere."""
    return os.path.lexists(path)


def oddity(path: Path) -> str:
    """What stands there where it is no file, in words; empty for a file or nothing."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISLNK(mode):
        return "it is a link"
    return "it is a directory" if stat.S_ISDIR(mode) else "it is no file"


def others_may(path: Path, *, write: bool = False) -> bool:
    """Whether other users of this machine can read or write that file, or just write it."""
    open_to = path.lstat().st_mode & (_OTHERS_WRITE if write else _OTHERS)
    if os.name != "posix" or not open_to:
        return False
    # Some disks know no modes, and give the same to every file.
    with tempfile.NamedTemporaryFile(dir=path.parent) as new:
        return not os.fstat(new.fileno()).st_mode & open_to


def hide(path: Path) -> None:
    """Take that file from other users of this machine, where the disk lets it be changed."""
    with contextlib.suppress(OSError):
        if os.name == "posix" and others_may(path):
            os.chmod(path, stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)


def set_aside(paths: Sequence[Path], why: str) -> list[str]:
    """Rename what stands there, all with the same number; returns the new names.

    They end in `.` + `why` + `-1`, or the first number that none of them has. Raises `OSError`.
    """
    number = 1
    while any(exists(_aside(path, why, number)) for path in paths):
        number += 1
    names = []
    for path in paths:
        if exists(path):
            path.rename(_aside(path, why, number))
            names.append(_aside(path, why, number).name)
    return names


def _aside(path: Path, why: str, number: int) -> Path:
    return path.with_name(f"{path.name}.{why}-{number}")
