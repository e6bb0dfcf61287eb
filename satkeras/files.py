"""Files that appear whole or not at all, at paths that were checked before the work began."""

import os
import pathlib
import tempfile


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
        with _beside(path):
            pass
    except OSError as error:
        raise ValueError(f"path must be writable. Received: {path} ({error.strerror})") from error
    return path


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Writes beside the target, then renames, so that an interrupted write leaves the old file as it was."""
    with _beside(path, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _beside(path: pathlib.Path, delete: bool = True):
    return tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=delete)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
