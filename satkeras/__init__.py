"""Low-bit Keras models that ship as full-integer TFLite files.

    import satkeras, tflite_export

    q = satkeras.quantize_model(keras_model, scheme="sat", weight_bits=4, activation_bits=4)
    q.compile(...)
    q.fit(...)
    tflite_export.export_tflite(q, "model.tflite")

`quantize_model` copies a float tf_keras model and puts a quantizer on every kernel and every tensor that the exported
file will store. What goes where is a `Scheme`, a value: `SCHEMES` names those of the papers, and a `Scheme` of your own
holds quantizers of `satkeras.quantizers`. `strip` gives the float model back, `integer_weights` the integers
(`save_integer_weights` as a file), `summary` a table of what each layer costs; `save_model` and `load_model` keep a
model in between. `TensorBoardQuantization` is a callback that logs how the grids train.
`undecayed_variables` and `learned_variables` are for the optimizer.

Quantization Networks, scheme "qn", trains in phases: `set_thresholds`, `set_phase` and `freeze` around `fit`, and a
callback of `satkeras.callbacks` within it.

Every quantizer states its integer grid as a `QuantParams`; that is all that the exporter knows of it.
"""

from satkeras.models.to_keras3 import to_keras3
from satkeras.quantize import check_model, quantize_model, strip
from satkeras.quantizers.quant_params import QuantParams
from satkeras.reports.integers import IntegerWeight, integer_weights, save_integer_weights
from satkeras.reports.summary import LayerSummary, Summary, summary
from satkeras.reports.tensorboard import TensorBoardQuantization
from satkeras.saving import load_model, save_model
from satkeras.schemes import SCHEMES, Scheme
from satkeras.training.batch_norm import reestimate_batch_norm
from satkeras.training.distiller import Distiller
from satkeras.training.optimizers import learned_variables, undecayed_variables
from satkeras.training.oscillations import FreezesOscillations, FreezingSGD
from satkeras.training.phases import freeze, set_phase, set_thresholds
from satkeras.training.transition_rate import TransitionRateSGD

__all__ = [
    "SCHEMES",
    "Distiller",
    "FreezesOscillations",
    "FreezingSGD",
    "IntegerWeight",
    "LayerSummary",
    "QuantParams",
    "Scheme",
    "Summary",
    "TensorBoardQuantization",
    "TransitionRateSGD",
    "check_model",
    "freeze",
    "integer_weights",
    "learned_variables",
    "load_model",
    "quantize_model",
    "reestimate_batch_norm",
    "save_integer_weights",
    "save_model",
    "set_phase",
    "set_thresholds",
    "strip",
    "summary",
    "to_keras3",
    "undecayed_variables",
]
__version__ = "0.1.0"
