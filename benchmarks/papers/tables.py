"""The tables: which claim, which network, which rows."""

import dataclasses
from collections.abc import Callable

import tf_keras as keras

import satkeras
from benchmarks.papers.rows import Row, Table
from examples import architectures, gated_architectures
from satkeras.quantizers import DoReFaWeightQuantizer, SATWeightQuantizer

SAT = satkeras.SCHEMES["sat"]


def _rescaled(**options) -> satkeras.Scheme:
    return dataclasses.replace(SAT, lone_weights=SATWeightQuantizer(**options))


WITHOUT_RESCALE = dataclasses.replace(SAT, lone_weights=DoReFaWeightQuantizer())
CENTRED = dataclasses.replace(
    SAT, weights=DoReFaWeightQuantizer(grid="centred"), lone_weights=SATWeightQuantizer(grid="centred")
)
CIFAR = {"small_images": True, "batch_norm_momentum": 0.9}

SAT_ROWS = {
    "float": Row(),
    "float, trained as long": Row(after="float"),
    "PACT W4A4": Row("pact", (4, 4), after="float"),
    "LSQ W4A4": Row("lsq", (4, 4), after="float"),
    "LSQ W4A4, a tenth of the learning rate": Row("lsq", (4, 4), after="float", learning_rate=0.1),
    "SAT W4A4": Row("sat", (4, 4), after="float"),
    "SAT W8A8": Row("sat", (8, 8), after="float"),
    "SAT W4A4, without the rescale": Row(WITHOUT_RESCALE, (4, 4), after="float"),
    "SAT W4A4, rescaled by the rules": Row(_rescaled(keep_scale=False), (4, 4), after="float"),
    "SAT W4A4, rescaled as printed": Row(_rescaled(rescale="constant", keep_scale=False), (4, 4), after="float"),
    "SAT clamped": Row("sat", calibrated=False),
    "SAT clamped, rescaled as printed": Row(_rescaled(rescale="constant"), calibrated=False),
    "SAT W4A4, two stages": Row("sat", (4, 4), after="SAT clamped"),
    "SAT W8A8, two stages": Row("sat", (8, 8), after="SAT clamped"),
    "ResNet-18": Row(network="resnet18"),
    "SAT W4A4, taught by a ResNet-18": Row("sat", (4, 4), after="float", teacher="ResNet-18"),
}
SAT_TARGETS = (
    "Targets: SAT W4A4 at least the float network *trained as long*, and above PACT and LSQ beyond their deviations; "
    "at least 71.7 % (published, after 200 epochs: float 71.30, PACT 64.06, LSQ 69.01, with a teacher 71.66); the "
    "paper's two stages within 0.5 points of it; the clamped first stage within 0.5 points of float at its end."
)


def _cifar100(name: str, network, findings: str) -> Table:
    networks = {name: lambda classes: network((32, 32, 3), classes, **CIFAR)}
    networks["resnet18"] = lambda classes: architectures.resnet18((32, 32, 3), classes, **CIFAR)
    return Table(f"SAT on CIFAR-100: {name}", SAT_TARGETS, "cifar100", networks, SAT_ROWS, epochs=45, findings=findings)


