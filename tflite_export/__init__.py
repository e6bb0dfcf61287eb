"""Full-integer TFLite files that compute the same integers as the trained model.

    report = tflite_export.export_tflite(q, "model.tflite", verify_data=images)
    print(report)
    tflite_export.integer_model(q).predict(images)    # what the file computes, in Keras

    print(tflite_export.TARGETS)                      # what takes such files, a row each

`export_tflite` plans every integer of the file, writes it, reads it back and compares.
`integer_model` computes the plan itself.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from tflite_export.errors import ExportError
    from tflite_export.export import export_tflite, integer_model
    from tflite_export.portability.plans import Portability
    from tflite_export.portable_files import portable_tflite
    from tflite_export.portable_models import portable_model
    from tflite_export.targets import TARGETS
    from tflite_export.verification.report import Report, TensorComparison, Verification

__all__ = [
    "TARGETS",
    "ExportError",
    "Portability",
    "Report",
    "TensorComparison",
    "Verification",
    "export_tflite",
    "integer_model",
    "portable_model",
    "portable_tflite",
]
_MODULES = {
    "TARGETS": "targets",
    "ExportError": "errors",
    "Portability": "portability.plans",
    "Report": "verification.report",
    "TensorComparison": "verification.report",
    "Verification": "verification.report",
    "export_tflite": "export",
    "integer_model": "export",
    "portable_model": "portable_models",
    "portable_tflite": "portable_files",
}


def __getattr__(name: str):
    """Imports what is asked for: TensorFlow takes seconds, and the command line's help needs none of it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
