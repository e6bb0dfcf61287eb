"""What each command of the command line does; each prints its result and returns the exit status."""

import dataclasses
import json
import pathlib
import time

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

import satkeras
from satkeras.calibration.data import input_arrays
from satkeras.models.checks import opened
from satkeras.quantizers.int8 import narrowed
from satkeras.reports.summary import table
from tflite_export.errors import ExportError
from tflite_export.export import export_tflite
from tflite_export.file.graph import TYPES, stored_operators
from tflite_export.file.reader import read_model
from tflite_export.file.writer import model_of, packed
from tflite_export.lowering.lower import make_plan
from tflite_export.lowering.packing import pack_weights
from tflite_export.plan import Plan
from tflite_export.portability.tables import with_tables
from tflite_export.portable_files import portable_tflite
from tflite_export.portable_models import portable_model
from tflite_export.targets import TARGETS, Target
from tflite_export.verification.interpreter import open_interpreter, run
from tflite_export.verification.kernels import kernel_problems
from tflite_export.verification.verify import breaches
from tflite_export.verification.verify import verify as compare

_IMAGES = (".png", ".jpg", ".jpeg")


def quantize(arguments) -> int:
    """A float model, calibrated at the widths that are given, as a `.keras` file."""
    weight_bits = arguments.bits if arguments.weight_bits is None else _width(arguments.weight_bits)
    activation_bits = arguments.bits if arguments.activation_bits is None else arguments.activation_bits
    quantized = satkeras.quantize_model(
        arguments.model,
        arguments.scheme,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        input_range=tuple(arguments.input_range),
        calibration_data=read_data(arguments.data),
        rounding=arguments.rounding,
    )
    satkeras.save_model(quantized, arguments.path)
    return _print_summary(quantized, arguments.json)


def export(arguments) -> int:
    """A quantized model as a file."""
    model = satkeras.load_model(arguments.model)
    report = export_tflite(
        portable_model(model) if arguments.portable else model,
        arguments.path,
        verify_data=None if arguments.data is None else read_data(arguments.data),
        target=arguments.target,
        labels=arguments.labels,
        weight_storage=arguments.weight_storage,
        portable=arguments.portable,
    )
    print(report.to_json() if arguments.json else report)
    return 0


def verify(arguments) -> int:
    """A file beside the model that it was made of."""
    model, content = opened(satkeras.load_model(arguments.model)), pathlib.Path(arguments.file).read_bytes()
    stored = read_model(content)
    plan = _plan_of(stored, _target(arguments.target).adapt(make_plan(model)))
    images = input_arrays(read_data(arguments.data), model, "--data")
    problems = kernel_problems(model, plan, stored)
    found = compare(model, plan, content, images, arguments.kernels)
    problems += breaches(found)
    if arguments.json:
        print(json.dumps({"images": found.images, "differing": found.differing, "problems": problems}))
    else:
        print(found)
        for name, reason in problems:
            print(f"{name}: {reason}")
    return 1 if problems else 0


def _plan_of(stored: schema.ModelT, plan: Plan) -> Plan:
    """The plan that a file was written from: a model's as it is, with packed weights, or with functions as tables.

    Raises:
      ExportError: none of them has the file's operators.
    """
    found = [operator.builtin for operator in stored_operators(stored)]
    graph = stored.subgraphs[0]
    ends = (graph.tensors[indices[0]].type for indices in (graph.inputs, graph.outputs))
    input_type, output_type = (TYPES[one].lower() for one in ends)
    for candidate in (plan, pack_weights(plan), with_tables(plan)):
        planned = [
            operator.builtin
            for operator in stored_operators(read_model(packed(model_of(candidate, input_type, output_type, ""))))
        ]
        if planned == found:
            return candidate
    raise ExportError(
        "The file was not made of this model, for this --target",
        [("the model", f"would become {', '.join(planned)}"), ("the file", f"has {', '.join(found)}")],
    )


def inspect(arguments) -> int:
    """A file's operators, what they write, and how large their constants are."""
    content = pathlib.Path(arguments.file).read_bytes()
    model = read_model(content)
    used = {} if arguments.data is None else _integers_used(content, read_data(arguments.data))
    grids = {tensor.name.decode(): tensor.quantization for tensor in model.subgraphs[0].tensors}
    rows = []
    for operator in stored_operators(model):
        output = operator.outputs[0]
        constants = sum(x.data.nbytes for x in operator.inputs if x is not None and x.data is not None)
        rows.append(
            {
                "operator": operator.builtin,
                "version": operator.version,
                "output": output.name,
                "shape": list(output.shape),
                "type": output.type.lower(),
                **_grid(grids[output.name]),
                "bytes": constants,
                **used.get(output.name, {}),
            }
        )
    if arguments.json:
        print(json.dumps(rows))
    else:
        heads = list(dict.fromkeys(key for row in rows for key in row))
        print(table(heads, [[_shown(row.get(head)) for head in heads] for row in rows]))
        print(f"\n{len(content):,} bytes, {sum(row['bytes'] for row in rows):,} of them constants")
    return 0


