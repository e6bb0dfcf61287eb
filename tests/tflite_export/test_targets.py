"""The table of targets: what a row decides, what is refused, and the page that is written from it."""

import pathlib

import numpy as np
import pytest

import tflite_export
from tflite_export import targets
from tflite_export.verification.interpreter import open_interpreter

PAGE = pathlib.Path(__file__).parents[2] / "docs/targets.md"


def test_the_page_is_the_tables():
    assert PAGE.read_text() == targets.page(), "python -m tflite_export.targets > docs/targets.md"


def test_printed_it_is_a_table_with_a_line_for_each():
    heads, _, *lines = str(tflite_export.TARGETS).splitlines()
    assert heads.split()[:3] == ["target", "runs", "on"]
    assert [line.split()[0] for line in lines] == list(tflite_export.TARGETS)


@pytest.mark.parametrize("row", tflite_export.TARGETS.values(), ids=lambda row: row.name)
def test_a_row_decides_the_types(row, residual, tmp_path):
    path = tmp_path / "net.tflite"
    report = tflite_export.export_tflite(residual, path, target=row.name, verify_data=False)
    interpreter = open_interpreter(path.read_bytes())
    assert interpreter.get_input_details()[0]["dtype"] == np.dtype(row.input_type[0])
    assert interpreter.get_output_details()[0]["dtype"] == np.dtype(row.output_type[0])
    assert (report.target, report.weight_storage) == (row.name, row.weight_storage[0])
    assert report.next_steps
    assert all(f"next: {step}" in str(report) for step in report.next_steps)
    assert any(str(path) in step for step in report.next_steps)
    assert path in set(tmp_path.iterdir())


def test_an_argument_wins_over_the_row(residual, tmp_path):
    path = tmp_path / "net.tflite"
    tflite_export.export_tflite(residual, path, output_type="float32", verify_data=False)
    assert open_interpreter(path.read_bytes()).get_output_details()[0]["dtype"] == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "edge"}, r"target must be one of \['android', .*'litert-packed'\]. Received: target='edge'"),
        ({"target": None}, "Received: target=None"),
        (
            {"target": "litert-packed", "weight_storage": "int8"},
            r"'litert-packed' takes weight_storage='packed'; 'int8' is for the targets \['android', .* leave it out",
        ),
        (
            {"compress": "lut"},
            r"'android' takes compress='none'; 'lut' is for the targets \['micro'\]. Received: compress='lut'; leave",
        ),
        ({"input_type": "int16"}, "input_type must be one of .* Received: input_type='int16'"),
    ],
)
def test_what_a_target_does_not_take_is_refused_and_nothing_is_written(residual, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tflite_export.export_tflite(residual, tmp_path / "net.tflite", **options)
    assert not list(tmp_path.iterdir())
