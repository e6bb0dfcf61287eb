"""A file on TensorFlow Lite Micro, as its users run it."""