V2_FINDINGS = """\
Found so far, by one seed, so that differences below a point say little: SAT W4A4 is a point above the float network
that it comes from, and half a point below the float network trained as long; PACT and LSQ by the same recipe come
as far. The clamped first stage, which with the rescale as printed stayed at 60.1 %, trains like float by the rules:
0.8 points below at its end (target 0.5), and W4A4 from it 0.6 below W4A4 from float (64.7 % as printed). The run in
small is a restart at the full learning rate, as MobileNetV1's. Not run yet: the other seeds, W8A8 in full, the rows
without the rescale and with the other one (the float network's weights were not kept), the teacher in more than the
ten steps of the last table, which say that such a row trains, and nothing of what it is worth."""
V1_FINDINGS = """\
Found so far, by one or two seeds: here the paper's two stages are the best recipe by far, 2.5 points above the
float network trained as long and above SAT, PACT and LSQ from float; the clamped stage alone is 2.1 above float.
SAT W4A4 from float equals the float network trained as long (two seeds), a point above PACT and LSQ. Not run yet:
the third seed, in full W8A8 and the rows without the rescale and with the other one, the teacher.

In small all rows start from the weights of the run in full and train for two epochs on a fifth of the images at the
full learning rate, which costs the float network five points. How well a row bears that depends on the last layer.
Held at the deviation that it ended with in float, as SAT's default does for a pretrained network, it loses most, 7.0
points at W4A4 and 8.3 at W8A8; without the rescale 2.3; by the paper's rules, with a sixth of the deviation, it gains
2.2 and ends 2.9 above the float network. From SAT's own first stage W4A4 loses 0.7. Whether that lasts for 45 epochs,
where the default equals float, was not measured."""
RESNET20_FINDINGS = """\
Found so far, by one seed: 60 epochs from a float network of 90.4 % do not reach the targets, which are from 92.9 %
in float; W4A4 is 0.2 points above its float network. In small, where 5 epochs follow the float network's ten and
everything still gains from longer training, SAT and PACT do the same, LSQ 0.2 to 1.3 points less, and a teacher of
68 % costs one to two. Not run in full yet: three bits, PACT, LSQ, the centred grid, the other seeds."""

QUANTIZATION_NETWORKS_FINDINGS = """\
In small so far, by one seed on a CPU: 10,000 images, ten epochs in float and ten more of each row, so that a quantized
network has trained as long again. Float and ternary A8 were trained anew for their files, float to 66.9 %;
all others start from one of 68.2 %, from which ternary A8 had come to 68.4. Ternary weights alone are above their
float network by 0.3 and 1.3 points (target: 0.5 below at most), W(±4) with 2-bit activations is 2.2 below (target: 1.0
at most); of the 2-bit rows each phase, weights, activations, both, has three or four epochs. No integer of ternary A8's
file differs on 1,000 images, and its accuracy is Keras's but for 0.05 points. Not run in full."""


def _resnet20(classes: int) -> keras.Model:
    return architectures.resnet20((32, 32, 3), classes, batch_norm_momentum=0.9)


def _resnet20_rows() -> dict[str, Row]:
    rows = {"float": Row(stages=2)}
    for scheme, title in (("sat", "SAT"), ("pact", "PACT"), ("lsq", "LSQ")):
        for bits in (4, 3, 2):
            rows[f"{title} W{bits}A{bits}"] = Row(scheme, (bits, bits), after="float")
    for bits in (4, 3, 2):
        rows[f"SAT W{bits}A{bits}, taught by float"] = Row("sat", (bits, bits), after="float", teacher="float")
        rows[f"SAT W{bits}A{bits}, transition rate"] = Row(
            "sat", (bits, bits), after="float", optimizer=_transition_rate(bits)
        )
        rows[f"SAT W{bits}A{bits}, centred, taught by float"] = Row(
            CENTRED, (bits, bits), after="float", teacher="float"
        )
    rows["SAT W4A4, by compile and fit"] = Row("sat", (4, 4), after="float", plain=True)
    return rows


def _transition_rate(bits: int) -> Callable[..., keras.optimizers.Optimizer]:
    """The target of transition-rate scheduling: 0.005 sqrt(bits), falling with the learning rate."""

    def make(model: keras.Model, learning_rate: float, steps: int, weight_decay: float):
        cosine = keras.optimizers.schedules.CosineDecay
        optimizer = satkeras.TransitionRateSGD(
            cosine(learning_rate, steps),
            cosine(0.005 * bits**0.5, steps),
            momentum=0.9,
            nesterov=True,
            weight_decay=weight_decay,
        )
        optimizer.exclude_from_weight_decay(var_list=satkeras.undecayed_variables(model))
        return optimizer

    return make


