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
# # From a pretrained network, by calibration alone
#
# No labels and no training: some hundred images set clips, ranges and the statistics of batch norms. How few bits does
# that bear, and which layer minds? (Open this file as a notebook with jupytext.)

# %%
import dataclasses
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import tf_keras as keras

import satkeras
import satkeras.quantizers
import tflite_export

keras.utils.set_random_seed(0)
digits = sklearn.datasets.load_digits()
images = np.minimum(digits.images * 16, 255).astype(np.float32)[..., None]  # 0 .. 255
train, test = (images[:1400], digits.target[:1400]), (images[1400:], digits.target[1400:])
folder = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## The pretrained network
#
# Here a small one is trained on the spot, so that nothing is downloaded; what follows only sees its file. It was
# trained on images between 0 and 1, so that is what `input_range` says.


# %%
def block(x, channels, strides):
    """A depthwise-separable convolution."""
    x = keras.layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Conv2D(channels, 1, use_bias=False)(x)
    return keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(x))


image = keras.Input((8, 8, 1))
x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(keras.layers.Conv2D(16, 3)(image)))
x = keras.layers.GlobalAveragePooling2D()(block(block(x, 32, 2), 64, 1))
model = keras.Model(image, keras.layers.Dense(10, name="logits")(x))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
model.fit(train[0] / 255, train[1], epochs=15, batch_size=64, verbose=0)
model.save(folder / "pretrained.keras")

# %% [markdown]
# ## Bits against accuracy

# %%
calibration = train[0][:256] / 255


def calibrated(scheme="sat", **options):
    """The pretrained network, quantized."""
    return satkeras.quantize_model(
        folder / "pretrained.keras",
        scheme,
        input_range=(0, 1),
        calibration_data=calibration,
        verbose=0,
        **options,
    )


def accuracy(network):
    """On the test images."""
    network.compile(loss=loss, metrics=["accuracy"])
    return network.evaluate(test[0] / 255, test[1], verbose=0)[1]


found = {"float": accuracy(model)}
for bits in (8, 6, 4, 3):
    found[f"W{bits}A{bits}"] = accuracy(calibrated(weight_bits=bits, activation_bits=bits))
found["W4A8"] = accuracy(calibrated(weight_bits=4, activation_bits=8))
found["W8A4"] = accuracy(calibrated(weight_bits=8, activation_bits=4))
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
bars = axis.bar(list(found), [100 * value for value in found.values()])
axis.bar_label(bars, fmt="%.1f")
axis.set(ylabel="test accuracy (%)", ylim=(0, 110))
print(found)

# %% [markdown]
# ## More bits for single layers
#
# `overrides` takes patterns of layer names: here depthwise layers keep 8 bits.

# %%
mixed = calibrated(weight_bits=4, activation_bits=4, overrides={"depthwise*": {"weight_bits": 8, "activation_bits": 8}})
print(f"W4A4: {found['W4A4']:.1%}, with 8 bits for depthwise layers: {accuracy(mixed):.1%}")

# %% [markdown]
# ## Fewer bytes
#
# 4-bit weights on the symmetric grid can be packed; without that they are stored as int8.

# %%
sat = satkeras.SCHEMES["sat"]
symmetric = dataclasses.replace(
    sat,
    weights=satkeras.quantizers.DoReFaWeightQuantizer(grid="symmetric"),
    lone_weights=satkeras.quantizers.SATWeightQuantizer(grid="symmetric"),
)
small = calibrated(symmetric, weight_bits=4, activation_bits=8)
differing = 0
for storage in ("int8", "packed"):
    report = tflite_export.export_tflite(
        small, folder / f"{storage}.tflite", verify_data=test[0] / 255, weight_storage=storage
    )
    differing += report.verification.differing
    print(f"{storage}: {report.weight_bytes:,} bytes of weights, same answers {report.verification.top1_agreement:.1%}")
