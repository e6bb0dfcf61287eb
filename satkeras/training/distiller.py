"""Distillation (Hinton et al. 2015, arXiv:1503.02531) as a model that compiles and fits like any other."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from satkeras._compat import call_of, is_functional, keras
from satkeras.formulas.distillation import soft_cross_entropy
from satkeras.models.keras3 import as_tf_keras

OUTPUTS = ("logits", "probabilities")


class Distiller(keras.Model):
    """A student that learns the answers of a teacher beside the labels.

        distiller = satkeras.Distiller(satkeras.quantize_model(network), teacher=network)
        distiller.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        distiller.fit(images, labels, validation_data=...)
        tflite_export.export_tflite(distiller.student, "model.tflite")

    The loss is a weighted mean of that of the labels, the one to compile with, and the teacher's:

      (1 - teacher_weight) loss(labels, student) + teacher_weight T^2 cross entropy(softened teacher, softened student)

    plus, for pairs of layers, `feature_weight` times `mean((s - t)^2) / mean(t^2)`, s being what the student's layer
    returns and t the teacher's. Compiled without a loss it learns from the teacher alone, and `fit(images)` needs no
    labels. `compile(loss_weights=)` is another weight for the labels. Sample and class weights weigh the labels' part
    only. `evaluate` and validation have the same loss, and ask the teacher, too.

    Its weights are the student's; `satkeras.undecayed_variables`, `learned_variables` and this library's callbacks take
    it for the student. `save` saves the student alone, uncompiled.

    Args:
      student: a functional tf_keras model with one output of logits or probabilities over classes, such as
        `quantize_model` returns. It is trained itself, not a copy.
      teacher: a model of either Keras, or the path of one, with the same inputs, in the same units, and classes. It
        is run in inference mode and stays as it is.
      temperature: T, which softens both answers.
      teacher_weight: within 0 .. 1; Hinton et al. found that the labels' should be much the smaller part.
      features: layers of the student and, for each, the layer of the teacher that it should resemble, by name. Both
        return tensors of one shape. In a quantized model a ReLU's result is `quant_<layer>_output`.
      feature_weight: that of all pairs together; each counts alike.
      teacher_output: "logits" or "probabilities", for a teacher whose last layer does not say: a subclassed one.

    Raises:
      TypeError: a model of the wrong kind.
      ValueError: student and teacher do not fit each other, have no such layers, or an argument is out of range.

    References:
      Hinton et al., section 2. Features: FitNets (arXiv:1412.6550), eq. 3, between layers of one shape.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher,
        *,
        temperature: float = 4.0,
        teacher_weight: float = 0.5,
        features: Mapping[str, str] | None = None,
        feature_weight: float = 1.0,
        teacher_output: str | None = None,
    ):
        super().__init__(name=getattr(student, "name", None))
        _require_in_range(temperature, teacher_weight, feature_weight, teacher_output)
        teacher = as_tf_keras(teacher)
        if not is_functional(student):
            raise TypeError(
                "student must be a built functional or Sequential model of tf_keras, such as "
                f"satkeras.quantize_model(network). Received: student={student!r}"
            )
        if not isinstance(teacher, keras.Model):
            raise TypeError(f"teacher must be a Keras model, or the path of one. Received: teacher={teacher!r}")
        if teacher_output is None and not is_functional(teacher):
            raise ValueError(
                f"The layers of a subclassed teacher cannot be seen: say teacher_output='logits' or 'probabilities'. "
                f"Received: teacher={teacher.name!r}"
            )
        self.student, self.temperature, self.teacher_weight = student, temperature, teacher_weight
        self.features, self.feature_weight = dict(features or {}), feature_weight
        of_student, of_teacher = _gives(student, "student"), teacher_output or _gives(teacher, "teacher")
        network = _with_layers(student, self.features.keys(), "student")
        lessons = _with_layers(teacher, self.features.values(), "teacher")
        _require_alike(student, teacher, network, lessons, self.features)
        # Functions, so that Keras does not take the teacher's weights for its own.
        self._learn = lambda x, training: _logits_first(network(x, training=training), of_student)
        self._teach = lambda x: _logits_first(lessons(x, training=False), of_teacher)

    def compile(self, optimizer="rmsprop", loss=None, metrics=None, loss_weights=None, **kwargs):
        if loss_weights is None and loss is not None:
            loss_weights = 1.0 - self.teacher_weight
        super().compile(optimizer, loss, metrics, loss_weights, **kwargs)

    def call(self, inputs, training=None, mask=None):
        prediction, logits, *own = self._learn(inputs, training)
        _, answers, *shown = self._teach(inputs)
        lesson = soft_cross_entropy(answers, logits, self.temperature)
        self.add_loss(self.teacher_weight * tf.reduce_mean(lesson))
        if own:
            differences = [_relative_square(*pair) for pair in zip(own, shown, strict=True)]
            self.add_loss(self.feature_weight * tf.reduce_mean(differences))
        return prediction

    def save(self, *args, **kwargs):
        self.student.save(*args, **kwargs)

    def save_weights(self, *args, **kwargs):
        self.student.save_weights(*args, **kwargs)

    def load_weights(self, *args, **kwargs):
        return self.student.load_weights(*args, **kwargs)


