"""The judges, the tools that say something else of a file than its integers, and the peers: one row each."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Judge:
    """A runtime.

    Args:
      title: what it is called in tables.
      runner: the program of `runners/` that runs it.
      environment: the folder of `.judges/` whose Python does so; None is the Python of this project.
      arguments: what else the runner is told.
      variables: environment variables, by their names.
    """

    title: str
    runner: str
    environment: str | None = None
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _arm(core: str, title: str, kernels: str = "default") -> Judge:
    arguments = (f"--kernels={kernels}",)
    return Judge(f"LiteRT, {kernels}, {title}", "on_litert.py", "arm", arguments, {"CORE": core})


JUDGES: Mapping[str, Judge] = {
    "default": Judge("LiteRT, default", "on_litert.py"),
    "builtin": Judge("LiteRT, no delegate", "on_litert.py", arguments=("--kernels=builtin",)),
    "reference": Judge("LiteRT, reference", "on_litert.py", arguments=("--kernels=reference",)),
    "tensorflow": Judge("TensorFlow, default", "on_tensorflow.py"),
    "tensorflow_reference": Judge("TensorFlow, reference", "on_tensorflow.py", arguments=("--kernels=reference",)),
    "tflite_runtime": Judge("tflite-runtime 2.14", "on_tflite_runtime.py", "tflite_runtime"),
    "tflm": Judge("TensorFlow Lite Micro", "on_tflm.py", "tflm"),
    "tosa": Judge("TOSA's reference model", "on_tosa.py", "tosa"),
    "arm": _arm("a76", "64-bit Arm"),
    "arm_builtin": _arm("a76", "64-bit Arm", "builtin"),
    "arm_reference": _arm("a76", "64-bit Arm", "reference"),
    "arm_a53": _arm("a53", "64-bit Arm without dot products"),
    "arm_x2": _arm("x2", "64-bit Arm with matrix products"),
    "arm_sme": _arm("sme", "64-bit Arm with SME"),
}

# What each is asked, and answers, its runner says.
TOOLS: Mapping[str, Judge] = {
    "mediapipe": Judge("MediaPipe 1.2", "on_mediapipe.py", "mediapipe"),
    "vela": Judge("Vela, the compiler for Ethos-U", "on_vela.py", "vela"),
}
# Frameworks that train, to compare with: not of `make judges`, but of `python -m benchmarks.judges.install NAME`.
PEERS: Mapping[str, Judge] = {"aidge": Judge("Aidge 0.10", "on_aidge.py", "aidge")}
ALL: Mapping[str, Judge] = {**JUDGES, **TOOLS, **PEERS}
