"""The twin, the training model and the interpreter side by side, on the same images."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from satkeras._compat import keras
from satkeras.models.graph import read_graph
from tflite_export.plan import Operator, Plan, Reshape, Tensor
from tflite_export.verification.interpreter import expose, open_interpreter, run
from tflite_export.verification.report import TensorComparison, Verification
from tflite_export.verification.twin import twin_tensors

BATCH = 50


def verify(
    model: keras.Model, plan: Plan, content: bytes, images: Sequence[np.ndarray], kernels: str = "default"
) -> Verification:
    """Compares what the twin, the training model and the file compute, tensor by tensor.

    Args:
      model: the quantized model that the plan was made from.
      plan: the plan of the file.
      content: the bytes of the file.
      images: for each input of the model, real values of shape (n, ...), within the model's input range.
      kernels: which of LiteRT's kernels to run: "default" (XNNPACK), "builtin" or "reference".

    Raises:
      ValueError: the images do not fit the model's inputs.
    """
    codes = [input_codes(x, values) for x, values in zip(plan.inputs, images, strict=True)]
    twin, file, training = twin_tensors(plan), _File(plan, content, kernels), _Training(model, plan)
    answer = _before_reshapes(plan, plan.outputs[0])
    counts = {operator: _Counts() for operator in file.operators}
    agreeing = {"model": 0, "twin": 0}
    for start in range(0, len(codes[0]), BATCH):
        batch = [values[start : start + BATCH] for values in codes]
        from_twin, from_file = twin(batch), file.tensors(batch)
        from_model, output = training.tensors(batch)
        for operator, count in counts.items():
            tensor = operator.output
            count.add_file(from_twin[tensor], from_file[tensor])
            if operator.layers:
                count.add_layer(from_twin[tensor], training.layer(operator, [from_twin[x] for x in operator.inputs]))
            if tensor in from_model:
                count.add_model(from_file[tensor], from_model[tensor])
        best = _top1(from_file[answer])
        agreeing["model"] += int(np.count_nonzero(best == _top1(output)))
        agreeing["twin"] += int(np.count_nonzero(best == _top1(from_twin[answer])))
    total = len(codes[0])
    tensors = tuple(
        TensorComparison(name=operator.output.name, operator=operator.builtin, **dataclasses.asdict(count))
        for operator, count in counts.items()
    )
    return Verification(total, kernels, agreeing["model"] / total, agreeing["twin"] / total, tensors)


def input_codes(x: Tensor, values) -> np.ndarray:
    """Real input values as uint8 codes, the nearest ones.

    Raises:
      ValueError: no numbers, wrong shape, no images, NaN, values more than half a step outside the input range, or
        values that are plainly in other units: fractions of a step.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"verify_data must hold integers or floats. Received: dtype {values.dtype}")
    if values.ndim == 0 or values.shape[1:] != x.shape or not len(values):
        shape = f"(n, {', '.join(map(str, x.shape))}), n > 0"
        raise ValueError(f"verify_data must have shape {shape}, for input {x.name}. Received: {values.shape}")
    low, high = ((end - x.zero_point) * x.step for end in (-128, 127))
    steps = values.astype(np.float64) / x.step
    codes = np.rint(steps) + x.zero_point + 128
    if not (codes.min() >= 0 and codes.max() <= 255):
        finite = "" if np.isfinite(steps).all() else ", NaN or infinity among them"
        raise ValueError(
            f"verify_data must lie within the model's input range {low:g} .. {high:g}. Received: values from "
            f"{values.min():g} to {values.max():g}{finite}"
        )
    if 0 < np.ptp(steps) <= 2 and np.abs(steps - np.rint(steps)).max() > 0.01:
        raise ValueError(
            f"verify_data must be in the units of the model's input range {low:g} .. {high:g}. Received: values from "
            f"{values.min():g} to {values.max():g}, a step or two of it"
        )
    return codes.astype(np.uint8)


