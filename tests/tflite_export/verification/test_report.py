"""Tests of the report as JSON and as text."""

import dataclasses
import json

import pytest

from satkeras.reports.summary import table
from tflite_export.verification.report import FamilyResult, OperatorSummary, Report, TensorComparison, Verification


def comparison(name: str, elements: int, file_differs: int, layer_differs: int | None) -> TensorComparison:
    return TensorComparison(
        name=name,
        operator="CONV_2D",
        elements=elements,
        file_differs=file_differs,
        file_largest=file_differs,
        layer_differs=layer_differs,
        layer_farthest=0.5,
        layer_bound=1e-3,
        layer_beyond=0,
        model_differs=None,
    )


EQUAL = Verification(
    100,
    "xnnpack",
    0.99,
    1.0,
    "largest output",
    (comparison("a", 1_000_000, 0, 10), comparison("b", 10, 0, None)),
    model_accuracy=0.75,
    families=(FamilyResult("xnnpack", 0.99, 0.74), FamilyResult("tflm", 0.98, None)),
)
UNEQUAL = dataclasses.replace(EQUAL, tensors=(*EQUAL.tensors, comparison("c", 8, 2, 4), comparison("d", 8, 1, 0)))
SUMMARIES = (
    OperatorSummary("image/int8", "QUANTIZE", 1, "builtin", 0),
    OperatorSummary("a", "CONV_2D", 3, "XNNPACK", 1200, 1e-5),
    OperatorSummary("b", "ADD", 2, "XNNPACK", 0),
)
REPORT = Report(
    path="net.tflite",
    file_bytes=5000,
    weight_bytes=1234,
    operators={"CONV_2D": 3, "ADD": 1},
    input_type="uint8",
    output_type="int8",
    weight_storage="int8",
    min_runtime="1.14.0",
    operator_summaries=SUMMARIES,
    warnings=("beware",),
    verification=EQUAL,
)


def test_json_round_trip():
    loaded = json.loads(REPORT.to_json())
    assert loaded == json.loads(json.dumps(dataclasses.asdict(REPORT)))
    verification = loaded.pop("verification")
    tensors = tuple(TensorComparison(**tensor) for tensor in verification.pop("tensors"))
    families = tuple(FamilyResult(**family) for family in verification.pop("families"))
    summaries = tuple(OperatorSummary(**summary) for summary in loaded.pop("operator_summaries"))
    lines = {name: tuple(loaded.pop(name)) for name in ("warnings", "target_notes", "next_steps")}
    rebuilt = Verification(**verification, tensors=tensors, families=families)
    assert Report(**loaded, **lines, operator_summaries=summaries, verification=rebuilt) == REPORT


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
    first = "net.tflite: 5,000 bytes, 1,234 of them weights (int8), uint8 in, int8 out, TFLite 1.14.0 or newer\n"
    assert text.startswith(first)
    assert "\noperators: CONV_2D x3, ADD x1\n" in text
    assert "\noutside XNNPACK, in builtin kernels: QUANTIZE x1\n" in text
    assert "\nnote: beware\n" in text
    assert "\n100 images, LiteRT's xnnpack kernels\n" in text
    assert "\nsame answers (largest output), training model and file: 99.00%\n" in text
    assert "\naccuracy, training model: 75.00%\n" in text
    assert "\nxnnpack kernels: same answers 99.00%, accuracy 74.00%\ntflm kernels: same answers 98.00%\n" in text
    assert "images" not in str(dataclasses.replace(REPORT, verification=None))


def test_node_data_are_shares_of_the_operators(tmp_path):
    """Model Explorer finds nodes by the file's tensor names; an operator that was not compared has no colour."""
    REPORT.save_node_data(tmp_path / "nodes.json")
    written = json.loads((tmp_path / "nodes.json").read_text())
    assert written["main"]["results"] == {"a": {"value": pytest.approx(1e-3)}}
    with pytest.raises(ValueError, match="Node data need a verification"):
        dataclasses.replace(REPORT, verification=None).save_node_data(tmp_path / "none.json")
    assert [path.name for path in tmp_path.iterdir()] == ["nodes.json"]


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
