"""What the compiler's rules say of single operators, and where it cuts a graph."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import tflite_export
from tflite_export.devices import edgetpu
from tflite_export.file.graph import StoredOperator, StoredTensor


def tensor(shape=(1, 4, 4, 8), type="INT8", values=None, name="x"):
    data = (
        None if values is None else np.asarray(values, np.int32 if type == "INT32" else np.int8).view(np.uint8).ravel()
    )
    return StoredTensor(name, shape, type, data)


def operator(builtin, version=1, inputs=None, output=None, **options):
    return StoredOperator(
        builtin,
        version,
        (tensor(),) if inputs is None else tuple(inputs),
        (output or tensor(name="y"),),
        SimpleNamespace(fusedActivationFunction=0, **options),
    )


def kernel(**options):
    return {"dilationHFactor": 1, "dilationWFactor": 1, **options}


WEIGHTS = [tensor((8, 1, 1, 8), values=np.ones(64)), tensor((8,), "INT32", np.ones(8))]
AXES = [tensor((2,), "INT32", [1, 2])]


@pytest.mark.parametrize(
    "taken",
    [
        operator("CONV_2D", 3, [tensor(), *WEIGHTS], **kernel()),
        operator("ADD", 2, [tensor(), tensor((), values=[1])]),
        operator("MEAN", 2, [tensor(), *AXES]),
        operator("MEAN", 2, [tensor(), tensor((1,), "INT32", [-1])]),
        operator("SOFTMAX", 2, [tensor((1, 1000))], tensor((1, 1000))),
        operator("FULLY_CONNECTED", 4, [tensor((1, 8)), *WEIGHTS], tensor((1, 8)), weightsFormat=0),
        operator("RESIZE_BILINEAR", 3, output=tensor((1, 8, 8, 8))),
        operator("QUANTIZE", 1, [tensor(type="UINT8")]),
        operator("CONCATENATION", 2, [tensor(), tensor(values=np.zeros(128))]),
    ],
    ids=lambda one: one.builtin,
)
def test_what_the_tpu_runs(taken):
    assert edgetpu.unsupported(taken) == ""


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (operator("HARD_SWISH"), "Operation not supported"),
        (operator("CONV_2D", 5, [tensor(), *WEIGHTS], **kernel()), "Operation version not supported: 5, at most 3"),
        (operator("ADD", 2, [tensor(type="FLOAT32")]), "unsupported data type: x is FLOAT32"),
        (operator("ADD", 2, [tensor((2, 4, 4, 8))]), r"three innermost .* x is \(2, 4, 4, 8\)"),
        (operator("ADD", 2, [tensor((1, -1, 4, 8))]), r"fixed size .* x is \(1, -1, 4, 8\)"),
        (operator("CONV_2D", 3, [tensor(), tensor(), WEIGHTS[1]], **kernel()), "must be constants"),
        (operator("CONV_2D", 3, [tensor(), *WEIGHTS], **kernel(dilationWFactor=2)), "One dilation .* 1, 2"),
        (
            operator("FULLY_CONNECTED", 4, [tensor((1, 3, 8)), *WEIGHTS], tensor((1, 3, 8)), weightsFormat=0),
            "output of one dimension",
        ),
        (operator("MEAN", 2, [tensor((1, 4, 4, 6)), tensor((1,), "INT32", [3])]), "multiple of 4 channels .* 6"),
        (operator("SOFTMAX", 2, [tensor((1, 4, 4, 8))]), "input of one dimension"),
        (operator("SOFTMAX", 2, [tensor((1, 16_001))]), "at most 16000 elements"),
        (operator("RESIZE_BILINEAR", 3, output=tensor((1, 16, 16, 8))), "enlarging by more than 2"),
        (operator("CONCATENATION", 2, [tensor(), tensor(values=np.ones(128))]), "all zeros"),
        (operator("PAD", 2, [tensor(), tensor((4, 2), "INT32", [[1, 0], [0, 0], [0, 0], [0, 0]])]), "batch"),
        (operator("PRELU", 1, [tensor(), tensor((4, 4, 8), values=np.ones(128))]), "One slope a channel"),
        (
            operator(
                "STRIDED_SLICE",
                2,
                [tensor(), *AXES, *AXES, tensor((2,), "INT32", [1, 2])],
                ellipsisMask=0,
                newAxisMask=0,
            ),
            "Strides of 1",
        ),
    ],
    ids=lambda one: one.builtin if isinstance(one, StoredOperator) else "",
)
def test_what_it_leaves_to_the_cpu(refused, reason):
    (found,) = edgetpu.placements([refused])
    assert found.device == "CPU"
    assert re.search(reason, found.reason)


def test_max_pool_with_a_fused_activation():
    pool = operator("MAX_POOL_2D", 2)
    assert edgetpu.unsupported(pool) == ""
    pool.options.fusedActivationFunction = 1
    assert edgetpu.unsupported(pool) == "A fused activation is not supported"


def test_all_that_depends_on_the_first_refused_operator_stays_on_the_cpu():
    image, a, b, c, d, e = (tensor(name=name) for name in "i a b c d e".split())
    floats = tensor(name="f", type="FLOAT32")
    graph = [
        operator("CAST", 1, [image], floats),  # before the TPU's part
        operator("QUANTIZE", 1, [floats], a),
        operator("ADD", 2, [a], b),
        operator("HARD_SWISH", 1, [b], c),
        operator("ADD", 2, [c, b], d),
        operator("ADD", 2, [b], e),  # beside it
    ]
    found = edgetpu.placements(graph)
    assert [one.device for one in found] == ["CPU", "CPU", "TPU", "CPU", "CPU", "TPU"]
    assert "More than one subgraph is not supported" in found[4].reason


def test_what_stops_the_compiler_is_no_file(monkeypatch, residual, tmp_path):
    monkeypatch.setitem(edgetpu.KNOWN_VERSIONS, "CONV_2D", 2)
    with pytest.raises(tflite_export.ExportError, match="target='coral' cannot take the file") as error:
        tflite_export.export_tflite(residual, tmp_path / "net.tflite", target="coral", verify_data=False)
    assert len(error.value.problems) == 3
    assert all("CONV_2D version 3 is newer than version 2" in reason for _, reason in error.value.problems)
    assert not list(tmp_path.iterdir())


def test_the_report_names_what_stays_on_the_cpu(trained, tmp_path):
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="stem")(image)
    x = layers.LeakyReLU(name="leaky")(x)
    model = trained(tf_keras.Model(image, layers.Dense(3, name="head")(layers.Flatten(name="flat")(x))))
    report = tflite_export.export_tflite(model, tmp_path / "net.tflite", target="coral")
    said = [note for note in report.target_notes if note.startswith("on the CPU")]
    assert "LEAKY_RELU): Operation not supported" in said[0]
    assert "head" in str(report)
    assert report.next_steps == (f"edgetpu_compiler {tmp_path / 'net.tflite'}",)


def test_a_residual_network_runs_on_the_tpu_whole(residual, tmp_path):
    report = tflite_export.export_tflite(residual, tmp_path / "net.tflite", target="coral", verify_data=False)
    (note,) = report.target_notes
    count = sum(report.operators.values())
    assert f"{count} of {count} operators run on the Edge TPU" in note


def test_parameters_beyond_the_sram_are_said():
    weights = tensor((1, 8_000_000), values=np.ones(8_000_000))
    assert edgetpu.parameter_bytes([operator("ADD", 2, [tensor(), weights])] * 2) == 8_000_000
    (_, note) = edgetpu._notes([], 8_000_000)
    assert "8,000,000 bytes" in note
