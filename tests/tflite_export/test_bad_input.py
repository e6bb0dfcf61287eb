"""What a newcomer gets wrong at export, and that the error comes early and says what to do. Nothing is written."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from tflite_export import ExportError
from tflite_export.verification.verify import input_codes


@pytest.fixture(autouse=True)
def _no_file(monkeypatch):
    """Everything here fails before a file is written and run, which takes its time."""

    def model_of(*_):
        raise AssertionError("written")

    monkeypatch.setattr("tflite_export.export.model_of", model_of)


def small_model(shape=(8, 8, 3)):
    stack = [layers.Conv2D(3, 3, activation="relu", name="conv"), layers.GlobalAveragePooling2D(name="mean")]
    return tf_keras.Sequential(
        [layers.Input(shape, name="image"), *stack, layers.Dense(5, name="logits")], name="small"
    )


@pytest.fixture(scope="module")
def quantized(trained):
    return trained(small_model())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: None, TypeError, "Received: model=None"),
        (lambda: "model.keras", TypeError, "Received: model='model.keras'; load it with satkeras.load_model"),
        (lambda: layers.Dense(3), TypeError, "Received: model=<tf_keras"),
        (lambda: keras.Sequential([keras.Input((3,))], name="new"), TypeError, "Received: 'new', a model of Keras 3"),
        (
            small_model,
            ValueError,
            "a model that satkeras.quantize_model returned. Received: 'small', a float model",
        ),
        (
            lambda: tfmot.quantization.keras.quantize_model(small_model()),
            ValueError,
            "Received: 'small', quantized by tfmot itself in 'quantize_layer",
        ),
    ],
    ids=["none", "path", "layer", "keras 3", "float", "quantized by tfmot"],
)
def test_no_quantized_model(make, error, message, tmp_path):
    model = make()
    with pytest.raises(error, match=f"^export_tflite .*{message}"):
        tflite_export.export_tflite(model, tmp_path / "net.tflite")
    with pytest.raises(error, match=f"^integer_model .*{message}"):
        tflite_export.integer_model(model)
    assert not list(tmp_path.iterdir())


def diverged(model, name: str, value: float):
    for variable in model.weights:
        if name in variable.name:
            variable.assign(np.full(variable.shape, value))
    return model


UNKNOWN = (
    r"its range is still unknown: train the model for at least one step \(in which a frozen layer learns nothing\), or "
    "give quantize_model calibration_data"
)
MODELS = {
    "untrained": ({}, lambda model: model, [("quant_logits_output", UNKNOWN)]),
    "untrained int8": ({"scheme": "int8"}, lambda model: model, [("quant_conv_relu_output", UNKNOWN)]),
    "weights": ({}, lambda m: diverged(m, "kernel", np.nan), [("quant_conv", "its weights hold NaN or infinity")]),
    "infinite bias": ({}, lambda m: diverged(m, "bias", np.inf), [("quant_logits", "its bias holds NaN or infinity")]),
    "alpha": (
        {"overrides": {"logits": {"activation_bits": 4}}},
        lambda m: diverged(m, "alpha", np.nan),
        [("quant_logits_input", "its alpha is nan: the training diverged; load weights from before")],
    ),
    "range": (
        {"scheme": "int8"},
        lambda m: diverged(m, "range", np.inf),
        [("quant_conv_relu_output", "its range is inf: the training diverged")],
    ),
    "range nan": ({}, lambda m: diverged(m, "range", np.nan), [("quant_logits_output", "its range is nan: the train")]),
    "clamped": (
        {"weight_bits": None, "activation_bits": None},
        lambda model: model,
        [
            ("quant_conv", "its num_bits is None: .*; give it 2 to 8 bits"),
            ("image", "give that activation_bits, not None"),
        ],
    ),
}


@pytest.mark.parametrize(("options", "change", "problems"), MODELS.values(), ids=MODELS)
def test_models_that_have_no_integers(options, change, problems, tmp_path):
    model = change(satkeras.quantize_model(small_model(), **options))
    for export in (
        lambda: tflite_export.export_tflite(model, tmp_path / "net"),
        lambda: tflite_export.integer_model(model),
    ):
        with pytest.raises(ExportError) as caught:
            export()
        for name, reason in problems:
            with pytest.raises(AssertionError, match=reason):
                raise AssertionError(dict(caught.value.problems)[name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(None, None, 3), (None, 8, 3)], ids=str)
def test_dynamic_shapes(shape, exported):
    with pytest.raises(ValueError, match=r"inputs of fixed size. Input 'image' .*input_shape=\(h, "):
        satkeras.quantize_model(small_model(shape))
    fixed = satkeras.quantize_model(small_model(shape), input_shape=(8, 8, 3), calibration_data=IMAGES)
    assert exported(fixed).differing == 0


@pytest.mark.parametrize("shape", [(None, None, 3), (None, 8, 3)], ids=str)
def test_sizes_that_were_opened_again(shape, tmp_path):
    fixed = satkeras.quantize_model(small_model(), calibration_data=IMAGES)
    image = tf_keras.Input(shape, name="image")
    model = tf_keras.models.clone_model(fixed, input_tensors=image)
    model.set_weights(fixed.get_weights())
    message = r"inputs of fixed size. Build the float model anew .*set_weights:\n  image: its shape is \(None, None, "
    with pytest.raises(ExportError, match=message):
        tflite_export.export_tflite(model, tmp_path / "net.tflite")
    with pytest.raises(ExportError, match=message):
        tflite_export.integer_model(model)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("{folder}/missing/net.tflite", ValueError, "folder of path must exist: create .*missing first"),
        ("{folder}", ValueError, "must be a file's: add a file name. Received a folder"),
        ("{folder}/file/net.tflite", ValueError, "folder of path must exist"),
        ("/proc/net.tflite", ValueError, "path must be writable. Received: /proc/net.tflite"),
        (None, TypeError, "path must be a str or an os.PathLike. Received: path=None"),
    ],
)
def test_paths_that_cannot_be_written(path, error, message, quantized, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        tflite_export.export_tflite(quantized, path and path.format(folder=tmp_path))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"input_type": "int16"},
            r"input_type must be one of \['float32', 'int8', 'uint8'\]. Received: input_type='int16",
        ),
        ({"input_type": np.uint8}, "input_type must be one of .*Received: input_type=<class"),
        ({"output_type": ["int8"]}, r"output_type must be one of .*Received: output_type=\['int8'\]"),
    ],
    ids=str,
)
def test_types_that_there_are_not(quantized, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tflite_export.export_tflite(quantized, tmp_path / "net.tflite", **options)


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.float32)
SHAPE = r"verify_data must have shape \(n, 8, 8, 3\), n > 0, for input image. Received: "
KIND = "verify_data must hold integers or floats. Received: dtype "
ONE = r"verify_data must be an array for each of the 1 inputs \['image'\], without labels. Received: "
NONE = "verify_data must hold at least one example. Received: "
NO_KIND = (
    "verify_data must be an array, a list or dict of arrays for several inputs, a tf.data.Dataset, a Keras Sequence, "
    r"or a function that returns an iterator \(a representative_dataset\)\. Received: "
)
RANGE = "must lie within the model's input range 0 .. 255. Received: values from "


def dataset(data):
    return tf.data.Dataset.from_tensor_slices(data)


DATA = {
    "empty": (IMAGES[:0], NONE + r"shape \(0, 8, 8, 3\)"),
    "one image": (IMAGES[0], SHAPE + r"\(8, 8, 3\)"),
    "size": (IMAGES[:, :6], SHAPE + r"\(4, 6, 8, 3\)"),
    "channels": (IMAGES[..., :1], SHAPE + r"\(4, 8, 8, 1\)"),
    "number": (np.float32(5), SHAPE + r"\(\)"),
    "strings": (np.array(["cat.png"]), KIND + "<U7"),
    "objects": (np.array([None]), KIND + "object"),
    "keys": ({"picture": IMAGES}, r"must have the keys \['image'\]. Received: \['picture'\]"),
    "booleans": (IMAGES > 5, KIND + "bool"),
    "complex": (IMAGES * 1j, KIND + "complex"),
    "empty list": ([], ONE + "0"),
    "list of images": (list(IMAGES), ONE + r"4 \(np.stack makes one array of images\)"),
    "labels": ((IMAGES, np.arange(4)), ONE + "2"),
    "above": (IMAGES + 1, RANGE + "1 to 256$"),
    "below": (IMAGES - 128, RANGE + "-128 to 127$"),
    "nan": (np.where(IMAGES > 200, np.nan, IMAGES), RANGE + "nan to nan, NaN or infinity among them"),
    "infinity": (np.where(IMAGES > 200, np.inf, IMAGES), RANGE + "0 to inf, NaN or infinity among them"),
    "other units": (
        IMAGES / 255,
        "in the units of the model's input range 0 .. 255. Received: values from 0 to 1, a step",
    ),
    "empty dataset": (dataset(IMAGES[:0]).batch(2), NONE + "an empty dataset"),
    "infinite dataset": (
        dataset(IMAGES).batch(2).repeat(),
        r"must end. Received: a dataset that repeats forever; use .take\(n\)",
    ),
}


@pytest.mark.parametrize(("data", "message"), DATA.values(), ids=DATA)
def test_data_that_do_not_fit(quantized, tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        tflite_export.export_tflite(quantized, tmp_path / "net.tflite", verify_data=data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", ["images.npy", 5, (image for image in IMAGES)], ids=["path", "number", "generator"])
def test_data_of_no_kind(quantized, tmp_path, data):
    with pytest.raises(TypeError, match=NO_KIND + type(data).__name__):
        tflite_export.export_tflite(quantized, tmp_path / "net.tflite", verify_data=data)
    assert not list(tmp_path.iterdir())


def test_data_for_several_inputs(trained, tmp_path):
    inputs = [layers.Input((4,), name="left"), layers.Input((6,), name="right")]
    model = trained(tf_keras.Model(inputs, layers.Add()([layers.Dense(3)(x) for x in inputs])))
    for data, message in (
        (IMAGES, r"must be an array for each of the 2 inputs \['left', 'right'\]. Received: one"),
        ([np.zeros((3, 4)), np.zeros((2, 6))], r"must have as many examples for each input. Received: \[2, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            tflite_export.export_tflite(model, tmp_path / "net.tflite", verify_data=data)


def test_a_constant_image_between_two_codes_is_no_sign_of_other_units(plan):
    assert (input_codes(plan.inputs[0], np.full((1, *plan.inputs[0].shape), 3.4)) == 3).all()
