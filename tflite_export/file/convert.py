"""From a plan to the bytes of a `.tflite` file."""

import warnings

import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from tflite_export.errors import ExportError
from tflite_export.file.check import check_file, uint8_zero_point
from tflite_export.file.emit import emit
from tflite_export.file.match import TENSOR_TYPES, constants_of, match_operators
from tflite_export.plan import ConstantOperator, LinearOperator, Plan

TYPES = {"uint8": tf.uint8, "int8": tf.int8, "float32": tf.float32}


def convert(plan: Plan, input_type: str = "uint8", output_type: str = "int8") -> bytes:
    """A full-integer TFLite file that holds exactly the plan's integers.

    The converter computes scales and biases in float32 and so can miss the plan's last bit; they are written into the
    file as planned, after making sure that the converter's are equal but for that. Then the file is read back and
    compared with the plan.

    Args:
      plan: what the file is to compute.
      input_type: "uint8", "int8" or "float32".
      output_type: the same.

    Raises:
      ExportError: the converter made something else than was planned.
    """
    module = emit(plan)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = TYPES[input_type]
    converter.inference_output_type = TYPES[output_type]
    try:
        with warnings.catch_warnings():
            # It asks for the statistics of the inputs; they are in the FakeQuants.
            warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
            content = converter.convert()
    except Exception as error:  # The converter's own exception class moves between TensorFlow versions.
        raise ExportError("TensorFlow's converter failed", [("converter", str(error))]) from error
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    _write_planned_numbers(plan, model)
    _restore_order(model)
    content = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    check_file(plan, content, input_type, output_type)
    return content


def _write_planned_numbers(plan: Plan, model) -> None:
    """Sets every scale, zero point and bias of the file to the plan's, all within float32 rounding of it already."""
    matches = match_operators(plan, model)
    for planned, operator in matches.operators:
        if isinstance(planned, ConstantOperator):
            constant = model.subgraphs[0].tensors[operator.inputs[1]]
            constant.quantization.scale = [float(planned.constant.scale)]
        if not isinstance(planned, LinearOperator):
            continue
        kernel, bias = constants_of(operator, model)
        kernel.quantization.scale = _as_stored(planned.weight_scale, kernel)
        if bias is not None:
            bias.quantization.scale = _as_stored(planned.bias_scale, bias)
            model.buffers[bias.buffer].data = list(planned.bias.tobytes())
    for planned, tensor in matches.tensors:
        tensor.quantization.scale = [float(planned.scale)]
        tensor.quantization.zeroPoint = [planned.zero_point]
    for planned, tensor in matches.boundaries:
        if TENSOR_TYPES[tensor.type] == "UINT8":
            tensor.quantization.scale = [float(planned.scale)]
            tensor.quantization.zeroPoint = [uint8_zero_point(planned)]


def _restore_order(model) -> None:
    """Puts the file's inputs and outputs in the order of the model's; the converter sorts them in its own way."""
    (signature,) = model.signatureDefs
    graph = model.subgraphs[0]
    for end in ("inputs", "outputs"):
        index_of = {entry.name.decode(): entry.tensorIndex for entry in getattr(signature, end)}
        setattr(graph, end, [index_of[f"{end[:-1]}_{i}"] for i in range(len(index_of))])


def _as_stored(scale, tensor) -> list[float]:
    """A per-tensor quantization has one scale for all channels."""
    return [float(value) for value in scale[: len(tensor.quantization.scale)]]
