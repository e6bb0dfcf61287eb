"""Runs a file on LiteRT, tflite-runtime or TensorFlow Lite Micro, in a process and an environment of its own.

    python benchmarks/other_runtime.py (litert|tflite-runtime|tflite-micro) model.tflite inputs.npz COUNT outputs.npz

Both archives hold an array for each input or output of the file, in its order, with the examples along the first axis;
COUNT is the number of outputs, which TensorFlow Lite Micro cannot tell. Nothing of this project is imported: LiteRT may
run on another kind of processor, the other two want an older NumPy and no TensorFlow beside them.
"""

import sys

import numpy as np

ARENA_BYTES = 1 << 28


def on_litert(content, examples, count):
    """Yields the outputs of each example."""
    from ai_edge_litert.interpreter import Interpreter

    return on_interpreter(Interpreter(model_content=content), examples, count)


def on_tflite_runtime(content, examples, count):
    """Yields the outputs of each example."""
    from tflite_runtime.interpreter import Interpreter  # pyright: ignore

    return on_interpreter(Interpreter(model_content=content), examples, count)


def on_interpreter(interpreter, examples, count):
    """Yields the outputs of each example."""
    interpreter.allocate_tensors()
    slots = [detail["index"] for detail in interpreter.get_input_details()]
    outputs = [detail["index"] for detail in interpreter.get_output_details()[:count]]
    for example in examples:
        for slot, value in zip(slots, example, strict=True):
            interpreter.set_tensor(slot, value)
        interpreter.invoke()
        yield [interpreter.get_tensor(index) for index in outputs]


def on_tflite_micro(content, examples, count):
    """Yields the outputs of each example."""
    from tflite_micro import runtime  # pyright: ignore

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ARENA_BYTES)
    for example in examples:
        for index, value in enumerate(example):
            interpreter.set_input(value, index)
        interpreter.invoke()
        yield [np.array(interpreter.get_output(index)) for index in range(count)]


def main(runtime, model, inputs, count, outputs):
    """Runs all the examples."""
    run = {"litert": on_litert, "tflite-runtime": on_tflite_runtime, "tflite-micro": on_tflite_micro}[runtime]
    with open(model, "rb") as file:
        content = file.read()
    with np.load(inputs) as archive:
        arrays = [archive[name] for name in archive.files]
    examples = ([values[at : at + 1] for values in arrays] for at in range(len(arrays[0])))
    columns = zip(*run(content, examples, int(count)), strict=True)
    np.savez(outputs, *(np.concatenate(column) for column in columns))


if __name__ == "__main__":
    main(*sys.argv[1:])
