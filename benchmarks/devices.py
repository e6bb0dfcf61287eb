"""What a device's tools make of a file for it: Coral's preprocessing, Vela, TensorFlow Lite Micro, MediaPipe.

    make judges
    python -m benchmarks.devices --data_dir=DIR --pretrained_dir=DIR [--images=1000]

MLPerf Tiny's ResNet-8 on CIFAR-10 (see `benchmarks.pretrained`), calibrated and not trained on, at 8, 4 and 2 bits of
weights; `data_dir` is tensorflow-datasets'. What was found is in docs/results/devices.md.
"""

import pathlib
import tempfile

import numpy as np
from absl import app, flags

import satkeras
import tflite_export
from benchmarks import judges, pretrained, results
from benchmarks.judges import environments
from examples import datasets
from examples.coral.classify_image import codes
from satkeras._compat import keras
from tflite_export.devices import micro
from tflite_export.verification.interpreter import open_interpreter, run

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "devices"
BITS = (8, 4, 2)
CALIBRATION_IMAGES = 256
TEXT = """\
MLPerf Tiny's ResNet-8, CIFAR-10, {images:,} test images; calibrated at W8A8, W4A4 and W2A4, not trained on, so W2 has
forgotten much. `python -m benchmarks.devices` writes this page.

*Coral's flags*: accuracy of the file behind the preprocessing of Coral's classify_image.py with its default flags, of
the file for `target="coral"` and of that for `"android"`, both on the CPU; *MediaPipe*: its ImageClassifier's, by the
label names that it reads in the file, of 200 images, and LiteRT's on these. *Vela*: share of the operators on an
Ethos-U55-128, weight bytes as Vela encodes them, estimated cycles. *Micro*: bytes of the file, as it is and with
`compress="lut"`, and of the arena that TensorFlow Lite Micro takes on a 64-bit machine."""
MEDIAPIPE_IMAGES = 200


def behind_corals_flags(content: bytes, images: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy of a file that is fed as classify_image.py feeds it."""
    interpreter = open_interpreter(content)
    (details,) = interpreter.get_input_details()
    (answers,) = run(interpreter, codes(images, details, 128.0, 128.0))
    return float(np.mean(answers.argmax(-1) == labels))


def measure(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict:
    """What every tool says of the files of one quantized model."""
    names = [f"class {number}" for number in range(10)]
    few, expected = images[:MEDIAPIPE_IMAGES], labels[:MEDIAPIPE_IMAGES]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"

        def written(target: str, **options) -> bytes:
            tflite_export.export_tflite(model, path, target=target, verify_data=False, **options)
            return path.read_bytes()

        android, coral = (written(target, labels=names) for target in ("android", "coral"))
        vela = judges.ask("vela", written("ethos-u"))
        on_micro = {}
        for compress in ("none", "lut"):
            size = len(written("micro", compress=compress))
            on_micro[compress] = size, micro.measured_arena(path, str(environments.python("tflm")))
    named = [answers[0][1] for answers in judges.ask("mediapipe", android, [few])]
    (on_litert,) = run(open_interpreter(android), few)
    return {
        "coral": behind_corals_flags(coral, images, labels),
        "android_fed_so": behind_corals_flags(android, images, labels),
        "mediapipe": float(np.mean([name == names[label] for name, label in zip(named, expected, strict=True)])),
        "litert": float(np.mean(on_litert.argmax(-1) == expected)),
        "on_npu": len(vela["npu"]) / (len(vela["npu"]) + len(vela["cpu"])),
        "weight_bytes": int(vela["total_npu_encoded_weights"]),
        "cycles": int(vela["cycles_total"]),
        "micro": on_micro,
    }


def table(found: dict) -> str:
    """The page."""
    columns = (
        "bits",
        "Coral's flags: coral, android",
        "MediaPipe, LiteRT",
        "Vela: on the NPU",
        "weight bytes",
        "cycles",
    )
    rows = []
    for bits, one in found["bits"].items():
        (size, arena), (small, larger) = one["micro"]["none"], one["micro"]["lut"]
        rows.append(
            (
                f"W{bits}",
                f"{one['coral']:.1%}, {one['android_fed_so']:.1%}",
                f"{one['mediapipe']:.1%}, {one['litert']:.1%}",
                f"{one['on_npu']:.0%}",
                f"{one['weight_bytes']:,}",
                f"{one['cycles']:,}",
                f"{size:,}, {small:,} ({small / size:.0%})",
                f"{arena:,}, {larger:,}",
            )
        )
    text = TEXT.format(images=found["images"])
    return results.page("Files on devices", text, (*columns, "Micro: file, with tables", "arena, with tables"), rows)


def main(argv) -> None:
    """Measures and publishes."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    data = datasets.load("cifar10", FLAGS.data_dir)
    images, labels = (values[: FLAGS.images] for values in data.test)
    found = {"environment": results.environment(), "images": len(images), "bits": {}}
    for bits in BITS:
        model = satkeras.quantize_model(
            pretrained.load("resnet8", FLAGS.pretrained_dir),
            weight_bits=bits,
            activation_bits=max(bits, 4),
            calibration_data=data.train[0][:CALIBRATION_IMAGES].astype(np.float32),
        )
        found["bits"][str(bits)] = measure(model, images, labels)
    results.publish(RESULTS, found, table(found))
    print(table(found))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    flags.DEFINE_string("pretrained_dir", None, "Where the pretrained networks are.", required=True)
    flags.DEFINE_integer("images", 1000, "How many test images.", 1, 10_000)
    app.run(main)
