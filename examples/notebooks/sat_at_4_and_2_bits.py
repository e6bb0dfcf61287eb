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
# # Scale-Adjusted Training at 4 and at 2 bits
#
# Weights on a grid of 16 and of 4 levels, activations with a clip value α that learns. (Open this file as a notebook
# with jupytext.)

# %%
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import tf_keras as keras

import satkeras
import tflite_export

keras.utils.set_random_seed(0)
digits = sklearn.datasets.load_digits()
images = np.minimum(digits.images * 16, 255).astype(np.float32)[..., None]  # 0 .. 255
train, test = (images[:1400], digits.target[:1400]), (images[1400:], digits.target[1400:])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# %% [markdown]
# ## In float first
#
# The quantized networks start from it.


# %%
def block(x, channels, strides, name):
    """A convolution, its batch norm and a ReLU."""
    x = keras.layers.Conv2D(channels, 3, strides, padding="same", use_bias=False, name=name)(x)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.BatchNormalization(momentum=0.9)(x))


image = keras.Input((8, 8, 1))
x = block(block(block(image, 16, 1, "one"), 32, 2, "two"), 32, 1, "three")
model = keras.Model(image, keras.layers.Dense(10, name="logits")(keras.layers.GlobalAveragePooling2D()(x)))
model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
model.fit(*train, epochs=12, batch_size=64, verbose=0)
print(f"float: {model.evaluate(*test, verbose=0)[1]:.1%}")

# %% [markdown]
# ## Calibrated, then trained on
#
# A callback notes every α. `undecayed_variables` are those that the paper keeps out of the weight decay.


# %%
class Alphas(keras.callbacks.Callback):
    """Every learned clip value, at the start and after each epoch."""

    def __init__(self):
        super().__init__()
        self.values = {}

    def on_train_begin(self, logs=None):
        for variable in satkeras.learned_variables(self.model, "clip"):
            name = variable.name.split("/")[0].removeprefix("quant_").removesuffix("_output")
            self.values.setdefault(name, []).append(float(variable))

    def on_epoch_end(self, epoch, logs=None):
        self.on_train_begin()


def trained(bits, epochs):
    """The network at so many bits, its α epoch by epoch, and its accuracy before and after."""
    q = satkeras.quantize_model(
        model, "sat", weight_bits=bits, activation_bits=bits, calibration_data=train[0][:256], verbose=0
    )
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9, weight_decay=4e-5)
    optimizer.exclude_from_weight_decay(var_list=satkeras.undecayed_variables(q))
    q.compile(optimizer, loss, metrics=["accuracy"])
    before, alphas = q.evaluate(*test, verbose=0)[1], Alphas()
    q.fit(*train, epochs=epochs, batch_size=64, verbose=0, callbacks=[alphas])
    return q, alphas.values, (before, q.evaluate(*test, verbose=0)[1])


networks = {4: trained(4, 5), 2: trained(2, 15)}
for bits, (_, _, (before, after)) in networks.items():
    print(f"W{bits}A{bits}: {before:.1%} calibrated, {after:.1%} trained")

# %% [markdown]
# ## Where the weights lie
#
# `integer_weights` gives the integers that the file stores: odd ones, -15 .. 15 and -3 .. 3. The last layer has 8 bits.

# %%
figure, rows = plt.subplots(2, 3, figsize=(9, 4), layout="constrained")
for (q, _, _), row in zip(networks.values(), rows, strict=True):
    weights = satkeras.integer_weights(q)
    for axis, name in zip(row, ("quant_two", "quant_three", "quant_logits"), strict=True):
        values, counts = np.unique(weights[name].integers, return_counts=True)
        axis.bar(values, counts, width=1.6 if weights[name].num_bits < 8 else 1)
        axis.set_title(f"{name.removeprefix('quant_')}, {weights[name].num_bits} bits")

# %% [markdown]
# ## How α learns

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for axis, (bits, (_, alphas, _)) in zip(axes, networks.items(), strict=True):
    for name, values in alphas.items():
        axis.plot(values, marker=".", label=name)
    axis.set(title=f"α at {bits} bits", xlabel="epoch")
    axis.legend(fontsize=8)

# %% [markdown]
# ## The files
#
# Accuracy in Keras is accuracy in the file: no integer differs.

# %%
folder, differing = pathlib.Path(tempfile.mkdtemp()), 0
for bits, (q, _, (_, after)) in networks.items():
    report = tflite_export.export_tflite(
        q, folder / f"w{bits}a{bits}.tflite", verify_data=test[0], verify_labels=test[1]
    )
    found = report.verification
    differing += found.differing
    (in_file,) = (family.accuracy for family in found.families if family.kernels == "xnnpack")
    print(f"W{bits}A{bits}: {after:.1%} in Keras, {in_file:.1%} in the file, {found.differing} integers differ")