@dataclasses.dataclass
class _Counts:
    """Running totals of one operator's comparison; see `TensorComparison`."""

    elements: int = 0
    file_differs: int = 0
    file_largest: int = 0
    layer_differs: int | None = None
    layer_largest: int | None = None
    model_differs: int | None = None

    def add_file(self, twin, file):
        difference = np.abs(twin.ravel() - file.ravel())
        self.elements += twin.size
        self.file_differs += int(np.count_nonzero(difference))
        self.file_largest = max(self.file_largest, int(difference.max(initial=0)))

    def add_layer(self, twin, layer):
        difference = np.abs(twin.ravel() - layer.ravel())
        self.layer_differs = (self.layer_differs or 0) + int(np.count_nonzero(difference))
        self.layer_largest = max(self.layer_largest or 0, int(difference.max(initial=0)))

    def add_model(self, file, model):
        self.model_differs = (self.model_differs or 0) + int(np.count_nonzero(file.ravel() != model.ravel()))


class _File:
    """The file's integers, computed by LiteRT."""

    def __init__(self, plan: Plan, content: bytes, kernels: str):
        self.plan = plan
        exposed, self.operators = expose(plan, content)
        self.interpreter = open_interpreter(exposed, kernels)

    def tensors(self, codes) -> dict[Tensor, np.ndarray]:
        dtypes = [detail["dtype"] for detail in self.interpreter.get_input_details()]
        inputs = [_as(dtype, x, values) for dtype, x, values in zip(dtypes, self.plan.inputs, codes, strict=True)]
        results = run(self.interpreter, *inputs)
        return {op.output: value.astype(np.int32) for op, value in zip(self.operators, results, strict=True)}


class _Training:
    """The training model's results, as the integers of the plan's tensors."""

    def __init__(self, model: keras.Model, plan: Plan):
        self.plan = plan
        self.nodes = {node.name: node for node in read_graph(model).nodes}
        self.compared = [tensor for tensor in plan.tensors if tensor.layer is not None]
        self.model = keras.Model(model.inputs, [self.nodes[tensor.layer].tensor for tensor in self.compared])
        # As `predict` computes it: TensorFlow rounds otherwise in a graph that it has optimized.
        self.predict = tf.function(keras.Model(model.inputs, model.outputs[0]), autograph=False, reduce_retracing=True)

    def tensors(self, codes) -> tuple[dict[Tensor, np.ndarray], np.ndarray]:
        """The tensors that come from the images on, and the model's first output."""
        inputs = [_as(np.float32, x, values) for x, values in zip(self.plan.inputs, codes, strict=True)]
        tensors = {
            tensor: _integers(tensor, value)
            for tensor, value in zip(self.compared, tf.nest.flatten(self.model(inputs, training=False)), strict=True)
        }
        return tensors, np.asarray(self.predict(inputs, training=False))

    def layer(self, operator: Operator, inputs: list[np.ndarray]) -> np.ndarray:
        """The result of an operator's layers, fed the twin's integers."""
        shapes = [parent.shape for parent in self.nodes[operator.layers[0]].inputs]
        real = [
            _real(x, values).reshape(-1, *shape)
            for x, values, shape in zip(operator.inputs, inputs, shapes, strict=True)
        ]
        value = real if len(real) > 1 else real[0]
        for name in operator.layers:
            layer = self.nodes[name].layer
            value = layer(value, training=False) if layer._expects_training_arg else layer(value)
        return _integers(operator.output, value)


def _as(dtype, x: Tensor, codes: np.ndarray) -> np.ndarray:
    """Unsigned input codes in the type that a file or a training model takes."""
    if dtype == np.uint8:
        return codes
    integers = codes.astype(np.int32) - 128
    return integers.astype(np.int8) if dtype == np.int8 else _real(x, integers)


def _real(x: Tensor, integers: np.ndarray) -> np.ndarray:
    return (np.float32(x.step) * (integers - x.zero_point)).astype(np.float32)


def _integers(tensor: Tensor, values) -> np.ndarray:
    levels = np.rint(np.asarray(values, np.float64) / tensor.step) + tensor.zero_point
    return np.clip(levels, -128, 127).astype(np.int32)


def _top1(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).argmax(-1)


def _before_reshapes(plan: Plan, tensor: Tensor) -> Tensor:
    writers: Mapping[Tensor, Operator] = {operator.output: operator for operator in plan.operators}
    while isinstance(writers.get(tensor), Reshape):
        (tensor,) = writers[tensor].inputs
    return tensor
