"""A file that was damaged on its way: every bit flipped, every length it can be cut to.

Either the check says that the file is not the planned one, or nothing that a runtime reads has changed.
"""

import subprocess
import sys

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from tflite_export.errors import ExportError
from tflite_export.file.reader import check_file, read_model
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.verification.twin import build_twin

# In a process of its own: a damaged file may end the one that runs it.
RUN = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
given = np.load(sys.argv[1])
results = []
for place in range(len(given["files"])):
    interpreter = Interpreter(model_content=given["files"][place].tobytes())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given["codes"])
    interpreter.invoke()
    results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
np.save(sys.argv[2], results)
"""


@pytest.fixture(scope="module")
def small_plan():
    """Of a file with convolution, pool, dense layer and a signature, in some two thousand bytes."""
    stack = [layers.Conv2D(3, 3, activation="relu", name="c"), layers.GlobalAveragePooling2D(name="p")]
    model = tf_keras.Sequential([layers.Input((4, 4, 2), name="i"), *stack, layers.Dense(2, name="d")])
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 2)).astype(np.float32)
    return make_plan(satkeras.quantize_model(model, calibration_data=images))


@pytest.fixture(scope="module")
def small_file(small_plan):
    content = write_file(small_plan)
    assert len(content) <= 3000
    check_file(small_plan, content, "uint8", "int8")
    return content


def passes(plan, content: bytes) -> bool:
    """Whether the check finds nothing; any other error than its own fails the test."""
    try:
        check_file(plan, content, "uint8", "int8")
    except ExportError as error:
        assert error.problems and all(reason for _, reason in error.problems)
        return False
    return True


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def texts(content: bytes) -> list[str]:
    """All that may differ: names of tensors and of the graph, and the description."""
    model = read_model(content)
    return [model.description, model.subgraphs[0].name, *(tensor.name for tensor in model.subgraphs[0].tensors)]


def check_flips(plan, content: bytes, bits, folder) -> None:
    """Flips each bit alone; what the check lets pass must differ in one text and compute the twin's integers."""
    undetected = [changed for bit in bits if passes(plan, changed := flipped(content, bit))]
    assert 0 < len(undetected) < 0.2 * len(bits)
    for changed in undetected:
        assert sum(one != other for one, other in zip(texts(changed), texts(content), strict=True)) == 1
    codes = np.random.default_rng(1).integers(0, 256, (1, 4, 4, 2)).astype(np.uint8)
    np.savez(folder / "given.npz", files=np.stack([np.frombuffer(one, np.uint8) for one in undetected]), codes=codes)
    command = [sys.executable, "-c", RUN, str(folder / "given.npz"), str(folder / "found.npy")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    found = np.load(folder / "found.npy")
    assert len(found) == len(undetected)
    np.testing.assert_array_equal(found, np.broadcast_to(build_twin(plan)(codes), found.shape))


def test_some_flipped_bits(small_plan, small_file, tmp_path):
    bits = np.random.default_rng(0).choice(8 * len(small_file), 400, replace=False)
    check_flips(small_plan, small_file, bits.tolist(), tmp_path)


@pytest.mark.slow
def test_every_flipped_bit(small_plan, small_file, tmp_path):
    check_flips(small_plan, small_file, range(8 * len(small_file)), tmp_path)


def test_every_length(small_plan, small_file):
    assert not any(passes(small_plan, small_file[:length]) for length in range(len(small_file)))


def test_damage_is_told_from_another_plan(small_plan, small_file):
    with pytest.raises(ExportError, match="The file cannot be read:\n  file: damaged or cut short"):
        check_file(small_plan, small_file[: len(small_file) // 2], "uint8", "int8")
    padding = small_file.index(b"TFL3") + 4
    assert small_file[padding] == 0
    with pytest.raises(ExportError, match="The file is damaged:\n  file: its bytes are not those"):
        check_file(small_plan, flipped(small_file, 8 * padding), "uint8", "int8")
