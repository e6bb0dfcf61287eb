"""What is in a quantized model: tables, integers, TensorBoard logs."""
