"""A row of a table: one way to train a network, as a value, and what runs it."""

import dataclasses
import math
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf
import tf_keras as keras

import satkeras
from benchmarks import optimizers, results
from benchmarks.papers import epochs
from examples import datasets
from satkeras.formulas.distillation import soft_cross_entropy
from satkeras.training.callbacks import TemperaturePerEpoch

CALIBRATION_IMAGES = 512
EVALUATED_EVERY = 5
# Of Quantization Networks' sigmoids, at the end of each phase: 5 in each of 60 epochs, as for the paper's ResNets.
HIGHEST_TEMPERATURE = 300.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to train a network.

    Attributes:
      scheme: None: the float network.
      bits: of weights and activations; (None, None) is SAT's clamped first stage.
      calibrated: whether the quantized model starts with the scales, clips and statistics of training images; otherwise
        it starts as the scheme's paper has it.
      after: the row whose weights it starts from; None: from scratch.
      teacher: the row whose softened answers it learns beside the labels.
      temperature: of the softening.
      stages: how long it trains, in stages of the table's epochs.
      learning_rate: at its first step, over that of the table.
      network: of the table's networks, where it is not the first.
      phases: of Quantization Networks, as `satkeras.set_phase` takes them, each an equal part of the epochs.
      plain: trains by Keras's own `compile` and `fit`, not by compiled epochs.
      overrides: widths of layers of their own, as `quantize_model` takes them.
      optimizer: from the model, the learning rate, the number of steps and the weight decay to what trains it.
    """

    scheme: str | satkeras.Scheme | None = None
    bits: tuple[int | str | None, int | None] = (None, None)
    calibrated: bool = True
    after: str | None = None
    teacher: str | None = None
    temperature: float = 4.0
    stages: float = 1.0
    learning_rate: float = 1.0
    network: str | None = None
    phases: tuple[str, ...] = ()
    plain: bool = False
    overrides: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)
    optimizer: Callable[..., keras.optimizers.Optimizer] = optimizers.sgd


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows that train one network on one data set.

    Attributes:
      title: of its page.
      claim: what the page says before the table: the claim and the targets.
      dataset: of `examples.datasets`.
      networks: by name, from the number of classes to a float network; the first is the table's own.
      rows: by name.
      epochs: of a stage, in full.
      learning_rate: at the first step; the cosine ends at 0 after each row's last.
      weight_decay: of all that `satkeras.undecayed_variables` does not name.
      batch_size: of a step.
      findings: what the page says of the results, in words.
    """

    title: str
    claim: str
    dataset: str
    networks: Mapping[str, Callable[[int], keras.Model]]
    rows: Mapping[str, Row]
    epochs: int
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    batch_size: int = 128
    findings: str = ""


