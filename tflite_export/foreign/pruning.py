"""What no operator reads any more is left out of a file."""

import numpy as np

from tflite_export.foreign.graph import FileGraph


def prune(file: FileGraph) -> None:
    """Drops the tensors of the main graph that nothing refers to, and then such buffers."""
    graph, model = file.graph, file.model
    signatures = [signature for signature in model.signatureDefs or [] if (signature.subgraphIndex or 0) == 0]
    entries = [entry for signature in signatures for entry in [*(signature.inputs or []), *(signature.outputs or [])]]
    lists = [(graph, "inputs"), (graph, "outputs")]
    lists += [(op, field) for op in graph.operators for field in ("inputs", "outputs", "intermediates")]
    used = {entry.tensorIndex for entry in entries}
    for owner, field in lists:
        used.update(_indices(owner, field))
    kept = sorted(index for index in used if index >= 0)
    places = {old: new for new, old in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]
    for owner, field in lists:
        if getattr(owner, field) is not None:
            setattr(owner, field, [places[index] for index in _indices(owner, field)])
    for entry in entries:
        entry.tensorIndex = places[entry.tensorIndex]
    _prune_buffers(model)


def _indices(owner, field: str) -> list[int]:
    values = getattr(owner, field)
    return [] if values is None else [int(index) for index in np.asarray(values).ravel()]


def _prune_buffers(model) -> None:
    owners = [tensor for graph in model.subgraphs for tensor in graph.tensors] + list(model.metadata or [])
    kept = sorted({0} | {owner.buffer for owner in owners})  # buffer 0 is empty, by the schema's rule
    places = {old: new for new, old in enumerate(kept)}
    model.buffers = [model.buffers[index] for index in kept]
    for owner in owners:
        owner.buffer = places[owner.buffer]
