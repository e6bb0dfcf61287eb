"""Paths are judged before the work, and files appear whole or not at all."""

import os
import pathlib
import stat

import pytest

from satkeras.files import require_writable, write_whole


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, TypeError, "path must be a str or an os.PathLike. Received: path=None"),
        (b"file", TypeError, "Received: path=b'file'"),
        ("", ValueError, "must be a file's: add a file name. Received a folder: ."),
        ("{folder}", ValueError, "must be a file's: add a file name. Received a folder: "),
        ("{folder}/new/", ValueError, "Received a folder: .*new"),
        ("{folder}/missing/file", ValueError, "folder of path must exist: create .*missing first. Received: .*file"),
        ("{folder}/old/file", ValueError, "folder of path must exist"),
        ("{folder}/{long}", ValueError, r"path must be writable. Received: .*File name too long"),
        ("/dev/null", ValueError, "neither file nor folder: /dev/null"),
    ],
)
def test_paths_that_are_refused(path, error, message, tmp_path):
    (tmp_path / "old").touch()
    if isinstance(path, str):
        path = path.format(folder=tmp_path, long="x" * 300)
    with pytest.raises(error, match=message):
        require_writable(path)
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]


def test_what_the_system_refuses(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"path must be writable. Received: .*file \(Permission denied\)"):
        require_writable(tmp_path / "file")


def test_a_read_only_file_stays(tmp_path, monkeypatch):
    (tmp_path / "old").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with pytest.raises(ValueError, match=r"path must be writable. Received: .*old \(the file is there and read-only\)"):
        require_writable(tmp_path / "old")


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_paths_that_are_taken(kind, tmp_path):
    (tmp_path / "old").touch()
    for name in ("old", "new"):
        assert require_writable(kind(tmp_path / name)) == tmp_path / name
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]


def test_a_write_replaces_the_file_with_the_rights_of_any_other(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    other.touch()
    for content in (b"one", b"two"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert path.stat().st_mode == other.stat().st_mode
    assert set(tmp_path.iterdir()) == {path, other}


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_an_old_files_mode_is_kept(mode, tmp_path):
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    write_whole(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing yet"])
def test_a_symbolic_link_stays_and_leads_to_the_file(there, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    if there:
        target.write_bytes(b"old")
    link.symlink_to(target)
    write_whole(require_writable(link), b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_names_as_long_as_the_system_takes(tmp_path):
    path = tmp_path / ("a" * 255)
    write_whole(require_writable(path), b"content")
    assert path.read_bytes() == b"content"
