"""Trains one network with SAT here and in Aidge, from the same float weights, and writes how they compare.

    python -m benchmarks.judges.install aidge
    python -m benchmarks.papers.aidge --data_dir=DIR [--images=1024 --epochs=3 --seed=0]

Both train by the paper's two stages, on the same batches, some steps each in turn. A result is in
`docs/results/papers/aidge.json` when it is whole; one that is there is not measured again.
"""

import dataclasses
import statistics

import numpy as np
import tf_keras as keras
from absl import app, flags

import satkeras
from benchmarks import results
from benchmarks.papers.aidge import page
from benchmarks.papers.aidge.network import residual_network
from benchmarks.papers.aidge.trainers import Aidge, Keras
from benchmarks.papers.command import load
from benchmarks.papers.epochs import Accuracy
from benchmarks.papers.files import measure

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "papers/aidge"
BATCH_SIZE, STEPS_IN_A_TURN = 32, 8
FLOAT_EPOCHS = 10
CALIBRATION_IMAGES = 512
OURS, RESCALED = "satkeras", "satkeras, not calibrated"
WAYS = ("onnx", "float32", "int8", "integers", "floats")
# As in Aidge every weight has 4 bits, the first and last layer's too; the image keeps its 8.
FOUR_BITS = {"*": {"weight_bits": 4}, "logits": {"weight_bits": 4, "activation_bits": 4}}


