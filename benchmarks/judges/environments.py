"""Where the judges' environments are, and whether they are what the project asks for."""

import hashlib
import os
import pathlib
import sys

from benchmarks.judges.table import ALL, JUDGES, TOOLS

HERE = pathlib.Path(__file__).parent
FOLDER = HERE.parents[1] / ".judges"
ENVIRONMENTS = tuple(
    dict.fromkeys(judge.environment for judge in (*JUDGES.values(), *TOOLS.values()) if judge.environment)
)


class MissingJudgeError(RuntimeError):
    """The judge's environment has not been made."""


def requirements(environment: str) -> pathlib.Path:
    """The file of an environment's pinned packages."""
    return HERE / "requirements" / f"{environment}.txt"


def fingerprint(environment: str) -> str:
    """What an environment is made of, as one word: another word, and it must be made anew."""
    sources = [requirements(environment).read_bytes(), f"{sys.version_info[:2]}".encode()]
    if environment == "arm":
        sources.append((HERE / "arm.py").read_bytes())
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def stamp(environment: str) -> pathlib.Path:
    """The file that holds the fingerprint of an environment that was made, and tried."""
    return FOLDER / environment / "made_of"


def python(name: str) -> pathlib.Path:
    """The Python that runs a judge or tool."""
    environment = ALL[name].environment
    return FOLDER / environment / "bin/python" if environment else pathlib.Path(sys.executable)


def variables(name: str) -> dict[str, str]:
    """The environment variables that a judge's Python is given: what this Python was told is not for another."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**own, **ALL[name].variables}


def is_made(environment: str) -> bool:
    """Whether an environment is there and up to date."""
    path = stamp(environment)
    return path.exists() and path.read_text() == fingerprint(environment)


def available() -> tuple[str, ...]:
    """The judges that can be asked, in the table's order."""
    return tuple(name for name, judge in JUDGES.items() if judge.environment is None or is_made(judge.environment))


def missing() -> tuple[str, ...]:
    """The judges that cannot, because `make judges` has not made their environment, or not this version of it."""
    return tuple(name for name in JUDGES if name not in available())


def require(name: str) -> None:
    """Raises a `MissingJudgeError` if a judge or tool cannot be asked."""
    environment = ALL[name].environment
    if environment is not None and not is_made(environment):
        command = "make judges" if environment in ENVIRONMENTS else f"python -m benchmarks.judges.install {environment}"
        raise MissingJudgeError(
            f"The judge {name!r} ({ALL[name].title}) has no environment, or one of other versions: run `{command}`"
        )


def may_be_absent() -> tuple[str, ...]:
    """The environments that JUDGES_ABSENT excuses, a list with commas.

    Raises:
      ValueError: if one of them is none.
    """
    names = tuple(filter(None, os.environ.get("JUDGES_ABSENT", "").split(",")))
    if unknown := [name for name in names if name not in ENVIRONMENTS]:
        raise ValueError(f"JUDGES_ABSENT names some of {', '.join(ENVIRONMENTS)}. Received: {', '.join(unknown)}")
    return names
