"""Makes the environments of all judges in `.judges/`, of pinned packages: `make judges`.

    python -m benchmarks.judges.install [ENVIRONMENT ...]       # the judges' and tools', or those named, such as aidge

What is there already, of the same packages, is left alone. An environment that cannot be had is said with the reason,
and the others are made; the exit status is 1 then, unless JUDGES_ABSENT names it: `make judges JUDGES_ABSENT=arm,tosa`.
"""

import pathlib
import shutil
import sys
import time
import venv
from collections.abc import Sequence

from benchmarks.judges import arm, environments
from benchmarks.judges.commands import INSTALL, PIP, CannotBeMadeError, call
from benchmarks.judges.running import RUNNERS
from benchmarks.judges.table import ALL


def make(environment: str) -> None:
    """Makes an environment anew and tries it.

    Raises:
      CannotBeMadeError: if a package cannot be had, or does not start.
    """
    folder = environments.FOLDER / environment
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if environment == "arm":
        arm.install(folder, environments.requirements(environment))
    else:
        _install(folder, environments.requirements(environment))
    for name, judge in ALL.items():
        if judge.environment == environment:
            imports = f"import {pathlib.Path(judge.runner).stem}"
            call([environments.python(name), "-c", imports], cwd=RUNNERS, env=environments.variables(name))
    environments.stamp(environment).write_text(environments.fingerprint(environment))


def _install(folder: pathlib.Path, requirements: pathlib.Path) -> None:
    """A virtual environment of this Python, filled by this Python's pip."""
    venv.create(folder, symlinks=True, with_pip=False)
    call([*PIP, "--python", folder / "bin/python", *INSTALL, "--requirement", requirements])


def main(wanted: Sequence[str] = environments.ENVIRONMENTS) -> int:
    """Makes what is missing; returns the exit status."""
    refused = []
    for environment in wanted:
        start = time.perf_counter()
        if environments.is_made(environment):
            print(f"{environment}: ready", flush=True)
            continue
        try:
            make(environment)
        except CannotBeMadeError as error:
            print(f"{environment}: CANNOT BE HAD. {error}", file=sys.stderr, flush=True)
            refused.append(environment)
        else:
            print(f"{environment}: ready, made in {time.perf_counter() - start:.0f} s", flush=True)
    required = [environment for environment in refused if environment not in environments.may_be_absent()]
    if required:
        print(
            f"Required: {', '.join(wanted)}. Not had: {', '.join(refused)}, for the reasons above. "
            f"To do without: make judges JUDGES_ABSENT={','.join(refused)}",
            file=sys.stderr,
        )
    return int(bool(required))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or environments.ENVIRONMENTS))