def turns(train: tuple[np.ndarray, np.ndarray], epochs: int, seed: int):
    """The batches of all epochs by turns, shuffled anew in each epoch: images and labels (steps, batch, ...)."""
    images, labels = train
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(images))
        steps = order[: len(order) // BATCH_SIZE * BATCH_SIZE].reshape(-1, BATCH_SIZE)
        for start in range(0, len(steps), STEPS_IN_A_TURN):
            chosen = steps[start : start + STEPS_IN_A_TURN]
            yield images[chosen], labels[chosen]


def train_in_turns(trainers: dict, train, epochs: int, seed: int) -> dict:
    """Of each trainer the mean loss of its first and last turn, and the fastest and median step's seconds."""
    found = {name: [] for name in trainers}
    for images, labels in turns(train, epochs, seed):
        for name, trainer in trainers.items():
            found[name].append(trainer.train(images, labels))
    return {name: _summary(answers) for name, answers in found.items()}


def _summary(answers: list[dict]) -> dict:
    losses = [statistics.mean(answer["loss"]) for answer in answers]
    summary: dict[str, object] = {"loss": [losses[0], losses[-1]]}
    for kind in ("seconds", "processor_seconds"):
        steps = [value for answer in answers for value in answer[kind]]
        summary[kind] = {"fastest": min(steps), "median": statistics.median(steps)}
    return summary


def clamped(model: keras.Model, images: np.ndarray | None) -> keras.Model:
    """The model of SAT's first stage: with images it starts from what the float network computes."""
    calibration = None if images is None else images[:CALIBRATION_IMAGES].astype(np.float32)
    return satkeras.quantize_model(
        model, "sat", weight_bits=None, activation_bits=None, calibration_data=calibration, verbose=0
    )


def quantized(model: keras.Model, images: np.ndarray) -> keras.Model:
    """The W4A4 model of SAT's second stage."""
    calibration = images[:CALIBRATION_IMAGES].astype(np.float32)
    return satkeras.quantize_model(model, "sat", overrides=FOUR_BITS, calibration_data=calibration, verbose=0)


def compare(data, epochs: int, rate: float, seed: int) -> dict:
    """Everything that is measured of one seed."""
    images = data.train[0]
    steps = epochs * (len(images) // BATCH_SIZE)
    test = tuple(values[: FLAGS.test_images // BATCH_SIZE * BATCH_SIZE] for values in data.test)
    keras.utils.set_random_seed(seed)
    model = residual_network(data.classes)
    before = Keras(model, rate, FLOAT_EPOCHS * (len(images) // BATCH_SIZE))
    train_in_turns({"Keras": before}, data.train, FLOAT_EPOCHS, seed)
    found = {"images": len(images), "test_images": len(test[0]), "epochs": epochs, "learning_rate": rate, "seed": seed}
    found |= results.environment() | {"float": Accuracy(model, test)(), "stages": {}}
    with Aidge(model) as aidge:
        batches = test[0].reshape(-1, BATCH_SIZE, *test[0].shape[1:])
        difference = aidge.logits(batches[:1])[0] - model.predict(batches[0], verbose=0)
        found["logits_differ"] = float(np.abs(difference).max())
        ours = {OURS: clamped(model, images), RESCALED: clamped(model, None)}
        aidge.ask("clamp")
        for stage in ("clamped", "W4A4"):
            if stage == "W4A4":
                ours = {name: quantized(trained, images) for name, trained in ours.items()}
                aidge.ask("quantize", bits=4)
            aidge.ask("start", learning_rate=rate, steps=steps)
            trainers = {"Aidge": aidge} | {name: Keras(trained, rate, steps) for name, trained in ours.items()}
            found["stages"][stage] = train_in_turns(trainers, data.train, epochs, seed)
            answers = aidge.logits(batches).argmax(-1).ravel()
            found["stages"][stage]["Aidge"]["accuracy"] = float(np.mean(answers == test[1]))
            for name, trained in ours.items():
                found["stages"][stage][name]["accuracy"] = Accuracy(trained, test, BATCH_SIZE)()
            print(stage, found["stages"][stage], flush=True)
        found["aidge_graph"] = aidge.ask("weights")
        found["aidge_exports"] = {way: aidge.ask("export", way=way) for way in WAYS}
    for name, trained in ours.items():
        found["stages"]["W4A4"][name]["file"] = measure(trained, test, len(test[0]))
    directly = quantized(model, images)
    train_in_turns({"satkeras": Keras(directly, rate, 2 * steps)}, data.train, 2 * epochs, seed)
    return found | {"directly": measure(directly, test, len(test[0]))}


def transforms(data, seed: int) -> dict:
    """What Aidge's step from training to integers makes of both kinds of weights, after some steps of W4A4."""
    keras.utils.set_random_seed(seed)
    model = residual_network(data.classes)
    images, labels = next(turns(data.train, 1, seed))
    found = {}
    for mode in ("Default", "Symmetric"):
        with Aidge(model) as aidge:
            aidge.ask("clamp")
            aidge.ask("quantize", bits=4, mode=mode)
            aidge.ask("start", learning_rate=0.01, steps=10**6)
            aidge.train(images, labels)
            trained, levels = aidge.logits(images), aidge.ask("weights")["levels"]
            integers = aidge.ask("transform")
            after = aidge.logits(images)
            found[mode] = {
                "levels_trained": max(levels),
                "integers": sorted(set().union(*map(set, integers.values()))),
                "logits": float(np.abs(trained).max()),
                "logits_differ": float(np.abs(trained - after).max()),
                "same_answers": float(np.mean(trained.argmax(-1) == after.argmax(-1))),
                "images": trained[..., 0].size,
                "exports": {way: aidge.ask("export", way=way) for way in (*WAYS[:3], "int8, quantized already")},
            }
            print(mode, found[mode], flush=True)
    return found


def main(argv) -> None:
    """Measures one seed, unless it is measured, and writes the page."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    found = results.read(RESULTS.with_suffix(".json")) or {}
    key = f"{FLAGS.images} images, {FLAGS.epochs} epochs, seed {FLAGS.seed}"
    data = load("cifar10", FLAGS.data_dir)
    data = dataclasses.replace(data, train=tuple(values[: FLAGS.images] for values in data.train))
    if key not in found:
        found[key] = compare(data, FLAGS.epochs, FLAGS.learning_rate, FLAGS.seed)
        results.write(RESULTS.with_suffix(".json"), found)
    if "transforms" not in found[key]:
        found[key]["transforms"] = transforms(data, FLAGS.seed)
    results.publish(RESULTS, found, page.text(found))
    print(page.text(found))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where CIFAR-10 is.", required=True)
    flags.DEFINE_integer("images", 1024, "How many training images.", BATCH_SIZE)
    flags.DEFINE_integer("test_images", 1000, "How many test images.", BATCH_SIZE)
    flags.DEFINE_integer("epochs", 3, "Of each of the two stages.", 1)
    flags.DEFINE_float("learning_rate", 0.01, "At the first step of a stage.")
    flags.DEFINE_integer("seed", 0, "Of weights and shuffling.")
    app.run(main)
