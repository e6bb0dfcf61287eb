"""The verbs: a quantized model as a file, and as a model of its integers."""

import collections
import os

from satkeras._compat import keras
from satkeras.calibration.data import InputData, input_arrays
from satkeras.files import require_writable, write_whole
from satkeras.models.checks import require_quantized
from tflite_export.file.convert import TYPES, convert
from tflite_export.lowering.lower import make_plan
from tflite_export.verification.report import Report
from tflite_export.verification.twin import build_twin
from tflite_export.verification.verify import input_codes, verify


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    verify_data: InputData | None = None,
    input_type: str = "uint8",
    output_type: str = "int8",
) -> Report:
    """Writes a trained quantized model as a full-integer `.tflite` file, batch 1, that computes its integers.

    The file appears whole or not at all. Every weight, bias, scale and zero point in it has been compared with the
    plan made from the model.

    Args:
      model: what `satkeras.quantize_model` returned, trained.
      path: where the file goes; its folder must exist.
      verify_data: images to run through the file, its integer twin and the model, side by side: an array of shape
        (n, height, width, channels) in the units the model was trained with, a list or dict of arrays for several
        inputs, or a finite `tf.data.Dataset` of batches (labels are ignored).
      input_type: "uint8" (what Android's and Coral's tools take), "int8" or "float32".
      output_type: "int8", "uint8" or "float32".

    Returns:
      What was made, and how the three agree; print it, or take `to_json()`.

    Raises:
      ExportError: a layer cannot be lowered exactly (all are named), or the converter made something else.
      TypeError: not a tf_keras model, no path, or verify data of no known kind.
      ValueError: a model without quantizers, a path that cannot be written, verify data that do not fit the model.
    """
    path = require_writable(path)
    for name, chosen in (("input_type", input_type), ("output_type", output_type)):
        if not isinstance(chosen, str) or chosen not in TYPES:
            raise ValueError(f"{name} must be one of {sorted(TYPES)}. Received: {name}={chosen!r}")
    require_quantized(model, "export_tflite")
    plan = make_plan(model)
    images = None
    if verify_data is not None:
        images = input_arrays(verify_data, model, "verify_data")
        for x, values in zip(plan.inputs, images, strict=True):
            input_codes(x, values)  # raises before the long work what does not fit
    content = convert(plan, input_type, output_type)
    verification = None if images is None else verify(model, plan, content, images)
    write_whole(path, content)
    operators = dict(collections.Counter(operator.builtin for operator in plan.operators))
    return Report(str(path), len(content), plan.weight_bytes, operators, input_type, output_type, verification)


def integer_model(model: keras.Model) -> keras.Model:
    """The twin of the file: a tf_keras model that computes every tensor of it in exact integer arithmetic.

    What it scores is what the file scores on LiteRT's default kernels, at a speed fit for `evaluate`.

    Args:
      model: what `satkeras.quantize_model` returned, trained.

    Returns:
      A model that takes the input's codes (uint8, 0 .. 255) and gives the int8 values of the outputs, held in float32.

    Raises:
      ExportError: as `export_tflite` does.
    """
    require_quantized(model, "integer_model")
    return build_twin(make_plan(model))
