"""What a trained network achieves as a file: accuracy, bytes, speed, and each tensor of it."""

import csv
import dataclasses
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras

import satkeras
import tflite_export
from examples import datasets
from satkeras.reports.tensors import TensorIntegers, level_counts, tensor_integers
from tflite_export.verification.interpreter import open_interpreter, run

CALIBRATION_IMAGES = 512
_TURNS, _RUNS_OF_A_TURN = 20, 20


@dataclasses.dataclass(frozen=True)
class Row:
    """One operator of a file and what it writes.

    Attributes:
      tensor: its name in the quantized model.
      operator: TFLite's.
      runs_in: "XNNPACK" or "builtin".
      elements: how many integers were compared.
      differing: how many of them are not the twin's.
      alphas: clip value at the start and after each epoch; empty where it is not learned.
      integers: clip and integers of the tensor on test images; None where it takes its input's grid.
    """

    tensor: str
    operator: str
    runs_in: str
    elements: int
    differing: int
    alphas: list[float]
    integers: TensorIntegers | None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The weights of one layer.

    Attributes:
      layer: its name in the float model.
      bits: width of its weights and of its input.
      grids: the integers of both.
      counts: how many weights lie on each level.
    """

    layer: str
    bits: tuple[int, int]
    grids: tuple[str, str]
    counts: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one network achieved.

    Attributes:
      name: for example "SAT W4A4".
      path: the file.
      file_accuracy: on the test images, in LiteRT.
      same_as_float: share of images that the file answers as the float network does.
      file_bytes: size of the file.
      keras_accuracy: on the test images, in Keras; None for the converter's file, which Keras has not.
      weight_bytes: bytes of the kernels in the file; None where we did not write it.
      micro_bytes: size of the file for TensorFlow Lite Micro, its kernels in look-up tables; None as above.
      npu_bytes: weights as Vela encodes them for an Ethos-U55; None where the program `vela` is not installed.
      history: test accuracy after each epoch of its training; a packed file's network is that of the one before.
      differing: integers that differ between file and twin, over all tensors; None where there is no twin.
      compared: how many were compared.
      rows: the operators of the file.
      kernels: the weights of its layers.
      milliseconds: median time of one image in LiteRT, one thread, the files taking turns.
    """

    name: str
    path: str
    file_accuracy: float
    same_as_float: float
    file_bytes: int
    keras_accuracy: float | None = None
    weight_bytes: int | None = None
    micro_bytes: int | None = None
    npu_bytes: int | None = None
    history: list[float] = dataclasses.field(default_factory=list)
    differing: int | None = None
    compared: int | None = None
    rows: list[Row] = dataclasses.field(default_factory=list)
    kernels: list[Kernel] = dataclasses.field(default_factory=list)
    milliseconds: float | None = None


class AlphaHistory(keras.callbacks.Callback):
    """Notes every learned clip value at the start and after each epoch, by the name of its layer."""

    def __init__(self):
        super().__init__()
        self.values: dict[str, list[float]] = {}

    def _note(self):
        for variable in satkeras.learned_variables(self.model, "clip"):
            self.values.setdefault(variable.name.split("/")[0], []).append(float(variable))

    def on_train_begin(self, logs=None):
        self._note()

    def on_epoch_end(self, epoch, logs=None):
        self._note()


def answers_of(model: keras.Model, data: datasets.Images) -> np.ndarray:
    """The class that a model names for each test image."""
    return model.predict(data.test[0].astype(np.float32), batch_size=250, verbose=0).argmax(-1)


def float_outcome(
    model: keras.Model, answers: np.ndarray, history: list[float], data: datasets.Images, folder: pathlib.Path
) -> Outcome:
    """The float network, exported as it is, for comparison; `answers` are its own, as `answers_of` gives them."""
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    accuracy = float(np.mean(answers == data.test[1]))
    return _outcome("float", content, folder, data, answers, keras_accuracy=accuracy, history=history)


def post_training_int8(model: keras.Model, images: np.ndarray) -> bytes:
    """TensorFlow's own post-training quantization of a float network: uint8 in, int8 within and out.

    Args:
      model: on one input of images.
      images: that the converter takes the ranges of.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images.astype(np.float32))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def converter_outcome(model: keras.Model, answers: np.ndarray, data: datasets.Images, folder: pathlib.Path) -> Outcome:
    """TensorFlow's own post-training quantization of the float network: int8, ranges from training images."""
    content = post_training_int8(model, data.train[0][:CALIBRATION_IMAGES])
    stored = npu_bytes(lambda file: file.write_bytes(content))
    return _outcome("converter's int8", content, folder, data, answers, npu_bytes=stored)


