"""Tests of the report as JSON and as text."""

import dataclasses
import json

from tflite_export.verification.report import Report, TensorComparison, Verification, table


def comparison(name: str, elements: int, file_differs: int, layer_differs: int | None) -> TensorComparison:
    known = {
        "name": name,
        "operator": "CONV_2D",
        "elements": elements,
        "file_differs": file_differs,
        "file_largest": file_differs,
        "layer_differs": layer_differs,
    }
    others = [field.name for field in dataclasses.fields(TensorComparison) if field.name not in known]
    return TensorComparison(**known, **dict.fromkeys(others))


EQUAL = Verification(100, "default", 0.99, 1.0, (comparison("a", 1_000_000, 0, 10), comparison("b", 10, 0, None)))
UNEQUAL = dataclasses.replace(EQUAL, tensors=(*EQUAL.tensors, comparison("c", 8, 2, 4), comparison("d", 8, 1, 0)))
REPORT = Report("net.tflite", 5000, 1234, {"CONV_2D": 3, "ADD": 1}, "uint8", "int8", EQUAL)


def test_json_round_trip():
    assert json.loads(REPORT.to_json()) == json.loads(json.dumps(dataclasses.asdict(REPORT)))
    loaded = json.loads(REPORT.to_json())
    verification = loaded.pop("verification")
    tensors = tuple(TensorComparison(**tensor) for tensor in verification.pop("tensors"))
    assert Report(**loaded, verification=Verification(**verification, tensors=tensors)) == REPORT


def test_json_without_verification():
    assert json.loads(dataclasses.replace(REPORT, verification=None).to_json())["verification"] is None


def test_no_divergence():
    assert (EQUAL.differing, EQUAL.first_divergence) == (0, None)
    assert EQUAL.worst_layer_share == 1e-5
    assert "differ between twin and file: 0 (none)" in str(EQUAL)


def test_divergence():
    assert (UNEQUAL.differing, UNEQUAL.first_divergence) == (3, "c")
    assert UNEQUAL.worst_layer_share == 0.5
    assert "differ between twin and file: 3 (first at c)" in str(UNEQUAL)


def test_no_tensors():
    empty = dataclasses.replace(EQUAL, tensors=())
    assert (empty.differing, empty.first_divergence, empty.worst_layer_share) == (0, None, 0.0)
    assert "100 images" in str(empty)


def test_the_text_says_what_was_made():
    text = str(REPORT)
    assert text.startswith("net.tflite: 5,000 bytes, 1,234 of them weights, uint8 in, int8 out\n")
    assert "operators: CONV_2D x3, ADD x1" in text
    assert "top-1 agreement, training model and file: 99.00%" in text
    assert "images" not in str(dataclasses.replace(REPORT, verification=None))


def test_the_table_is_aligned():
    lines = table(("name", "operator", "count"), [("a", "ADD", "1"), ("long_name", "CONV_2D", "1,000")]).split("\n")
    assert lines == [
        "name       operator  count",
        "-" * 26,
        "a          ADD           1",
        "long_name  CONV_2D   1,000",
    ]


def test_a_row_for_each_tensor():
    rows = [line.split() for line in str(EQUAL).split("\n") if line.startswith(("a ", "b "))]
    assert [row[:4] for row in rows] == [["a", "CONV_2D", "1,000,000", "0"], ["b", "CONV_2D", "10", "0"]]
    assert "-" in rows[1]
