"""The networks of `keras.applications`, from random weights, for images of any size."""

import tf_keras

APPLICATIONS = sorted(
    name for name, value in vars(tf_keras.applications).items() if name[0].isupper() and callable(value)
)
_LARGEST_FACTOR = 3  # 28 pixels become 84, more than any of them asks for


def application(name: str, input_shape: tuple[int, int, int], classes: int) -> tf_keras.Model:
    """A network of `keras.applications`, from random weights, for images of any size and 1 or 3 channels.

    Images that are too small for it are enlarged inside the model, grey ones repeated as its three channels.

    Args:
      name: one of `APPLICATIONS`.
      input_shape: height, width and channels of the images.
      classes: number of logits.
    """
    height, width, channels = input_shape
    for factor in range(1, _LARGEST_FACTOR + 1):
        shape = (height * factor, width * factor, 3)
        options = {"weights": None, "classes": classes, "classifier_activation": None}
        try:
            network = getattr(tf_keras.applications, name)(input_shape=shape, **options)
            break
        except ValueError as error:
            if "Input size must be at least" not in str(error) or factor == _LARGEST_FACTOR:
                raise
    image = x = tf_keras.Input(input_shape, name="image")
    if channels == 1:
        x = tf_keras.layers.Concatenate(name="grey")([x, x, x])
    if factor > 1:
        x = tf_keras.layers.UpSampling2D(factor, name="enlarge")(x)
    return tf_keras.Model(image, network(x), name=name)
