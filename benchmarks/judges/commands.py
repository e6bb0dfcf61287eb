"""Commands that make an environment, and what is said when one fails."""

import pathlib
import subprocess
import sys
from collections.abc import Sequence

LAST_LINES = 5
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
INSTALL = ("install", "--quiet", "--no-deps", "--no-compile")


class CannotBeMadeError(RuntimeError):
    """The environment cannot be made; the message says why, and what would help."""


def call(command: Sequence[str | pathlib.Path], **options) -> str:
    """What a command prints on its standard output.

    Args:
      command: the program and its arguments.
      options: of subprocess.run: `cwd`, `env`.

    Raises:
      CannotBeMadeError: if it fails, with the last lines that it printed, or cannot be started.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", **options)
    except OSError as error:
        raise CannotBeMadeError(f"`{command[0]}` cannot be started: {error.strerror}") from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:]
        raise CannotBeMadeError("\n  ".join([f"`{' '.join(map(str, command))}` failed:", *said]))
    return done.stdout
