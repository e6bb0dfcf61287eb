"""From a quantized Keras model to a plan of integers."""
