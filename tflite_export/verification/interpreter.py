"""Running a file, every intermediate tensor visible."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tensorflow.lite.tools import flatbuffer_utils

from tflite_export.file.match import match_operators
from tflite_export.plan import Operator, Plan

KERNELS = {
    "default": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def open_interpreter(content: bytes, kernels: str = "default") -> Interpreter:
    """An allocated LiteRT interpreter.

    Args:
      content: the bytes of a `.tflite` file.
      kernels: "default" (XNNPACK), "builtin" (without delegates) or "reference".
    """
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=KERNELS[kernels])
    interpreter.allocate_tensors()
    return interpreter


def run(interpreter: Interpreter, *inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs for a batch, image by image, in the file's order of inputs and outputs."""
    slots = [detail["index"] for detail in interpreter.get_input_details()]
    outputs = [detail["index"] for detail in interpreter.get_output_details()]
    results: list[list[np.ndarray]] = []
    for example in zip(*inputs, strict=True):
        for slot, value in zip(slots, example, strict=True):
            interpreter.set_tensor(slot, value[None])
        interpreter.invoke()
        results.append([interpreter.get_tensor(index) for index in outputs])
    return [np.concatenate(column) for column in zip(*results, strict=True)]


def expose(plan: Plan, content: bytes) -> tuple[bytes, list[Operator]]:
    """The file with every planned operator's result as an output, and those operators in the same order.

    An interpreter's `preserve_all_tensors` does not reach into what a delegate computes; outputs do. RESHAPEs, which
    compute nothing, are left out.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    operators = match_operators(plan, model).operators
    model.subgraphs[0].outputs = np.array([found.outputs[0] for _, found in operators], np.int32)
    model.signatureDefs = []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), [planned for planned, _ in operators]