def check(arguments) -> int:
    """Whether a target takes a file."""
    found = _target(arguments.target).check(read_model(pathlib.Path(arguments.file).read_bytes()))
    if arguments.json:
        print(json.dumps({"problems": found.problems, "notes": found.notes}))
    else:
        for name, reason in found.problems:
            print(f"{name}: {reason}")
        print("\n".join([*found.notes, "refused" if found.problems else f"{arguments.target} takes it"]))
    return 1 if found.problems else 0


def targets(arguments) -> int:
    """The table of targets."""
    rows = {row.name: {"runs_on": row.runs_on, "checked": row.limits} for row in TARGETS.values()}
    print(json.dumps(rows) if arguments.json else TARGETS)
    return 0


def summary(arguments) -> int:
    """The bits, grids and bytes of a quantized model's layers."""
    return _print_summary(satkeras.load_model(arguments.model), arguments.json)


def benchmark(arguments) -> int:
    """Milliseconds of one run in LiteRT, on noise."""
    content = pathlib.Path(arguments.file).read_bytes()
    interpreter = open_interpreter(content, threads=arguments.threads)
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], rng.integers(0, 127, detail["shape"]).astype(detail["dtype"]))
    interpreter.invoke()
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(1e3 * (time.perf_counter() - start))
    result = {"median_ms": float(np.median(times)), "fastest_ms": min(times), "runs": arguments.runs}
    print(json.dumps(result) if arguments.json else "\n".join(f"{key}: {value:.4g}" for key, value in result.items()))
    return 0


def portable(arguments) -> int:
    """An int8 file of any tool, with the same integers on every runtime; 1 if an operator stays that may part."""
    images = None if arguments.images is None else read_data(arguments.images)
    before = None if images is None else _answers(arguments.source, images)
    found = portable_tflite(arguments.source, arguments.path)
    changed = None if images is None else float(np.mean(before != _answers(arguments.path, images)))
    if arguments.json:
        print(json.dumps({"whole": found.whole, "report": str(found), "changed_answers": changed}))
    else:
        print(found)
        if changed is not None:
            print(f"answers that changed: {changed:.2%} of {len(images):,} images")
    return 0 if found.whole else 1


def read_data(path: str):
    """Arrays of a `.npy` or `.npz` file, or the images of a folder, in the order of their names.

    Returns:
      An array, or of an `.npz` file with several a dict of them.

    Raises:
      ValueError: neither, or images of several sizes.
    """
    found = pathlib.Path(path)
    if found.suffix == ".npy":
        return np.load(found)
    if found.suffix == ".npz":
        with np.load(found) as arrays:
            loaded = dict(arrays)
        return loaded if len(loaded) > 1 else next(iter(loaded.values()))
    files = sorted(file for file in found.glob("*") if file.suffix.lower() in _IMAGES) if found.is_dir() else []
    if not files:
        raise ValueError(f"--data must be a .npy or .npz file, or a folder with .png or .jpg files. Received: {path}")
    images = [tf.io.decode_image(file.read_bytes(), expand_animations=False).numpy() for file in files]
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise ValueError(f"The images of {path} must have one size, the model's input. Received: {shapes[:4]}")
    return np.stack(images).astype(np.float32)


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise ValueError(f"--target must be one of {', '.join(TARGETS)}. Received: {name}")
    return TARGETS[name]


def _width(given: str):
    return int(given) if given.isdecimal() else given


def _print_summary(model, as_json: bool) -> int:
    found = satkeras.summary(model)
    print(json.dumps(dataclasses.asdict(found)) if as_json else found)
    return 0


def _answers(path: str, images: np.ndarray) -> np.ndarray:
    content = pathlib.Path(path).read_bytes()
    return run(open_interpreter(content), images)[0].reshape(len(images), -1).argmax(-1)


def _shown(value) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _grid(quantization) -> dict:
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return {"scale": None, "zero_point": None}
    return {"scale": float(quantization.scale[0]), "zero_point": int(quantization.zeroPoint[0])}


def _of_type(dtype, values: np.ndarray) -> np.ndarray:
    """Inputs in a file's own type; integers that do not fit are an error."""
    return values.astype(dtype) if dtype == np.float32 else narrowed(values, dtype)


def _integers_used(content: bytes, images) -> dict[str, dict]:
    """The smallest and the largest integer of each tensor, and how many different ones it takes."""
    interpreter = open_interpreter(content, "reference", keeps_all=True)
    arrays = list(images.values()) if isinstance(images, dict) else [images]
    seen: dict[str, set[int]] = {}
    for example in zip(*arrays, strict=True):
        for detail, value in zip(interpreter.get_input_details(), example, strict=True):
            interpreter.set_tensor(detail["index"], _of_type(detail["dtype"], value[None]))
        interpreter.invoke()
        for detail in interpreter.get_tensor_details():
            if detail["dtype"] in (np.int8, np.uint8):
                values = np.unique(interpreter.get_tensor(detail["index"]))
                seen.setdefault(detail["name"], set()).update(values.tolist())
    return {
        name: {"lowest": min(values), "highest": max(values), "levels": len(values)} for name, values in seen.items()
    }
