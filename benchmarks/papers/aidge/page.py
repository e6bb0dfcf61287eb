"""The page of what `benchmarks.papers.aidge` found."""

from benchmarks import results
from benchmarks.papers.page import differing

COLUMNS = (
    "",
    "network",
    "accuracy",
    "loss, first and last turn",
    "step, median ms",
    "fastest ms",
    "processor ms",
    "accuracy in the file",
    "differ",
)
INTRODUCTION = """\
`python -m benchmarks.papers.aidge`: CEA's Aidge 0.10.1 (PyPI: its core, CPU backend, learning and quantization) and
satkeras train one network on CIFAR-10 on one machine, from the same float weights, on the same batches of 32 without
augmentation, by SGD with momentum 0.9, the learning rate along a cosine in each stage, eight steps each in turn. All
by SAT's two stages: clamped weights, then W4A4 with all weights at 4 bits, first and last layer's too, and 8-bit
images. satkeras as it is meant for pretrained weights, with `calibration_data` in both stages; *not calibrated*:
without in the first, rescaled as from scratch; *from float*: W4A4 at once, in as many epochs as both stages. In small,
by one seed: it says what runs, and what a step costs, more than which is the more accurate.

**Found**: after 3 + 3 epochs on 1,024 images Aidge's accuracy is the higher one, 34.6 % against 27.9 % in two stages
and 30.1 % from float (992 images: 1.5 points are a standard deviation). The float network has learnt its few images
by heart (55.7 % of them, 29.9 % of the test images), and satkeras starts from what it computes: a fifth of the learning
rate left 29.8 %. Aidge's rescale changes the network, which learns anew: a likely reason, not a proven one. The target,
accuracy at least Aidge's, is not met in small; more images and seeds are to be run. A training step of Aidge takes
some twenty times as long; satkeras's file computes what was trained, of Aidge's network no file was had.

**The network** has ResNet-8's three residual blocks, but half its channels, a stem of stride 2, and neither batch norm
nor average pooling: training those ends in `Backward not yet implemented for BatchNorm_Op<2> on backend cpu`, and the
same for `AvgPooling_Op<2>`, `GlobalAveragePooling_Op` and `ReduceMean_Op`. Without batch norm Aidge puts `ScaleAdjust`
behind every weight, and satkeras SAT's rescale. They are not the same: the paper's deviation is 1 / √n_out, satkeras's
too; Aidge's was found to be 1 / √n_in (27 for a stem of 3x3x3, 512 for the last layer), which here, where no batch norm
makes up for it, keeps the size of signals that n_out lets vanish. The paper's formula is for networks with batch norm.

**Aidge's recipe** is its documentation's: `sat.insert_sat_nodes`, training, `sat.insert_param_quantizers(4)` and
`sat.insert_activ_quantizers(4)` with their defaults (clip values from 1), training. Its default weights are DoReFa's 16
levels without zero. CG-PACT stands before convolutions and dense layers alone: what a shortcut adds is float.

**Float training is the same**: the logits of a first batch differ by what stands below, and in a test four steps from
the same weights leave logits within 1e-4."""
EXPORTS = {
    "floats": "`sat.post_training_transform(graph, true_integers=False)`",
    "integers": "`sat.post_training_transform(graph, true_integers=True)`",
    "float32": "`export_utils.export`, C++ of float32",
    "int8": "`export_utils.export`, C++ of int8",
    "onnx": "`aidge_onnx.export_onnx`",
}
TRIED = """\
`sat.post_training_transform` is the step from training to integers; it fails on this network, and on ones without
shortcuts, with biases, without padding or without `ScaleAdjust`, in both DoReFa modes, with the clip values or the
whole graph in float64. (Training itself in float64 ends at the second step: `missing or invalid registrar key`, a `Mul`
of float64 by float32.) It seems to fail where it fuses multipliers into quantizers: with batch norms that change
nothing between them (`aidge_learning.insert_batchnorm_nodes`) `true_integers=False` works, and after `set_datatype`
back to float32 the graph runs: integers held in floats. After eight steps of W4A4 (`transforms` in the JSON):"""
TRANSFORMED = """\
The mode `Default` trains 16 levels, but the transform rounds its weights to the other mode's grid, as it warns ("only
symmetric mode of DoReFa allows for exact quantization"): other weights than were trained. `Symmetric` trains what the
file then has, up to rounding, but its "4 bits" are -15 .. 15, 31 levels, which take 5. Exporting the transformed
graphs was tried too, C++ also with `model_prequantized=True`, with names of their own for all nodes, and after
`remove_flatten`; what it says stands below. So no exported program was had, and none could be run. Not tried: the CUDA
backend, which may train batch norms."""


