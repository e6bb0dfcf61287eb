"""Classifies images with a file for Coral, on the Edge TPU if there is one, on the CPU otherwise.

    python examples/coral/classify_image.py --model model_edgetpu.tflite --input parrot.jpg [--labels labels.txt]

It needs NumPy, Pillow and an interpreter: `ai-edge-litert`, or `tflite-runtime` where libedgetpu wants that one. A file
comes from `tflite_export.export_tflite(q, "model.tflite", target="coral", labels=...)`, and for the Edge TPU then from
`edgetpu_compiler model.tflite`. Flags and preprocessing are those of Coral's own classify_image.py.
"""

import argparse
import io
import pathlib
import sys
import time
import zipfile

import numpy as np
from PIL import Image

EDGE_TPU = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}


def interpreter_package():
    """The module with Interpreter and load_delegate that is installed."""
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        try:
            from tflite_runtime import interpreter  # pyright: ignore[reportMissingImports]
        except ImportError:
            sys.exit("An interpreter is required: pip install ai-edge-litert, or tflite-runtime")
    return interpreter


def open_interpreter(model: pathlib.Path):
    """An allocated interpreter, and where it runs."""
    package = interpreter_package()
    try:
        delegates = [package.load_delegate(EDGE_TPU.get(sys.platform, EDGE_TPU["linux"]))]
        where = "Edge TPU"
    except (ValueError, OSError):
        delegates, where = [], "CPU: no Edge TPU, or no libedgetpu"
    interpreter = package.Interpreter(str(model), experimental_delegates=delegates)
    interpreter.allocate_tensors()
    return interpreter, where


def read_labels(model: pathlib.Path, labels: pathlib.Path | None) -> list[str]:
    """One label a line, from a file or from the archive behind the model; none if there is none."""
    if labels is not None:
        return labels.read_text(encoding="utf-8").splitlines()
    content = model.read_bytes()
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.namelist()[0]).decode().splitlines()


def codes(image: np.ndarray, details: dict, mean: float, std: float) -> np.ndarray:
    """An image's pixels as the input's codes: normalized, then quantized."""
    if details["dtype"] != np.uint8:
        sys.exit('A uint8 input is required: export_tflite(target="coral"). Received: ' + str(details["dtype"]))
    scale, zero_point = details["quantization"]
    if abs(scale * std - 1) < 1e-5 and abs(mean - zero_point) < 1e-5:
        return image
    normalized = (image - mean) / (std * scale) + zero_point
    return np.clip(normalized, 0, 255).astype(np.uint8)


def scores(interpreter) -> np.ndarray:
    """The first output in real numbers."""
    (details, *_) = interpreter.get_output_details()
    values = interpreter.get_tensor(details["index"]).ravel()
    scale, zero_point = details["quantization"]
    return values if values.dtype == np.float32 else scale * (values.astype(np.float32) - zero_point)


def main() -> None:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, type=pathlib.Path, help="the .tflite file")
    parser.add_argument("-i", "--input", required=True, type=pathlib.Path, help="an image")
    parser.add_argument("-l", "--labels", type=pathlib.Path, help="a text file; by default the model's own labels")
    parser.add_argument("-k", "--top_k", type=int, default=1, help="how many classes are shown")
    parser.add_argument("-t", "--threshold", type=float, default=0.0, help="the lowest score that is shown")
    parser.add_argument("-c", "--count", type=int, default=5, help="how often the image is run")
    parser.add_argument("-a", "--input_mean", type=float, default=128.0, help="subtracted from every pixel")
    parser.add_argument("-s", "--input_std", type=float, default=128.0, help="what it is divided by then")
    arguments = parser.parse_args()
    interpreter, where = open_interpreter(arguments.model)
    labels = read_labels(arguments.model, arguments.labels)
    (details,) = interpreter.get_input_details()
    _, height, width, channels = details["shape"]
    mode = {1: "L", 3: "RGB"}[int(channels)]
    image = Image.open(arguments.input).convert(mode).resize((int(width), int(height)), Image.Resampling.LANCZOS)
    pixels = np.asarray(image).reshape(1, height, width, channels)
    print(f"on the {where}")
    for _ in range(arguments.count):
        start = time.perf_counter()
        interpreter.set_tensor(details["index"], codes(pixels, details, arguments.input_mean, arguments.input_std))
        interpreter.invoke()
        print(f"{1000 * (time.perf_counter() - start):.1f} ms")
    found = scores(interpreter)
    for place in np.argsort(-found, kind="stable")[: arguments.top_k]:
        if found[place] >= arguments.threshold:
            print(f"{labels[place] if labels else place}: {found[place]:.5f}")


if __name__ == "__main__":
    main()
