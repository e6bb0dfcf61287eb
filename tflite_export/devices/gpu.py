"""What LiteRT's GPU delegates compute wrongly, by name.

A strided 1x1 CONV_2D gave 94 to 98 % wrong integers on the WebGPU delegate of LiteRT 2.3, in the files of TensorFlow's
converter, too.
"""

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.devices.contract import Checked
from tflite_export.file.graph import StoredOperator, stored_operators


def check(model: schema.ModelT) -> Checked:
    """Strided 1x1 convolutions, and what stands for them, are notes."""
    strided = [one for one in stored_operators(model) if one.builtin == "CONV_2D" and _stride(one) > 1]
    wrong = [one.name for one in strided if one.inputs[1] is not None and one.inputs[1].shape[1:3] == (1, 1)]
    grown = [one.name for one in strided if _is_grown(one)]
    notes = []
    if wrong:
        notes.append(
            "LiteRT's GPU delegates compute strided 1x1 convolutions wrongly; export_tflite(gpu_safe=True) avoids "
            f"them, with the same integers: {', '.join(wrong)}"
        )
    if grown:
        notes.append(f"2x2 kernels with zeros for strided 1x1 ones, for LiteRT's GPU delegates: {', '.join(grown)}")
    return Checked(notes=tuple(notes))


def _stride(operator: StoredOperator) -> int:
    return max(operator.options.strideH, operator.options.strideW)


def _is_grown(operator: StoredOperator) -> bool:
    kernel = operator.inputs[1]
    if kernel is None or kernel.data is None or kernel.shape[1:3] != (2, 2) or kernel.type != "INT8":
        return False
    values = kernel.data.view(np.int8).reshape(kernel.shape).copy()
    values[:, 0, 0] = 0
    return not values.any()
