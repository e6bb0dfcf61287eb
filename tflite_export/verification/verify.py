"""The twin, the training model and the interpreter side by side, on the same images."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from satkeras._compat import keras
from satkeras.models.bias_rounding import with_rounded_bias
from satkeras.models.chosen_levels import ChosenLevels
from satkeras.models.graph import read_graph
from satkeras.models.insertion import quantizes_tensor
from satkeras.quantizers.int8 import narrowed
from tflite_export.plan import Operator, Plan, Tensor
from tflite_export.verification.answers import Answers
from tflite_export.verification.interpreter import expose, open_interpreter, run
from tflite_export.verification.report import FamilyResult, TensorComparison, Verification
from tflite_export.verification.twin import TRACED_FROM, twin_tensors

BATCH = 50


def verify(
    model: keras.Model,
    plan: Plan,
    content: bytes,
    images: Sequence[np.ndarray],
    kernels: str = "xnnpack",
    labels: np.ndarray | None = None,
    families: Sequence[str] = (),
) -> Verification:
    """Compares what the twin, the training model and the file compute, tensor by tensor.

    Args:
      model: the quantized model of the plan.
      plan: the plan of the file.
      content: the bytes of the file, equal to its plan.
      images: for each input of the model, real values of shape (n, ...), within the model's input range.
      kernels: whose kernels run the file and whose arithmetic the twin follows: "xnnpack" (LiteRT's default) or
        "reference" (LiteRT's reference kernels).
      labels: the right answers, (n,), for the accuracy.
      families: further families of kernels whose answers are reported, from their twins.

    Raises:
      ValueError: the images do not fit the model's inputs.
    """
    codes = [input_codes(x, values) for x, values in zip(plan.inputs, images, strict=True)]
    count = len(codes[0])
    twins = {family: twin_tensors(plan, family, count) for family in dict.fromkeys((kernels, *families))}
    # A float32 layer rounds once, as XNNPACK does.
    once = twins.get("xnnpack") or twin_tensors(plan, "xnnpack", count)
    interpreter = open_interpreter(expose(plan, content), kernels)
    training = _Training(model, plan, count)
    counts = {operator: _Counts(bound=training.bound(operator)) for operator in plan.operators}
    answers = Answers(plan.outputs[0], labels)
    for start in range(0, count, BATCH):
        batch = [values[start : start + BATCH] for values in codes]
        from_twins = {family: twin(batch) for family, twin in twins.items()}
        from_once = from_twins.get("xnnpack") or once(batch)
        from_file = _run(interpreter, plan, batch)
        from_model, output = training.tensors(batch)
        for operator, counted in counts.items():
            tensor = operator.output
            counted.add_file(from_twins[kernels][tensor], from_file[tensor])
            if operator.layers:
                sources = operator.sources or operator.inputs
                counted.add_layer(from_once[tensor], training.layer(operator, [from_once[x] for x in sources]), tensor)
            if tensor in from_model:
                counted.add_model(from_file[tensor], from_model[tensor])
        answers.add("model", output, real=True)
        answers.add("file", from_file[plan.outputs[0]])
        for family, values in from_twins.items():
            answers.add(family, values[plan.outputs[0]])
    return Verification(
        images=count,
        kernels=kernels,
        top1_agreement=answers.agreement("model", "file"),
        twin_top1_agreement=answers.agreement(kernels, "file"),
        answer=answers.kind,
        tensors=tuple(counted.comparison(operator) for operator, counted in counts.items()),
        model_accuracy=answers.accuracy("model"),
        families=tuple(
            FamilyResult(family, answers.agreement(family, "model"), answers.accuracy(family)) for family in twins
        ),
    )


def breaches(verification: Verification) -> list[tuple[str, str]]:
    """`(tensor, reason)` wherever the file and its twin differ, or a training layer and the twin beyond rounding."""
    found = []
    for tensor in verification.tensors:
        if tensor.file_differs:
            found.append(
                (
                    tensor.name,
                    f"{tensor.file_differs:,} of {tensor.elements:,} integers differ between the file, run by "
                    f"{verification.kernels} kernels, and its integer twin, by up to {tensor.file_largest}",
                )
            )
        if tensor.layer_beyond:
            found.append(
                (
                    tensor.name,
                    f"{tensor.layer_beyond:,} of {tensor.elements:,} integers are not the training model's: its layer, "
                    f"fed the same input, is up to {tensor.layer_farthest:.3g} levels away, and rounding explains "
                    f"{0.5 + tensor.layer_bound:.3g}",
                )
            )
    return found


def random_images(plan: Plan) -> list[np.ndarray]:
    """A few images of noise for each input, over its whole range, in real values."""
    size = max(int(np.prod(x.shape)) for x in plan.inputs)
    count = int(np.clip(200_000 // size, 1, 8))
    rng = np.random.default_rng(0)
    return [_taken(x, rng.integers(-128, 128, (count, *x.shape))) for x in plan.inputs]


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
    low, high = ((end - x.zero_point) * x.step + x.offset for end in (-128, 127))
    steps = (values.astype(np.float64) - x.offset) / x.step
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
    return narrowed(codes, np.uint8)


@dataclasses.dataclass
class _Counts:
    """Running totals of one operator's comparison; see `TensorComparison`."""

    bound: float
    elements: int = 0
    file_differs: int = 0
    file_largest: int = 0
    layer_differs: int | None = None
    layer_farthest: float = 0.0
    layer_beyond: int = 0
    model_differs: int | None = None

    def add_file(self, twin, file):
        difference = np.abs(twin.ravel() - file.ravel())
        self.elements += twin.size
        self.file_differs += int(np.count_nonzero(difference))
        self.file_largest = max(self.file_largest, int(difference.max(initial=0)))

    def add_layer(self, twin, layer: np.ndarray, tensor: Tensor):
        """`layer` is the float result, in levels from int8's zero."""
        clipped = np.clip(layer.ravel(), tensor.lowest, tensor.highest)
        distance = np.abs(clipped - twin.ravel())
        differs = np.floor(clipped + 0.5) != twin.ravel()  # as fake quantization rounds a tie
        self.layer_differs = (self.layer_differs or 0) + int(np.count_nonzero(differs))
        self.layer_farthest = max(self.layer_farthest, float(distance.max(initial=0)))
        self.layer_beyond += int(np.count_nonzero(~(distance <= 0.5 + self.bound)))

    def add_model(self, file, model):
        self.model_differs = (self.model_differs or 0) + int(np.count_nonzero(file.ravel() != model.ravel()))

    def comparison(self, operator: Operator) -> TensorComparison:
        return TensorComparison(
            name=operator.output.name,
            operator=operator.builtin,
            elements=self.elements,
            file_differs=self.file_differs,
            file_largest=self.file_largest,
            layer_differs=self.layer_differs,
            layer_farthest=self.layer_farthest,
            layer_bound=self.bound,
            layer_beyond=self.layer_beyond,
            model_differs=self.model_differs,
        )


def _run(interpreter, plan: Plan, codes) -> dict[Tensor, np.ndarray]:
    """The integers of all tensors of a file, computed by LiteRT."""
    dtypes = [detail["dtype"] for detail in interpreter.get_input_details()]
    inputs = [_as(dtype, x, values) for dtype, x, values in zip(dtypes, plan.inputs, codes, strict=True)]
    return {
        tensor: narrowed(value, np.int32) for tensor, value in zip(plan.tensors, run(interpreter, *inputs), strict=True)
    }


class _Training:
    """The training model's results, as the integers of the plan's tensors."""

    def __init__(self, model: keras.Model, plan: Plan, images: int):
        self.plan = plan
        self.nodes = {node.name: node for node in read_graph(model).nodes}
        self.writers = {operator.output: operator for operator in plan.operators}
        self.compared = [tensor for tensor in plan.tensors if tensor.layer is not None]
        results = [self.nodes[tensor.layer].tensor for tensor in self.compared]
        self.model = keras.Model(model.inputs, [*results, model.outputs[0]])
        # As `predict` computes it: TensorFlow rounds otherwise in a graph that it has optimized. To trace one takes
        # longer than a few images do.
        output = keras.Model(model.inputs, model.outputs[0])
        traced = tf.function(output, autograph=False, reduce_retracing=True)
        self.predict = traced if images > TRACED_FROM else None

    def tensors(self, codes) -> tuple[dict[Tensor, np.ndarray], np.ndarray]:
        """The tensors that come from the images on, and the model's first output."""
        inputs = [_taken(x, values - 128.0) for x, values in zip(self.plan.inputs, codes, strict=True)]
        *results, output = tf.nest.flatten(self.model(inputs, training=False))
        tensors = {tensor: _integers(tensor, value) for tensor, value in zip(self.compared, results, strict=True)}
        if self.predict is not None:
            output = self.predict(inputs, training=False)
        return tensors, np.asarray(output)

    def bound(self, operator: Operator) -> float:
        """How far beyond half a level an operator's layers may be from it, in levels; any distance in 16 bits."""
        layers = [self.nodes[name].layer for name in operator.layers]
        if any(layer.compute_dtype != "float32" for layer in layers):
            return np.inf
        return max(one.slack() for one in self._computing(operator))

    def _computing(self, operator: Operator) -> Iterator[Operator]:
        """The operators that together compute one's layers: those between what these read and itself."""
        yield operator
        sources = operator.sources or operator.inputs
        between = [self.writers[x] for x in operator.inputs if x not in sources]
        for writer in between:
            yield from self._computing(dataclasses.replace(writer, sources=sources))

    def layer(self, operator: Operator, inputs: list[np.ndarray]) -> np.ndarray:
        """The float result of an operator's layers, fed the twin's integers, in levels from int8's zero.

        A last layer that only rounds to evenly spaced levels is left out, and the rounding of one that says what it
        rounds; so is one before chosen levels that keep every integer.
        """
        shapes = [parent.shape for parent in self.nodes[operator.layers[0]].inputs]
        sources = operator.sources or operator.inputs
        real = [_real(x, values).reshape(-1, *shape) for x, values, shape in zip(sources, inputs, shapes, strict=True)]
        value = real if len(real) > 1 else real[0]
        layers = [self.nodes[name].layer for name in operator.layers]
        rounding = len(layers) - 1 - (isinstance(layers[-1], ChosenLevels) and layers[-1].keeps_integers)
        for place, layer in enumerate(layers):
            if place == rounding and _rounds_evenly(layer):
                value = with_rounded_bias(value, layer)
            elif place >= rounding and hasattr(layer, "unrounded"):
                value = layer.unrounded(tf.convert_to_tensor(value))
            else:
                value = layer(value, training=False) if layer._expects_training_arg else layer(value)
        return np.asarray(value, np.float64) / operator.output.step + operator.output.zero_point


def _rounds_evenly(layer) -> bool:
    return quantizes_tensor(layer) and not layer.quantize_config.quantizer.reads_8_bits


def _as(dtype, x: Tensor, codes: np.ndarray) -> np.ndarray:
    """Unsigned input codes in the type that a file or a training model reads."""
    if dtype == np.uint8:
        return codes
    integers = codes - 128.0
    return narrowed(integers, np.int8) if dtype == np.int8 else _real(x, integers)


def _real(x: Tensor, integers: np.ndarray) -> np.ndarray:
    return (np.float32(x.step) * (integers - x.zero_point)).astype(np.float32)


def _taken(x: Tensor, integers: np.ndarray) -> np.ndarray:
    """An input's integers as the training model takes them."""
    return _real(x, integers) + np.float32(x.offset)


def _integers(tensor: Tensor, values) -> np.ndarray:
    levels = np.rint(np.asarray(values, np.float64) / tensor.step) + tensor.zero_point
    return np.clip(levels, -128, 127)
