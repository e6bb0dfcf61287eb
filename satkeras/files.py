"""Files that appear whole or not at all, at paths that were checked before the work began."""

import os
import pathlib
import stat
import tempfile

PREFIX = ".satkeras-"  # of temporary files: short, because the target's name may be as long as names can be


def require_writable(path: str | os.PathLike) -> pathlib.Path:
    """The path of a file that can be written, found out by making and removing a file beside it.

    Raises:
      TypeError: `path` is not a path.
      ValueError: it is a folder's, its folder is missing, or nothing can be written there.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path must be a str or an os.PathLike. Received: path={path!r}")
    ends_in_separator = os.fspath(path).endswith(os.sep)
    path = pathlib.Path(path)
    if os.path.isdir(path) or ends_in_separator:
        raise ValueError(f"path must be a file's: add a file name. Received a folder: {path}")
    if not os.path.isdir(path.parent):
        raise ValueError(f"The folder of path must exist: create {path.parent} first. Received: {path}")
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f"path must be a file's. Received something that is neither file nor folder: {path}")
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise PermissionError(None, "the file is there and read-only")
        _require_possible_name(path)
        with tempfile.NamedTemporaryFile(dir=folder_of(path), prefix=PREFIX):
            pass
    except OSError as error:
        raise ValueError(f"path must be writable. Received: {path} ({error.strerror})") from error
    return path


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Writes beside the target, then renames, so that an interrupted write leaves the old file as it was."""
    with tempfile.NamedTemporaryFile(dir=folder_of(path), prefix=PREFIX, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            put_in_place(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def put_in_place(written: str | os.PathLike, path: pathlib.Path) -> None:
    """Renames a finished file to `path`; a symbolic link stays and leads to it, and an old file's mode is kept.

    Args:
      written: in `folder_of(path)`, or in a folder there.
      path: where the file goes.
    """
    target = os.path.realpath(path)
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else 0o666 & ~_umask()
    os.chmod(written, mode)
    os.replace(written, target)


def folder_of(path: pathlib.Path) -> str:
    """The folder of the file that `path` names, or that it leads to as a symbolic link."""
    return os.path.dirname(os.path.realpath(path))


def _require_possible_name(path: pathlib.Path) -> None:
    """Raises the OSError of a name that the file system does not take, such as one that is too long."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
