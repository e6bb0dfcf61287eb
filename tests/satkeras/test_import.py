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


NEW_PACKAGES = """
    import sys
    import tensorflow_model_optimization
    before = set(sys.modules)
    import satkeras, tflite_export
    print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""


def test_what_is_imported_beyond_tfmots_own_imports():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(NEW_PACKAGES)], capture_output=True, text=True)
    assert done.stdout.split() == ["satkeras", "tflite_export"], done.stderr[-3000:]


IMPORT_TIMES = """
    import time
    start = time.perf_counter()
    import tensorflow_model_optimization
    middle = time.perf_counter()
    import satkeras
    print((time.perf_counter() - middle) / (middle - start))
"""


def test_importing_takes_hardly_longer_than_tfmot():
    """A tenth more is the limit; a busy machine has three tries."""
    command = [sys.executable, "-c", textwrap.dedent(IMPORT_TIMES)]
    runs = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3))
    assert any(float(done.stdout) < 0.1 for done in runs)
