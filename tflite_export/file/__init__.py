"""A plan as the bytes of a `.tflite` file, and back."""
