"""What a judge is given and gives, when it must stop, and what is said when it cannot run a file."""

import numpy as np
import pytest

from benchmarks import judges
from benchmarks.judges import environments

IMAGES = np.arange(60, dtype=np.int8).reshape(5, 4, 3)


@pytest.fixture
def content(file):
    """Two inputs of other shapes, each reshaped."""
    file.add_tensor("rows", (1, 4, 3), 1)
    file.add_tensor("pairs", (2, 1), 1)
    file.add_tensor("flat", (12,), 1)
    file.add_tensor("line", (1, 2), 1)
    file.add_operator("RESHAPE", ["rows"], "flat", newShape=[12])
    file.add_operator("RESHAPE", ["pairs"], "line", newShape=[1, 2])
    return file.content(["rows", "pairs"], ["flat", "line"])


def test_images_lie_along_the_first_axis_of_inputs_and_outputs(content):
    pairs = IMAGES.reshape(-1)[:10].reshape(10, 1)
    flat, line = judges.run("default", content, [IMAGES, pairs])
    np.testing.assert_array_equal(flat, IMAGES.reshape(60))
    np.testing.assert_array_equal(line, pairs.reshape(5, 2))


def test_a_limit_of_time_stops_between_images(content):
    inputs = [IMAGES, IMAGES.reshape(-1)[:10].reshape(10, 1)]
    answers = judges.run_for(0, "default", content, inputs)
    assert answers.images == 1
    assert answers.seconds > 0
    np.testing.assert_array_equal(answers.outputs[0], IMAGES[0].reshape(12))
    assert judges.run_for(600, "default", content, inputs).images == 5


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([IMAGES], r"One array for each input of the file is required: \['rows', 'pairs'\]. Received: 1"),
        ([IMAGES.astype(np.int32), IMAGES[:, :2, :1]], "rows is int8 of shape .* Received: int32"),
        ([IMAGES, np.zeros((3, 1), np.int8)], r"pairs is int8 of shape \(2, 1\).* Received: int8 of shape \(3, 1\)"),
        ([IMAGES, np.zeros((8, 1), np.int8)], r"As many images for each input .* Received: \[5, 4\]"),
        ([IMAGES[:0], np.zeros((0, 1), np.int8)], r"at least one. Received: \[0, 0\]"),
    ],
)
def test_inputs_that_are_not_the_files_are_refused(content, inputs, message):
    with pytest.raises(ValueError, match=message):
        judges.run("default", content, inputs)


def test_a_file_of_floats_is_refused(file):
    file.add_tensor("image", (1, 2), None, tensor_type=0)
    file.add_tensor("same", (2, 1), None, tensor_type=0)
    file.add_operator("RESHAPE", ["image"], "same", newShape=[2, 1])
    with pytest.raises(ValueError, match="integers of 8, 16 or 32 bits.* Received: image of TensorType 0"):
        judges.run("default", file.content(["image"], ["same"]), [np.zeros((1, 2), np.float32)])


def test_a_file_that_a_judge_refuses_is_an_error_with_its_words(judge, file):
    for name, scale in (("one", 1), ("two", 2), ("both", 1)):
        file.add_tensor(name, (1, 4) if name == "both" else (1, 2), scale)
    file.add_operator("CONCATENATION", ["one", "two"], "both", 2, axis=1)
    content, image = file.content(["one", "two"], ["both"]), np.zeros((1, 2), np.int8)
    with pytest.raises(judges.JudgeError, match=f"judge '{judge}' .* must run the file. Received: (.|\n)*said:\n.+"):
        judges.run(judge, content, [image, image])


def test_a_runtime_that_aborts_is_an_error(file):
    file.add_tensor("logits", (1, 512), 1)
    file.add_tensor("shares", (1, 512), 1 / 256, -128)
    file.add_operator("SOFTMAX", ["logits"], "shares", 2, beta=1.0)
    content = file.content(["logits"], ["shares"])
    (shares,) = judges.run("default", content, [np.zeros((1, 512), np.int8)])
    assert set(shares.ravel()) <= {-128, -127}
    with pytest.raises(judges.JudgeError, match="Received: SIGABRT"):  # it cannot hold a sum of 512
        judges.run("reference", content, [np.zeros((1, 512), np.int8)])


def test_an_unknown_judge_is_refused_with_those_there_are(content):
    with pytest.raises(ValueError, match=r"one of \['default', .*'tosa'.*\]. Received: name='xnnpack'"):
        judges.run("xnnpack", content, [])


def test_a_judge_without_environment_is_missing(content, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    assert judges.available() == ("default", "builtin", "reference", "tensorflow", "tensorflow_reference")
    assert set(judges.missing()) == set(judges.JUDGES) - set(judges.available())
    with pytest.raises(judges.MissingJudgeError, match="'tflm' .* run `make judges`"):
        judges.run("tflm", content, [])
