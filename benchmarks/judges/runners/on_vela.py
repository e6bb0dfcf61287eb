"""Vela: where it lets a file's operators run, and what it estimates.

    python on_vela.py FILE.tflite INPUTS.npz ANSWERS.json [--accelerator=ethos-u55-128]

ANSWERS.json gets `npu` and `cpu`, the tensors that operators write there after Vela has taken them apart, and the
columns of its summary as numbers, among them `total_original_weights`, `total_npu_encoded_weights` (bytes) and
`cycles_total`. INPUTS.npz is not read.
"""

import argparse
import csv
import json
import pathlib
import re
import subprocess
import sys
import tempfile


def compile_file(file, accelerator):
    """What Vela prints, and its summary."""
    with tempfile.TemporaryDirectory() as folder:
        vela = [pathlib.Path(sys.executable).parent / "vela", file, f"--accelerator-config={accelerator}"]
        command = [*vela, f"--output-dir={folder}", "--show-cpu-operations"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"Vela must compile the file. Received: status {done.returncode}\n{done.stdout}{done.stderr}")
        (summary,) = pathlib.Path(folder).glob("*_summary_*.csv")
        with summary.open() as table:
            (row,) = csv.DictReader(table)
    return done.stdout, row


def number(text):
    """A cell of the summary."""
    try:
        return float(text)
    except ValueError:
        return text


def main():
    """Runs what the command line says."""
    parser = argparse.ArgumentParser()
    for name in ("file", "inputs", "answers"):
        parser.add_argument(name)
    parser.add_argument("--accelerator", default="ethos-u55-128")
    arguments = parser.parse_args()
    printed, row = compile_file(arguments.file, arguments.accelerator)
    answers = {name: number(text) for name, text in row.items()}
    for unit in ("NPU", "CPU"):
        answers[unit.lower()] = re.findall(rf"^ +{unit}: \w+ = (.+) \(outputs ", printed, re.MULTILINE)
    pathlib.Path(arguments.answers).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
