"""satkeras needs no environment variable, and does not mind Keras 3 beside it."""

import os
import subprocess
import sys
import textwrap

SCRIPT = """
    import keras
    import tensorflow as tf
    assert keras.__version__.startswith("3"), keras.__version__
    assert tf.keras.__version__.startswith("3"), tf.keras.__version__
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])

    import satkeras
    import tf_keras
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(4,))])
    quantized = satkeras.quantize_model(model)
    assert isinstance(quantized, tf_keras.Model)
    quantized.compile("sgd", "mse")
    quantized.fit(tf.ones((2, 4)), tf.ones((2, 2)), verbose=0)
    assert set(satkeras.integer_weights(quantized)) == {"quant_dense"}

    new = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="new")])
    assert "quant_new" in {layer.name for layer in satkeras.quantize_model(new).layers}
    print("works")
"""


def test_keras_3_imported_first():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TF_USE", "KERAS"))}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "works"