def _logits_first(outputs, form: str) -> list:
    """`[prediction, logits, feature, ...]` of `[prediction, feature, ...]`."""
    prediction, *features = tf.nest.flatten(outputs)
    logits = tf.cast(prediction, tf.float32)
    if form == "probabilities":
        # The logits but for a constant, which no softmax sees.
        logits = tf.math.log(tf.maximum(logits, np.finfo(np.float32).tiny))
    return [prediction, logits, *features]


def _relative_square(own, shown) -> tf.Tensor:
    shown = tf.stop_gradient(tf.cast(shown, tf.float32))
    square = tf.reduce_mean(tf.square(shown))
    return tf.reduce_mean(tf.square(tf.cast(own, tf.float32) - shown)) / tf.where(square > 0, square, 1.0)


def _gives(model: keras.Model, role: str) -> str:
    """What a functional model ends in: "logits", or behind a softmax "probabilities"."""
    if len(model.outputs) != 1:
        raise ValueError(f"The {role} needs one output, of classes. Received: {model.name!r} with {len(model.outputs)}")
    call = call_of(model.outputs[0])
    while _activation(call.layer) == "linear" and isinstance(call.layer, keras.layers.Activation):
        call = call_of(call.inputs[0])
    name = _activation(call.layer)
    if name not in ("linear", "softmax"):
        raise ValueError(
            f"The {role} must end in logits, or in a softmax over classes. Received: {model.name!r}, whose last layer "
            f"{call.layer.name!r} is a {name}"
        )
    return "probabilities" if name == "softmax" else "logits"


def _activation(layer) -> str:
    if isinstance(layer, keras.Model):
        return "linear" if not is_functional(layer) else _activation(call_of(layer.outputs[0]).layer)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def _with_layers(model: keras.Model, names, role: str):
    """A model's output and those of some of its layers, as one function of `(x, training)`."""
    names = list(names)
    if not is_functional(model):
        if names:
            raise ValueError(f"features need a functional {role}. Received: subclassed {model.name!r}")
        return lambda x, training: [model(x, training=training)]
    known = [layer.name for layer in model.layers]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"features must name layers of the {role}. Received: {unknown}; there are {known}")
    return keras.Model(model.inputs, [model.outputs[0], *(model.get_layer(name).output for name in names)])


def _require_alike(student, teacher, network, lessons, features) -> None:
    if not is_functional(teacher):
        return
    for what, one, other in (
        ("inputs", student.inputs, teacher.inputs),
        ("outputs", student.outputs, teacher.outputs),
    ):
        shapes = [[x.shape[1:] for x in tensors] for tensors in (one, other)]
        if len(one) != len(other) or not all(a.is_compatible_with(b) for a, b in zip(*shapes, strict=True)):
            received = " and ".join(str([tuple(shape) for shape in each]) for each in shapes)
            raise ValueError(f"Student and teacher need {what} of the same shapes. Received: {received}")
    if not features:
        return
    for pair, own, shown in zip(features.items(), network.outputs[1:], lessons.outputs[1:], strict=True):
        if not own.shape.is_compatible_with(shown.shape):
            raise ValueError(
                f"A pair of features needs one shape. Received: {pair[0]!r}: {own.shape} and {pair[1]!r}: {shown.shape}"
            )


def _require_in_range(temperature, teacher_weight, feature_weight, teacher_output) -> None:
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive. Received: temperature={temperature!r}")
    if not 0 <= teacher_weight <= 1:
        raise ValueError(f"teacher_weight must be within 0 .. 1. Received: teacher_weight={teacher_weight!r}")
    if not (np.isfinite(feature_weight) and feature_weight >= 0):
        raise ValueError(f"feature_weight must not be negative. Received: feature_weight={feature_weight!r}")
    if teacher_output not in (*OUTPUTS, None):
        raise ValueError(f"teacher_output must be one of {OUTPUTS} or None. Received: {teacher_output=}")
