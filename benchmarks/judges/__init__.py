"""Runtimes that nobody here wrote, each asked for every integer that it computes from a file.

    from benchmarks import judges

    judges.available()                                       # ("default", "builtin", "reference", "tflm", ...)
    outputs = judges.run("tflm", content, [images])          # the file's outputs, all images
    answers = judges.run_for(600, "tosa", content, [images]) # as many images as ten minutes allow: answers.images
    judges.ask("vela", content)                              # tools that say something else: TOOLS

A file tells the results of those operators that are its outputs: expose the others before. `make judges` makes what
the judges need, in `.judges/`; a judge that is absent is an error, `MissingJudgeError`. Tests ask
all of them with the fixture `judge`.
"""

from benchmarks.judges.environments import MissingJudgeError, available, may_be_absent, missing
from benchmarks.judges.running import Answers, JudgeError, ask, run, run_for
from benchmarks.judges.table import JUDGES, TOOLS, Judge

__all__ = [
    "JUDGES",
    "TOOLS",
    "Answers",
    "Judge",
    "JudgeError",
    "MissingJudgeError",
    "ask",
    "available",
    "may_be_absent",
    "missing",
    "run",
    "run_for",
]