# What `Place.result` names a file.
_RUN = re.compile(r"_(\d+)_epochs(?:_of_(\d+)_images)?(?:_after_(\d+))?_seed_\d+\.json$")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a row's results are.

    Attributes:
      results: folder of the JSON files, one for each row and seed.
      weights: folder of the weights.
      epochs: of a stage; less than the table's in a run in small.
      images: how many training images an epoch has, if not all.
      after: the epochs of the run, on all images, whose weights its rows start from and learn from; None: its own.
    """

    results: pathlib.Path
    weights: pathlib.Path
    epochs: int
    images: int | None = None
    after: int | None = None

    @property
    def before(self) -> "Place":
        """Where the rows are that a row needs."""
        return dataclasses.replace(self, epochs=self.after, images=None, after=None) if self.after else self

    def result(self, row: str, seed: int | str) -> pathlib.Path:
        small = (f"_of_{self.images}_images" if self.images else "") + (f"_after_{self.after}" if self.after else "")
        name = row.replace(" ", "_").replace(",", "")
        return self.results / f"{name}_{self.epochs}_epochs{small}_seed_{seed}.json"

    def trained(self, row: str, seed: int) -> pathlib.Path:
        return self.weights / self.result(row, seed).with_suffix(".h5").name

    def runs(self) -> list["Place"]:
        """This place for every number of epochs and images that its results are of; the largest run first."""
        names = [path.name for path in self.results.glob("*.json")]
        found = {match.groups() for name in names if (match := _RUN.search(name))}
        runs = [[int(number) if number else None for number in numbers] for numbers in found]
        places = [
            dataclasses.replace(self, epochs=epochs, images=images, after=after) for epochs, images, after in runs
        ]
        return sorted(
            places, key=lambda place: (place.images or math.inf, place.epochs, place.after or 0), reverse=True
        )


def network_of(table: Table, name: str, classes: int) -> keras.Model:
    """The float network of a row, and of those that it starts from."""
    row = table.rows[name]
    if row.after is not None:
        return network_of(table, row.after, classes)
    return table.networks[row.network or next(iter(table.networks))](classes)


def trained_model(table: Table, name: str, place: Place, seed: int, classes: int) -> keras.Model:
    """The model that a row has trained."""
    model = _quantized(table.rows[name], network_of(table, name, classes), None)
    model.load_weights(place.trained(name, seed))
    return model


def model_of(table: Table, name: str, place: Place, seed: int, data: datasets.Images) -> keras.Model:
    """The model that a row trains, as it is before."""
    row = table.rows[name]
    if row.after is None:
        model = network_of(table, name, data.classes)
    else:
        model = trained_model(table, row.after, place.before, seed, data.classes)
    images = data.train[0][:CALIBRATION_IMAGES].astype(np.float32) if row.calibrated else None
    return _quantized(row, model, images)


def _quantized(row: Row, model: keras.Model, images: np.ndarray | None) -> keras.Model:
    if row.scheme is None:
        return model
    weight_bits, activation_bits = row.bits
    return satkeras.quantize_model(
        model,
        row.scheme,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        calibration_data=images,
        overrides=row.overrides,
    )


def train(table: Table, name: str, place: Place, seed: int, data: datasets.Images) -> None:
    """Trains a row, and before it the rows that it needs, unless they are trained; writes results as epochs end."""
    row = table.rows[name]
    if place.trained(name, seed).exists():
        return
    for needed in (row.after, row.teacher):
        if needed is not None:
            start = place.before.trained(needed, seed)
            if place.after and not start.exists():
                raise FileNotFoundError(f"{name} starts from {start}: train that run first")
            train(table, needed, place.before, seed, data)
    print(f"=== {name}, seed {seed}", flush=True)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = model_of(table, name, place, seed, data)
    accuracy = epochs.Accuracy(model, data.test)
    count = round(place.epochs * row.stages)
    result = {"row": name, "seed": seed, "epochs": count, "images": len(data.train[0]), **machine()}
    result |= {"start": None if row.phases else accuracy(), "loss": [], "accuracy": {}, "seconds": []}
    phases = row.phases or (None,)
    for number, phase in enumerate(phases, 1):
        last = round(count * number / len(phases))
        for train_epoch in _epochs(table, row, place, seed, data, model, phase, last - len(result["loss"])):
            begun = time.time()
            result["loss"].append(train_epoch(len(result["loss"])))
            result["seconds"].append(round(time.time() - begun, 2))
            trained = len(result["loss"])
            if trained % EVALUATED_EVERY == 0 or trained == count:
                result["accuracy"][str(trained)] = found = accuracy()
                print(
                    f"{name}, seed {seed}, epoch {trained}: loss {result['loss'][-1]:.3f}, accuracy {found:.2%}",
                    flush=True,
                )
            results.write(place.result(name, seed), result)
    _save(model, place.trained(name, seed))


def _epochs(table, row, place, seed, data, model, phase: str | None, count: int) -> Iterator[Callable[[int], float]]:
    """What trains each epoch of a phase, as it is that epoch's turn: from the epoch's number to the mean loss."""
    heating = None
    if phase is not None:
        if phase == "activations":
            satkeras.set_thresholds(model, data.train[0][:CALIBRATION_IMAGES].astype(np.float32))
        satkeras.set_phase(model, phase)
        heating = TemperaturePerEpoch(HIGHEST_TEMPERATURE / count, HIGHEST_TEMPERATURE)
        heating.set_model(model)
        heating.on_train_begin()
    steps = count * (len(data.train[0]) // table.batch_size)
    optimizer = row.optimizer(model, table.learning_rate * row.learning_rate, steps, table.weight_decay)
    train_epoch = (_by_fit if row.plain else _by_compiled_epochs)(table, row, place, seed, data, model, optimizer)
    for epoch in range(count):
        if heating is not None:
            heating.on_epoch_begin(epoch)
        yield train_epoch


def _save(model: keras.Model, path: pathlib.Path) -> None:
    """Saves weights; a file of that name is a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.h5")
    model.save_weights(unfinished)
    unfinished.replace(path)


def _loss_of(table: Table, row: Row, place: Place, seed: int, data: datasets.Images) -> epochs.Loss:
    if row.teacher is None:
        return epochs.with_labels
    teacher = trained_model(table, row.teacher, place.before, seed, data.classes)

    def taught(images, labels, logits):
        softened = soft_cross_entropy(teacher(images, training=False), logits, row.temperature)
        return (epochs.with_labels(images, labels, logits) + softened) / 2

    return taught


def _by_compiled_epochs(table, row, place, seed, data, model, optimizer) -> Callable[[int], float]:
    loss = _loss_of(table, row, place, seed, data)
    trainer = epochs.CompiledEpochs(model, optimizer, loss, data.train, table.batch_size)
    return lambda epoch: trainer.train(seed, epoch)


def _by_fit(table, row, place, seed, data, model, optimizer) -> Callable[[int], float]:
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return lambda epoch: model.fit(datasets.batches(data, table.batch_size, seed + epoch), verbose=0).history["loss"][0]


def machine() -> dict[str, str]:
    """What a result was measured with, the cards too."""
    cards = [tf.config.experimental.get_device_details(card) for card in tf.config.list_physical_devices("GPU")]
    return results.environment() | {"card": ", ".join(card.get("device_name", "GPU") for card in cards) or "none"}