def _quantization_networks_rows() -> dict[str, Row]:
    rows = {"float": Row(stages=2)}
    for levels, title in (("ternary", "ternary"), ("3bit+-2", "W(±2)"), ("3bit+-4", "W(±4)")):
        for bits, phases in ((8, ("weights",)), (2, ("weights", "activations", "both"))):
            rows[f"{title} A{bits}"] = Row(
                "qn", (levels, bits), after="float", learning_rate=0.1, phases=phases, stages=2
            )
    return rows


DEPTHWISE_AT_8_BITS = {"*depthwise": {"weight_bits": 8, "activation_bits": 8}}
GATED_FINDINGS = """\
In small so far, by one seed on a CPU: 10,000 images, ten epochs and ten more of each row. Beside the float network
trained as long, W8A8 is 0.2 points above and 0.3 below (target met), W4A4 2.0 and 3.5 below (target: 1.5 at most),
both above the float network that they come from, by 3.5 and 2.0; before training W4A4 keeps 58.5 of 64.9 and 61.0 of
67.8 %. Depthwise layers, which have a tenth of the weights, lose most at 4 bits: with these at 8, W4A4 is 1.0 and 2.1
below, and before training 62.0 and 64.2 %. The converter's files of the float networks trained as long lose 0.3. No
integer differs on 1,000 images; of 10,000 answers of MobileNetV3's file at W4A4 0.3 points more are right than Keras's
(target: 0.1 apart at most)."""


def _gated_rows() -> dict[str, Row]:
    rows = {}
    for name in ("MobileNetV3", "EfficientNet"):
        rows[name] = Row(network=name)
        rows[f"{name}, trained as long"] = Row(after=name)
        for bits in (8, 4):
            rows[f"{name} W{bits}A{bits}"] = Row("sat", (bits, bits), after=name)
        rows[f"{name} W4A4, depthwise at 8 bits"] = Row("sat", (4, 4), after=name, overrides=DEPTHWISE_AT_8_BITS)
    return rows


TABLES = {
    "mobilenet_v2": _cifar100("MobileNetV2", architectures.mobilenet_v2, V2_FINDINGS),
    "mobilenet_v1": _cifar100("MobileNetV1", architectures.mobilenet_v1, V1_FINDINGS),
    "resnet20": Table(
        "ResNet-20 on CIFAR-10 at 4, 3 and 2 bits",
        "Targets: 92.4, 92.4 and 91.1 % (APoT, 300 epochs: 92.45, 92.49 and 90.96).",
        "cifar10",
        {"ResNet-20": _resnet20},
        _resnet20_rows(),
        epochs=60,
        weight_decay=1e-4,
        findings=RESNET20_FINDINGS,
    ),
    "quantization_networks": Table(
        "Quantization Networks: ResNet-20 on CIFAR-10",
        "Targets: W(±4) with 2-bit activations at least float - 1.0, ternary weights alone at least float - 0.5.",
        "cifar10",
        {"ResNet-20": _resnet20},
        _quantization_networks_rows(),
        epochs=60,
        weight_decay=1e-4,
        findings=QUANTIZATION_NETWORKS_FINDINGS,
    ),
    "gated": Table(
        "Gates and smooth activations: networks like MobileNetV3 and EfficientNet on CIFAR-10",
        "120,000 weights each (`examples.gated_architectures`). Targets: W8A8 at least float - 0.3, W4A4 at least "
        "float - 1.5.",
        "cifar10",
        {
            "MobileNetV3": lambda classes: gated_architectures.small_mobilenet_v3((32, 32, 3), classes, 0.9),
            "EfficientNet": lambda classes: gated_architectures.small_efficientnet((32, 32, 3), classes, 0.9),
        },
        _gated_rows(),
        epochs=60,
        weight_decay=1e-4,
        findings=GATED_FINDINGS,
    ),
}
