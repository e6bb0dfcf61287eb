"""The command line: what each command prints and leaves, and its exit status."""

import json
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras as library
import tflite_export
from tflite_export.__main__ import main, parser
from tflite_export.commands import read_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float model, images, labels, and what `quantize` and `export` make of them."""
    path = tmp_path_factory.mktemp("cli")
    model = tf_keras.Sequential(
        [
            layers.Input((6, 6, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(4, 1, activation="relu"),
            layers.Flatten(),
            layers.Dense(2, name="dense"),
        ]
    )
    model.save(path / "float.keras")
    np.save(path / "images.npy", np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3)).astype(np.float32))
    (path / "labels.txt").write_text("cat\ndog\n")
    return path


def satkeras(folder, *arguments) -> int:
    """The status of a command; `@` stands for the folder."""
    return main(parser().parse_args([word.replace("@", f"{folder}/") for word in arguments]))


@pytest.fixture(scope="module")
def exported(folder):
    assert satkeras(folder, "quantize", "@float.keras", "@q.keras", "--data=@images.npy") == 0
    assert satkeras(folder, "export", "@q.keras", "@m.tflite", "--data=@images.npy", "--labels=@labels.txt") == 0
    return folder


def printed(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_file_is_its_models(exported, capsys):
    assert satkeras(exported, "verify", "@m.tflite", "@q.keras", "--data=@images.npy", "--json") == 0
    assert printed(capsys) == {"images": 8, "differing": 0, "problems": []}


def test_what_is_not_trained_is_rounded_by_outputs_unless_told_otherwise(exported):
    assert satkeras(exported, "quantize", "@float.keras", "@b.keras", "--data=@images.npy", "--rounding=nearest") == 0
    images = np.load(exported / "images.npy").astype(np.float32)
    given = {"weight_bits": 4, "activation_bits": 4, "calibration_data": images}
    for name, rounding in (("q", "output"), ("b", "nearest")):
        expected = library.quantize_model(exported / "float.keras", rounding=rounding, **given)
        found = library.load_model(exported / f"{name}.keras")
        for one, other in zip(found.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("target", ["coral", "micro", "litert-packed"])
def test_a_file_for_a_target_is_its_models(target, exported, capsys):
    """Whatever the target adds to the file, and with an output that an activation was split off."""
    logits = tf_keras.models.load_model(exported / "float.keras")
    model = tf_keras.Model(logits.input, layers.Activation("softmax", name="last")(logits.output))
    model.save(exported / "softmax.keras")
    assert satkeras(exported, "quantize", "@softmax.keras", "@s.keras", "--data=@images.npy", "--bits=2") == 0
    assert satkeras(exported, "export", "@s.keras", "@s.tflite", f"--target={target}") == 0
    capsys.readouterr()
    verify = ("verify", "@s.tflite", "@s.keras", "--data=@images.npy", "--json")
    assert satkeras(exported, *verify, f"--target={target}") == 0
    assert printed(capsys)["differing"] == 0
    if target == "coral":
        assert satkeras(exported, *verify) == 1
        assert "The file was not made of this model, for this --target" in capsys.readouterr().err


def test_inspect_wraps_no_pixels(exported, capsys):
    assert satkeras(exported, "export", "@q.keras", "@int8.tflite", "--target=micro") == 0
    assert satkeras(exported, "inspect", "@int8.tflite", "--data=@images.npy") == 2
    assert "int8 holds -128 .. 127" in capsys.readouterr().err


def test_another_models_file_is_not(exported, capsys):
    other = tf_keras.models.load_model(exported / "float.keras")
    other.set_weights([-weight for weight in other.get_weights()])
    other.save(exported / "other.keras")
    assert satkeras(exported, "quantize", "@other.keras", "@other_q.keras", "--data=@images.npy") == 0
    capsys.readouterr()
    assert satkeras(exported, "verify", "@m.tflite", "@other_q.keras", "--data=@images.npy", "--json") == 1
    assert printed(capsys)["differing"] > 0


def test_inspect_lists_operators_and_the_integers_they_use(exported, capsys):
    assert satkeras(exported, "inspect", "@m.tflite", "--data=@images.npy", "--json") == 0
    rows = printed(capsys)
    assert [row["operator"] for row in rows] == [
        *("QUANTIZE", "CONV_2D", "CONV_2D", "RESHAPE", "FULLY_CONNECTED", "QUANTIZE")
    ]
    assert -128 <= rows[1]["lowest"] <= rows[1]["highest"] <= 127
    assert rows[-1]["output"] == "dense"
    assert satkeras(exported, "inspect", "@m.tflite") == 0
    assert "CONV_2D" in capsys.readouterr().out


def test_check_says_what_a_target_takes(exported, capsys):
    assert satkeras(exported, "check", "@m.tflite", "--target=coral", "--json") == 0
    assert printed(capsys)["problems"] == []
    assert satkeras(exported, "check", "@m.tflite", "--target=moon") == 2
    assert "one of android, coral" in capsys.readouterr().err


def test_the_other_commands(exported, capsys):
    assert satkeras(exported, "summary", "@q.keras", "--json") == 0
    assert [row["kind"] for row in printed(capsys)["layers"]] == ["Conv2D", "Conv2D", "Dense"]
    assert satkeras(exported, "targets", "--json") == 0
    assert set(printed(capsys)) == set(tflite_export.TARGETS)
    assert satkeras(exported, "benchmark", "@m.tflite", "--runs=3", "--json") == 0
    assert printed(capsys)["runs"] == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("inspect", "@float.keras"), 1, "The file cannot be read"),
        (("inspect", "@nothing.tflite"), 2, "No such file"),
        (("export", "@float.keras", "@n.tflite"), 2, "satkeras.quantize_model"),
        (("quantize", "@float.keras", "@n.keras", "--data=@labels.txt"), 2, "--data must be a .npy or .npz file"),
        (("quantize", "@float.keras", "@n.keras", "--data=@images.npy", "--bits=9"), 2, "works with 2 to 8 bits"),
    ],
    ids=str,
)
def test_a_wrong_use_is_one_message(arguments, status, message, folder, capsys):
    assert satkeras(folder, *arguments) == status
    printed = capsys.readouterr().err
    assert printed.startswith(f"satkeras {arguments[0]}: ")
    assert message in printed
    assert not (folder / "n.tflite").exists()
    assert not (folder / "n.keras").exists()


def test_images_of_a_folder(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    for name, image in zip("bac", images, strict=True):
        (tmp_path / f"{name}.png").write_bytes(tf.io.encode_png(image).numpy())
    np.testing.assert_array_equal(read_data(str(tmp_path)), images[[1, 0, 2]])
    (tmp_path / "d.png").write_bytes(tf.io.encode_png(images[0, :2]).numpy())
    with pytest.raises(ValueError, match=r"must have one size.*\(2, 5, 3\)"):
        read_data(str(tmp_path))


def test_help_needs_no_tensorflow():
    script = "import sys; from tflite_export.__main__ import parser as p; p().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "tflite_export.__main__" in loaded
    assert "tensorflow" not in loaded


def test_no_public_name_is_a_modules():
    """A module that is imported under a name would take the place of what is public under it."""
    modules = {module.name for module in pkgutil.iter_modules(tflite_export.__path__)}
    assert not modules & set(tflite_export.__all__)
    assert set(tflite_export.__all__) == set(tflite_export._MODULES)
