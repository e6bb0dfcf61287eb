"""The page of `benchmarks.portability`: who computes the same integers, and what that costs."""

from benchmarks import judges, results

RESULTS = results.FOLDER / "portability"
# On how many images each is asked.
JUDGES = {"tensorflow": 500, "tensorflow_reference": 500, "tflite_runtime": 500, "tflm": 50, "tosa": 10}
# LiteRT's kernels on one core, its default ones on all.
ARM = dict.fromkeys(("arm", "arm_builtin", "arm_reference", "arm_a53", "arm_x2", "arm_sme"), 20)
NOT_YET = "not run"


def table() -> str:
    """All results there are, in Markdown."""
    found = {path.stem.replace("_", " "): results.read(path) or {} for path in sorted(RESULTS.glob("*.json"))}
    titles = [judges.JUDGES[name].title for name in JUDGES]
    page = results.page(
        "One file, the same integers on every runtime",
        "`python -m benchmarks.portability`: a pretrained ResNet-20, calibrated on 512 images (ternary: trained for "
        "400 steps), int8 files of TensorFlow's converter, and networks trained by `benchmarks.papers`, made portable "
        "([portable.md](../portable.md)); every operator's output. *Sums*: proved. *Before*: integers of the original "
        "file that LiteRT's builtin and reference kernels compute otherwise than its default, 100 images. *LiteRT*: "
        "images, and integers of the portable file that differ from the default's, over its builtin kernels with 1, 2 "
        "and 4 threads, the default with 2 and 4, and its reference kernels. The others: images, integers that differ "
        "from LiteRT's default. *Arm*: LiteRT on emulated 64-bit Arm, its default kernels on four kinds of cores, its "
        "builtin and reference kernels on one. *Refused*: the runtime does not take the file, portable or not.\n\n"
        "Target: no integer differs.",
        ("file", "operators, channels", "sums", "before", "LiteRT", *titles, "Arm"),
        [(name, *_integers(result)) for name, result in found.items()],
    )
    costs = results.table(
        ("file", "channels", "moves", "images", "accuracy", "of controls", "same answers", "of controls", *_RATIOS),
        [(name, *_costs(result)) for name, result in found.items()],
    )
    return f"{page}\n{_COSTS}\n\n{costs}"


_RATIOS = ("size", "latency")
_COSTS = """\
What it costs. *Channels*: as they were / by their bias alone / scale moved / weights made even. *Moves*: the largest
relative change of a weight scale, the largest move of a bias in output levels. *Accuracy*: of the original and the
portable file, and of *controls*, the original with every channel's scale changed at random by up to 0.1 %, three seeds.
*Same answers*: the original on reference kernels as on default ones, and the portable file as the original. *Size*,
*latency*: portable over original; the median of an image's time on LiteRT's default kernels, one thread, the files
taking turns.

A mean of whole images becomes a sum of ones in files of TensorFlow's converter; XNNPACK is slow at its 64 taps. The
latencies were measured on a machine that did nothing else; of one file two measurements still differ by up to 0.04.

Targets: accuracy within the controls' spread below 8 bits, at most 0.15 points lower at 8; size 1.03, latency 1.02 at
most. The MobileNets and W7A8 meet the accuracy's. The other four of ResNet-20 below 8 bits end 0.1 to 0.2 points below
the worst of their three controls: scales move farther than the controls', and change up to a hundredth more of the
answers. At 8 bits MLPerf's ResNet-8 loses 0.3 points, the other three 0.1 at most.

Of MobileNetV3's twelve products of two tensors eight are hard-swishes, whose gates keep their integers. Four gates of
channels take a table each, 1 KB. When all twelve took one, the file was 1.98 times as slow, and 85.12% of the answers
stayed the same.

MLPerf Tiny's files end in a SOFTMAX, which is not portable and is left out here. Its MobileNetV1 0.25 tells persons
from none; it sees enlarged images of CIFAR-10."""


def _integers(found: dict) -> tuple[str, ...]:
    proof, original, portable = found["proof"], found.get("original"), found.get("portable", {})
    before = [f"{original[kernels]['differing'] / original[kernels]['integers']:.1%}" for kernels in original or ()]
    here = [value for name, value in portable.items() if ", " in name]
    return (
        f"{proof['operators']}, {proof['channels']:,}",
        f"{proof['sums']:,}",
        " / ".join(before),
        f"{here[0]['images']}: {sum(value['differing'] for value in here):,} of "
        f"{sum(value['integers'] for value in here):,}"
        if here
        else NOT_YET,
        *(_judged(portable.get(name)) for name in JUDGES),
        _judged_on_arm([portable[name] for name in ARM if name in portable]),
    )


def _judged(value: dict | None) -> str:
    if value is None:
        return NOT_YET
    return "refused" if "failed" in value else f"{value['images']}: {value['differing']:,}"


def _judged_on_arm(values: list[dict]) -> str:
    if len(values) < len(ARM):
        return NOT_YET
    failed = [value for value in values if "failed" in value]
    differing, integers = (sum(value.get(key, 0) for value in values) for key in ("differing", "integers"))
    return f"{ARM['arm']}: {differing:,} of {integers:,}" + (f"; {len(failed)} refused" if failed else "")


def _costs(found: dict) -> tuple[str, ...]:
    proof, times = found["proof"], found.get("milliseconds")
    answers, controls = found.get("answers"), found.get("controls", {})
    return (
        f"{proof['as_they_were']:,} / {proof['by_bias']:,} / {proof['moved']:,} / {proof['made_even']:,}",
        f"{proof['largest_move']:.2%}, {proof['largest_bias_move']:.2f}",
        f"{answers['images']:,}" if answers else NOT_YET,
        _percentages(answers["accuracy"], " → ") if answers else NOT_YET,
        _percentages(controls.get("accuracy", [])) or NOT_YET,
        _percentages([answers["same_of_reference"], answers["same"]]) if answers else NOT_YET,
        _percentages(controls.get("same", [])) or NOT_YET,
        f"{found['bytes'][1] / found['bytes'][0]:.3f}",
        f"{times['portable'] / times['original']:.3f}" if times else NOT_YET,
    )


def _percentages(shares: list[float | None], between: str = ", ") -> str:
    return between.join(f"{share:.2%}" for share in shares if share is not None) or "-" * bool(shares)
