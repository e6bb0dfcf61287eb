# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a Keras model to a phone
#
# A float network becomes a full-integer `.tflite` file, without training, and the file computes the integers that Keras
# says it does. (Open this file as a notebook with jupytext.)

# %%
import pathlib
import tempfile

import ai_edge_litert.interpreter
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import tf_keras as keras

import satkeras
import tflite_export

keras.utils.set_random_seed(0)
digits = sklearn.datasets.load_digits()
images = np.minimum(digits.images * 16, 255).astype(np.uint8)[..., None]  # (1797, 8, 8, 1), 0 .. 255
train_images, train_labels = images[:1400].astype(np.float32), digits.target[:1400]
test_images, test_labels = images[1400:].astype(np.float32), digits.target[1400:]

# %% [markdown]
# ## A float network
#
# Your own, from a file or from `keras.applications`; of tf_keras or of Keras 3.

# %%
model = keras.Sequential(
    [
        keras.layers.Rescaling(1 / 255, input_shape=(8, 8, 1)),
        keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="first"),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="second"),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, name="logits"),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
model.fit(train_images, train_labels, epochs=12, batch_size=64, verbose=0)
float_accuracy = model.evaluate(test_images, test_labels, verbose=0)[1]
print(f"float: {float_accuracy:.1%}")

# %% [markdown]
# ## Is it supported?
#
# Each call of a layer: kept, rewritten, or refused and why.

# %%
print(satkeras.check_model(model))

# %% [markdown]
# ## Eight bits, calibrated
#
# Some hundred images set the ranges. At 8 bits no training is needed.

# %%
q = satkeras.quantize_model(
    model, "sat", weight_bits=8, activation_bits=8, calibration_data=train_images[:256], verbose=0
)
q.compile(metrics=["accuracy"])
keras_accuracy = q.evaluate(test_images, test_labels, verbose=0)[1]
print(f"W8A8 in Keras: {keras_accuracy:.1%}")
print(satkeras.summary(q))

# %% [markdown]
# ## The file
#
# `export_tflite` writes it only if it is exact: every integer of every tensor, in LiteRT, is that of its twin in Keras.

# %%
path = pathlib.Path(tempfile.mkdtemp()) / "digits.tflite"
report = tflite_export.export_tflite(
    q,
    path,
    verify_data=test_images[:100],
    verify_labels=test_labels[:100],
    labels=[str(digit) for digit in range(10)],
)
print(report)

# %% [markdown]
# ## What a phone does with it
#
# LiteRT takes the pixels as they are stored, uint8.

# %%
interpreter = ai_edge_litert.interpreter.Interpreter(str(path))
interpreter.allocate_tensors()
(inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()


def scores(image):
    """The file's scores for one image, uint8 of shape (8, 8, 1)."""
    interpreter.set_tensor(inputs["index"], image[None])
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])[0]


from_file = np.stack([scores(image) for image in images[1400:]])
file_accuracy = np.mean(from_file.argmax(-1) == test_labels)
print(f"W8A8 in the file: {file_accuracy:.1%}")

# %%
figure, axes = plt.subplots(1, 8, figsize=(8, 1.4))
for axis, image, answer in zip(axes, images[1400:], from_file.argmax(-1), strict=False):
    axis.imshow(image[..., 0], cmap="gray_r")
    axis.set(title=str(answer), xticks=[], yticks=[])

# %% [markdown]
# `integer_model` is the file as a Keras model: the same integers, on a whole batch at once.

# %%
twin = tflite_export.integer_model(q).predict(images[1400:], verbose=0)
differing = int(np.sum(twin.argmax(-1) != from_file.argmax(-1)))
print(f"answers of the twin that are not the file's: {differing}")
