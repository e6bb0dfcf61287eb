"""Which of an optimizer's variables are kernels whose integers are worth following."""

from collections.abc import Sequence

from satkeras.models.wrapper import quantization_of

# At 8 bits steps are so small that nearly every update changes integers, and no change matters.
FEWEST_BITS_LEFT_OUT = 8


def low_bit_kernels(variables: Sequence, optimizer: str) -> list[tuple]:
    """Those among `variables` that are latent weights of fewer than 8 bits, each with `(quantizer, its variables)`.

    Args:
      variables: what an optimizer is built for.
      optimizer: its name, for the message.

    Raises:
      ValueError: there are none.
    """
    found = [(variable, quantization_of(variable)) for variable in variables]
    kernels = [
        (kernel, quantization)
        for kernel, quantization in found
        if quantization is not None and (quantization[0].width or FEWEST_BITS_LEFT_OUT) < FEWEST_BITS_LEFT_OUT
    ]
    if not kernels:
        raise ValueError(
            f"{optimizer} needs a model with kernels of fewer than 8 bits that train, as "
            f'satkeras.quantize_model(model, "sat", weight_bits=4) makes it. Received: {len(found)} variables, none of '
            "them such a kernel; Keras' own optimizers train them"
        )
    return kernels
