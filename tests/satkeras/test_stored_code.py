"""`load_model` runs no code from a file of any format, unless it is told to."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.stored_code import require_no_code

FORMATS = ["model.keras", "model.h5", "saved_model"]


@pytest.fixture(scope="module")
def model():
    inputs = tf_keras.Input((6, 6, 1))
    return satkeras.quantize_model(tf_keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs))))


@pytest.fixture(scope="module")
def with_lambda(model):
    return tf_keras.Model(model.input, layers.Lambda(lambda x: x + 1)(model.output))


@pytest.mark.parametrize("name", FORMATS)
def test_code_in_a_lambda_is_refused_with_the_way_out(name, with_lambda, tmp_path):
    with_lambda.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"holds a Lambda. If you trust .*load_model\(path, safe_mode=False\)"):
        satkeras.load_model(tmp_path / name)


def test_with_safe_mode_off_it_is_run(model, tmp_path):
    tf_keras.Model(model.input, layers.Lambda(lambda x: x + 1)(model.output)).save(tmp_path / "model.h5")
    x = np.ones((1, 6, 6, 1), np.float32)
    loaded = satkeras.load_model(tmp_path / "model.h5", safe_mode=False)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0) + 1)


@pytest.mark.parametrize("name", FORMATS)
def test_a_trained_model_without_code_is_loaded(name, model, tmp_path):
    model.compile(tf_keras.optimizers.Adam(), tf_keras.losses.MeanSquaredError(), metrics=["mae"])
    model.fit(np.ones((2, 6, 6, 1)), np.ones((2, 2)), verbose=0)
    model.save(tmp_path / name)
    x = np.full((1, 6, 6, 1), 7.0, np.float32)
    np.testing.assert_array_equal(satkeras.load_model(tmp_path / name)(x), model(x))


@pytest.mark.parametrize(
    "entry",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"},
        {"module": "no_such_module", "class_name": "Layer", "config": {}, "registered_name": None},
        {"module": "subprocess", "class_name": "Popen", "config": {}, "registered_name": "keras>Dense2"},
    ],
)
def test_a_config_that_names_foreign_code_is_refused(entry, model, tmp_path):
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "model.h5")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    config["config"]["layers"].append(entry)
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name, data in {**content, "config.json": json.dumps(config)}.items():
            archive.writestr(name, data)
    with h5py.File(tmp_path / "model.h5", "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"].append(entry)
        file.attrs["model_config"] = json.dumps(config)
    for name in ("model.keras", "model.h5"):
        with pytest.raises(ValueError, match=f"of the module '{entry['module']}'"):
            require_no_code(tmp_path / name)