def text(found: dict) -> str:
    """The page of the results of all runs, in Markdown."""
    rows, notes = [], []
    for run in found.values():
        size = f"{run['images']:,} images, {run['epochs']} + {run['epochs']} epochs"
        rows.append((size, "float", _percent(run["float"]), *[""] * 6))
        for stage, trained in run["stages"].items():
            for name, measured in trained.items():
                rows.append((name, stage, *_trained(measured), *_of_file(measured.get("file"))))
        directly = run["directly"]
        rows.append(
            ("satkeras", "W4A4 from float", _percent(directly["keras_accuracy"]), *[""] * 4, *_of_file(directly))
        )
        notes.append(_note(size, run))
    last = list(found.values())[-1]
    exports = "\n".join(f"- {title}: `{last['aidge_exports'][way]}`" for way, title in EXPORTS.items())
    after = TRIED, _transformed(last["transforms"]), TRANSFORMED, _exports_after(last["transforms"]["Symmetric"])
    return results.page(
        "SAT here and in Aidge",
        "\n\n".join(
            (INTRODUCTION, *notes, f"**What Aidge exports** of the trained W4A4 network:\n\n{exports}", *after)
        ),
        COLUMNS,
        rows,
    )


def _note(size: str, run: dict) -> str:
    ratios = []
    for stage, trained in run["stages"].items():
        aidge, ours = trained["Aidge"], trained["satkeras"]
        wall, fastest, processor = (
            aidge[kind][which] / ours[kind][which]
            for kind, which in (("seconds", "median"), ("seconds", "fastest"), ("processor_seconds", "median"))
        )
        ratios.append(f"{stage} {wall:.0f} (fastest {fastest:.0f}, processor {processor:.1f})")
    return (
        f"**{size}**, seed {run['seed']}, learning rate {run['learning_rate']:g}, accuracy on {run['test_images']:,} "
        f"test images; {run['machine']}, TensorFlow {run['tensorflow']}, shared with other work: a step waits for the "
        "processor, whose own seconds, of all threads, stand beside. Aidge's median step over satkeras's: "
        f"{'; '.join(ratios)}. First float logits differ by {run['logits_differ']:.1e}. Levels of Aidge's weights, "
        f"layer by layer: {', '.join(map(str, run['aidge_graph']['levels']))}."
    )


def _transformed(transforms: dict) -> str:
    return "\n".join(
        f"- `DoReFaMode.{mode}`: {run['levels_trained']} levels trained, {len(run['integers'])} integers from "
        f"{min(run['integers']):.0f} to {max(run['integers']):.0f} after it; logits of up to {run['logits']:.2f} "
        f"differ by up to {run['logits_differ']:.1e}; of {run['images']} answers {_percent(run['same_answers'])} are "
        "the same."
        for mode, run in transforms.items()
    )


def _exports_after(run: dict) -> str:
    return "\n".join(f"- {way}, of the transformed graph: `{said}`" for way, said in run["exports"].items())


def _trained(trained: dict) -> tuple[str, ...]:
    seconds = trained["seconds"]["median"], trained["seconds"]["fastest"], trained["processor_seconds"]["median"]
    losses = ", ".join(f"{loss:.2f}" for loss in trained["loss"])
    return _percent(trained["accuracy"]), losses, *(f"{1e3 * value:.0f}" for value in seconds)


def _of_file(file: dict | None) -> tuple[str, str]:
    if file is None:
        return "", ""
    return _percent(file["accuracy"]), differing([file])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