def quantized_outcome(
    model: keras.Model,
    float_answers: np.ndarray,
    history: list[float],
    alphas: dict[str, list[float]],
    data: datasets.Images,
    verify_images: int,
    folder: pathlib.Path,
    name: str,
    weight_storage: str = "int8",
) -> Outcome:
    """Exports and verifies a quantized network; if its file is not packed, for a microcontroller and an NPU, too."""
    path = _path(name, folder)
    images = data.test[0][:verify_images].astype(np.float32)
    report = tflite_export.export_tflite(model, path, verify_data=images, weight_storage=weight_storage)
    print(report, flush=True)
    path.with_suffix(".json").write_text(report.to_json())
    found = {}
    if weight_storage == "int8":
        found["history"] = history
        micro = folder / "micro" / path.name
        micro.parent.mkdir(exist_ok=True)
        small = tflite_export.export_tflite(model, micro, verify_data=False, target="micro", compress="lut")
        found["micro_bytes"] = small.file_bytes
        found["npu_bytes"] = npu_bytes(
            lambda file: tflite_export.export_tflite(model, file, verify_data=False, target="ethos-u")
        )
    return _outcome(
        name,
        path.read_bytes(),
        folder,
        data,
        float_answers,
        keras_accuracy=float(np.mean(answers_of(model, data) == data.test[1])),
        weight_bytes=report.weight_bytes,
        differing=report.verification.differing,
        compared=sum(tensor.elements for tensor in report.verification.tensors),
        rows=_rows(report, alphas, tensor_integers(model, images)),
        kernels=_kernels(model),
        **found,
    )


def with_latencies(outcomes: list[Outcome]) -> list[Outcome]:
    """The same with the time of one image; the files take turns, so that what else runs hits all of them."""
    interpreters = [open_interpreter(pathlib.Path(outcome.path).read_bytes(), threads=1) for outcome in outcomes]
    times: list[list[float]] = [[] for _ in outcomes]
    for _ in range(_TURNS):
        for interpreter, its_times in zip(interpreters, times, strict=True):
            for _ in range(_RUNS_OF_A_TURN):
                start = time.perf_counter()
                interpreter.invoke()
                its_times.append(1e3 * (time.perf_counter() - start))
    return [
        dataclasses.replace(outcome, milliseconds=float(np.median(its_times)))
        for outcome, its_times in zip(outcomes, times, strict=True)
    ]


def _outcome(name, content: bytes, folder, data: datasets.Images, float_answers, **found) -> Outcome:
    path = _path(name, folder)
    path.write_bytes(content)
    interpreter = open_interpreter(content)
    images, labels = data.test
    (scores,) = run(interpreter, images.astype(interpreter.get_input_details()[0]["dtype"]))
    answers = scores.argmax(-1)
    return Outcome(
        name,
        str(path),
        float(np.mean(answers == labels)),
        float(np.mean(answers == float_answers)),
        len(content),
        **found,
    )


def _path(name: str, folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{re.sub('[^a-z0-9]+', '_', name.lower())}.tflite"


def _rows(report: tflite_export.Report, alphas, integers: dict[str, TensorIntegers]) -> list[Row]:
    summaries, place = report.operator_summaries, 0
    places = {summary.name: place for place, summary in enumerate(summaries)}
    rows = []
    for tensor in report.verification.tensors:
        place = places.get(tensor.name, place + 1)  # an output has another name in the file; it is the next one
        quantizer = next((q for q in (f"quant_{tensor.name}_output", f"quant_{tensor.name}") if q in integers), "")
        rows.append(
            Row(
                tensor.name,
                tensor.operator,
                summaries[place].runs_in,
                tensor.elements,
                tensor.file_differs,
                alphas.get(quantizer, []),
                integers.get(quantizer),
            )
        )
    return rows


def _kernels(model: keras.Model) -> list[Kernel]:
    integers = satkeras.integer_weights(model)
    found = []
    for layer in satkeras.summary(model).layers:
        if layer.name not in integers:  # a later call of a shared layer
            continue
        weight = integers[layer.name]
        found.append(
            Kernel(
                layer.name.removeprefix("quant_"),
                (layer.weight_bits, layer.input_bits),
                (layer.weight_grid, layer.input_grid),
                level_counts(weight.integers, weight.params),
            )
        )
    return found


def npu_bytes(write: Callable[[pathlib.Path], object]) -> int | None:
    """Weights as Vela encodes them for an Ethos-U55, by its summary; None where there is no program `vela`.

    Args:
      write: writes the int8 file to a path.
    """
    vela = shutil.which("vela")
    if vela is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.tflite"
        write(file)
        command = [vela, file, "--accelerator-config=ethos-u55-128", f"--output-dir={folder}"]
        subprocess.run(command, check=True, capture_output=True)
        (table,) = pathlib.Path(folder).glob("*_summary_*.csv")
        with table.open() as lines:
            return int(float(next(csv.DictReader(lines))["total_npu_encoded_weights"]))
