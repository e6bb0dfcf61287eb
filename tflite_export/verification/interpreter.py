"""Running a file in LiteRT, every intermediate tensor visible."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.file.reader import read_model
from tflite_export.file.writer import packed
from tflite_export.plan import Plan

RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def open_interpreter(
    content: bytes, kernels: str = "xnnpack", *, threads: int | None = None, keeps_all: bool = False
) -> Interpreter:
    """An allocated LiteRT interpreter.

    Args:
      content: the bytes of a `.tflite` file.
      kernels: "xnnpack" (LiteRT's default), "builtin" (without delegates) or "reference".
      threads: how many; LiteRT's default by default.
      keeps_all: whether every tensor can be read after a run, which no delegate's inside can.
    """
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=RESOLVERS[kernels],
        num_threads=threads,
        experimental_preserve_all_tensors=keeps_all,
    )
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


def expose(plan: Plan, content: bytes) -> bytes:
    """The file with the result of every operator of its plan as an output, in the plan's order.

    An interpreter's `preserve_all_tensors` does not reach into what a delegate computes; outputs do.

    Args:
      plan: the plan of the file.
      content: the bytes of the file, equal to its plan (see `check_file`).
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    before = sum(graph.tensors[index].type != schema.TensorType.INT8 for index in graph.inputs)
    graph.outputs = [graph.operators[before + place].outputs[0] for place in plan.places]
    model.signatureDefs = []
    return packed(model)
