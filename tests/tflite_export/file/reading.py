"""What a file holds, through TFLite's schema."""

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

BUILTINS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def read(content: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromPackedBuf(content, 0)


def codes_of(model) -> list[str]:
    return [BUILTINS[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]


def builtins(model) -> list[str]:
    codes = codes_of(model)
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def names(model, indices=None) -> list[str]:
    tensors = model.subgraphs[0].tensors
    return [tensors[i].name.decode() for i in (range(len(tensors)) if indices is None else indices)]


def entries(maps) -> list[tuple[str, int]]:
    return [(one.name.decode(), one.tensorIndex) for one in maps]


def constant(model, index: int, dtype) -> np.ndarray:
    tensor = model.subgraphs[0].tensors[index]
    return np.frombuffer(bytes(bytearray(model.buffers[tensor.buffer].data)), dtype).reshape(tensor.shape)
