"""Tests of functions that become a table of 256 integers."""

import numpy as np
import tf_keras
from tf_keras import layers

import satkeras
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import Lookup
from tflite_export.verification.verify import breaches, verify


def test_a_table_of_a_tensor_whose_zero_is_its_lowest_integer():
    image = layers.Input((6, 6, 3), name="image")
    model = tf_keras.Model(image, layers.Conv2D(4, 3)(layers.Activation("gelu")(image)))
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3)).astype(np.float32) / 255
    quantized = satkeras.quantize_model(model, "int8", input_range=(0, 1), calibration_data=images)
    plan = make_plan(quantized)
    (table,) = (operator for operator in plan.operators if isinstance(operator, Lookup))
    assert table.inputs[0].zero_point == -128
    assert table.table.shape == (256,)
    assert breaches(verify(quantized, plan, write_file(plan), [images])) == []
