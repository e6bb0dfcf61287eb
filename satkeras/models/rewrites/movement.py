"""TensorFlow's operators that move, select or reduce values of any tensor; each row with its function's signature."""

import numpy as np

from satkeras._compat import is_symbolic, keras
from satkeras.models.core import Slice
from satkeras.models.rewrites.call import Call, Refused

_layers = keras.layers


def _concat(call: Call, values, axis, name=None):
    return concatenate(call, list(values), int(axis))


def concatenate(call: Call, values: list, axis: int, part: str = ""):
    """A Concatenate of tensors along an axis that counts the batch's; of one tensor that tensor."""
    if not axis % len(values[0].shape):
        raise Refused("cannot concatenate batches")
    return values[0] if len(values) == 1 else call.apply(_layers.Concatenate, values, part, axis=axis)


def _stack(call: Call, values, axis=0, name=None):
    axis = int(axis) % (len(values[0].shape) + 1)
    return concatenate(call, [_expanded(call, x, axis) for x in values], axis, "concat")


def _expand_dims(call: Call, input, axis, name=None):  # noqa: A002 - TensorFlow's name
    return _expanded(call, input, int(axis) % (len(input.shape) + 1))


def _expanded(call: Call, x, axis: int):
    if not axis:
        raise Refused("cannot change the batch axis")
    shape = call.fixed(x)
    return reshaped(call, x, (*shape[: axis - 1], 1, *shape[axis - 1 :]))


def reshaped(call: Call, x, shape: tuple[int, ...]):
    """The values of a tensor in another shape, the batch's axis aside."""
    return x if tuple(x.shape[1:]) == tuple(shape) else call.apply(_layers.Reshape, x, _part(shape), target_shape=shape)


def _part(shape) -> str:
    return "x".join(str(size) for size in shape)


def _squeeze(call: Call, input, axis=None, name=None, squeeze_dims=None):  # noqa: A002 - TensorFlow's name
    shape = call.fixed(input)
    axis = squeeze_dims if axis is None else axis
    axes = None if axis is None else {each % len(input.shape) for each in np.ravel(axis).tolist()}
    kept = (size for i, size in enumerate(shape, 1) if (size != 1 if axes is None else i not in axes))
    return reshaped(call, input, tuple(kept))


def _reshape(call: Call, tensor, shape, name=None):
    sizes = list(shape) if isinstance(shape, (list, tuple)) else np.asarray(shape).tolist()
    if any(is_symbolic(size) for size in sizes[1:]):
        raise Refused("needs a shape of numbers, the batch's aside; give the model an input of fixed size")
    total = int(np.prod(call.fixed(tensor)))
    sizes = [int(size) for size in sizes[1:]]
    sizes = [-total // int(np.prod(sizes)) if size == -1 else size for size in sizes]
    if int(np.prod(sizes)) != total:
        raise Refused(f"reshapes {(None, *tensor.shape[1:])} to {tuple(shape)}, which mixes the images of a batch")
    return reshaped(call, tensor, tuple(sizes))


def _batch_flatten(call: Call, x):
    return call.apply(_layers.Flatten, x)


def _transpose(call: Call, a, perm=None, name=None, conjugate=False):
    if perm is None or int(perm[0]) != 0:
        raise Refused(f"needs a permutation that leaves the batch first, has {perm}")
    return call.apply(_layers.Permute, a, dims=tuple(int(axis) for axis in perm[1:]))


def _getitem(call: Call, tensor, slice_spec, var=None):
    return sliced(call, tensor, slice_spec if isinstance(slice_spec, (list, tuple)) else (slice_spec,))


def sliced(call: Call, x, items):
    """`x[items]`: slices, numbers, an ellipsis and new axes."""
    items = _without_ellipsis([_as_slice(item) for item in items], len(x.shape))
    if items[0] != slice(None):
        raise Refused("cannot select images of a batch")
    sizes, begin, end, strides, shape, turned = list(call.fixed(x)), [], [], [], [], []
    for item in items[1:]:
        if item is None:
            shape.append(1)
            continue
        size, axis = sizes.pop(0), len(begin) + 1
        if isinstance(item, slice):
            if item.step == -1 and item.start is item.stop is None:
                turned.append(axis)
                item = slice(None)
            first, last, stride = item.indices(size)
            shape.append(len(range(first, last, stride)))
        else:
            first, stride = int(item) % size, 1
            last = first + 1
        begin.append(first)
        end.append(last)
        strides.append(stride)
    if min(strides) < 1:
        raise Refused("needs slices that go forwards, or turn a whole axis as [::-1] does")
    result = x
    if (begin, end, strides) != ([0] * len(end), list(call.fixed(x)), [1] * len(end)):
        result = call.apply(
            Slice, x, f"slice_{call.node.index}" if call.node.index else "", begin=begin, end=end, strides=strides
        )
    for axis in turned:
        result = reversed_along(call, result, axis)
    return reshaped(call, result, tuple(shape))


def _as_slice(item):
    if isinstance(item, dict):
        item = slice(item["start"], item["stop"], item["step"])
    return slice(None) if item == slice(None, None, 1) else item


def _slice(call: Call, input_, begin, size, name=None):
    begin, size = np.ravel(begin).tolist(), np.ravel(size).tolist()
    if begin[0] or size[0] not in (-1, None):
        raise Refused("cannot select images of a batch; its first size must be -1")
    ends = (None if count == -1 else first + count for first, count in zip(begin, size, strict=True))
    return sliced(call, input_, [slice(first or None, end) for first, end in zip(begin, ends, strict=True)])


def _without_ellipsis(items: list, rank: int) -> list:
    taken = sum(item is not None and item is not ... for item in items)
    at = next((i for i, item in enumerate(items) if item is ...), len(items))
    return [*items[:at], *[slice(None)] * (rank - taken), *items[at + 1 :]]


def reversed_along(call: Call, x, axis: int):
    """A tensor turned along an axis that counts the batch's."""
    size = x.shape[axis]
    return concatenate(call, [_piece(call, x, axis, i, i + 1) for i in reversed(range(size))], axis, "reversed")


def _reverse(call: Call, tensor, axis, name=None):
    for each in np.ravel(axis).tolist():
        tensor = reversed_along(call, tensor, each % len(tensor.shape))
    return tensor


def _piece(call: Call, x, axis: int, begin: int, end: int):
    sizes = call.fixed(x)
    first = [0] * len(sizes)
    last = list(sizes)
    first[axis - 1], last[axis - 1] = begin, end
    return x if begin == 0 and end == sizes[axis - 1] else call.apply(Slice, x, f"{begin}", begin=first, end=last)


def _tile(call: Call, input, multiples, name=None):  # noqa: A002 - TensorFlow's name
    batch, *counts = np.ravel(multiples).tolist()
    if batch != 1:
        raise Refused(f"needs multiples whose first, the batch's, is 1; has {[batch, *counts]}")
    for axis, count in enumerate(counts, 1):
        input = concatenate(call, [input] * int(count), axis, f"tile_{axis}")  # noqa: A001
    return input


def _repeat(call: Call, input, repeats, axis=None, name=None):  # noqa: A002 - TensorFlow's name
    if np.size(repeats) != 1 or axis is None or not int(axis) % len(input.shape):
        raise Refused("needs one number of repeats, along an axis that is not the batch's: tf.repeat(x, 2, axis=-1)")
    axis, count, sizes = int(axis) % len(input.shape), int(np.ravel(repeats)[0]), list(call.fixed(input))
    copies = concatenate(call, [_expanded(call, input, axis + 1)] * count, axis + 1, "repeat")
    sizes[axis - 1] *= count
    return reshaped(call, copies, tuple(sizes))


def _gather(call: Call, params, indices, validate_indices=None, axis=None, batch_dims=0, name=None):
    axis = int(axis or 0) % len(params.shape)
    if is_symbolic(indices) or np.ndim(indices) > 1 or not axis or batch_dims:
        raise Refused("needs a list of numbers along an axis that is not the batch's: tf.gather(x, [0, 2], axis=-1)")
    if not np.ndim(indices):
        return sliced(call, params, [*[slice(None)] * axis, int(indices)])
    return _picked(call, params, axis, np.asarray(indices), "gather")


def _picked(call: Call, x, axis: int, indices: np.ndarray, part: str):
    """The places along an axis that a list of numbers names."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    pieces = [_piece(call, x, axis, int(run[0]), int(run[-1]) + 1) for run in runs]
    return concatenate(call, pieces, axis, part)


def _split(call: Call, value, num_or_size_splits, axis=0, num=None, name=None):
    axis = int(axis) % len(value.shape)
    if not axis:
        raise Refused("cannot split a batch")
    size = call.fixed(value)[axis - 1]
    parts = np.asarray(num_or_size_splits)
    ends = np.cumsum(np.full(int(parts), size // int(parts)) if parts.ndim == 0 else parts)
    begin = 0 if not call.node.index else int(ends[call.node.index - 1])
    return _piece(call, value, axis, begin, int(ends[call.node.index]))


def _unstack(call: Call, value, num=None, axis=0, name=None):
    axis, index = int(axis) % len(value.shape), call.node.index
    return sliced(call, value, [*[slice(None)] * axis, index])


def _pad(call: Call, tensor, paddings, mode="CONSTANT", constant_values=0, name=None):
    batch, *paddings = np.asarray(paddings).tolist()
    if constant_values or any(batch):
        raise Refused("needs zeros, and none before or behind a batch: tf.pad(x, [[0, 0], [top, bottom], ...])")
    if mode.upper() != "CONSTANT":
        for axis, ends in enumerate(paddings, 1):
            if any(ends):
                places = np.pad(np.arange(tensor.shape[axis]), ends, mode.lower())  # pyright: ignore[reportCallIssue]
                tensor = _picked(call, tensor, axis, places, f"mirrored_{axis}")
        return tensor
    if len(paddings) == 3 and any(map(any, paddings[:2])):
        tensor = call.apply(_layers.ZeroPadding2D, tensor, padding=tuple(map(tuple, paddings[:2])))
        paddings[:2] = [0, 0], [0, 0]
    for axis, ends in enumerate(paddings):
        if any(ends):
            # What is padded becomes the width of an image, what lies behind it its channels.
            sizes = call.fixed(tensor)
            before, size, after = sizes[:axis], sizes[axis], sizes[axis + 1 :]
            image = reshaped(call, tensor, (int(np.prod(before)), size, int(np.prod(after))))
            padded = call.apply(_layers.ZeroPadding2D, image, f"axis_{axis + 1}", padding=((0, 0), tuple(ends)))
            tensor = reshaped(call, padded, (*before, size + sum(ends), *after))
    return tensor


def _pad_v1(call: Call, tensor, paddings, mode="CONSTANT", name=None, constant_values=0):
    return _pad(call, tensor, paddings, mode, constant_values)


def _reduced(pool, pool_all):
    """A reduction by pooling: over an image's height and width, one of them, or any axes that lie side by side."""

    def row(call: Call, input_tensor, axis=None, keepdims=False, name=None):
        x, rank = input_tensor, len(input_tensor.shape)
        axes = _axes(axis, rank)
        if axes == [1, 2] and rank == 4:
            return call.apply(pool_all, x, keepdims=bool(keepdims))
        if axes == [1] and rank == 3:
            pooled = call.apply(pool_all, call.image(x), keepdims=bool(keepdims))
            return call.sequence(pooled) if keepdims else pooled
        sizes, (first, last) = call.fixed(x), (axes[0] - 1, axes[-1])
        before, window, after = sizes[:first], sizes[first:last], sizes[last:]
        if rank == 4 and axes == [1]:
            pooled = call.apply(pool, x, pool_size=(*window, 1))
        else:
            # What is reduced becomes the width of an image, what lies behind it its channels.
            image = reshaped(call, x, tuple(int(np.prod(part)) for part in (before, window, after)))
            pooled = call.apply(pool, image, pool_size=(1, image.shape[2]))
        return reshaped(call, pooled, (*before, *([1] * len(window) if keepdims else []), *after))

    return row


def _axes(axis, rank: int) -> list[int]:
    """The axes of a reduction, in order."""
    axes = sorted({each % rank for each in np.ravel(axis).tolist()}) if axis is not None else [0]
    if axes[0] == 0:
        raise Refused("reduces the batch's axis; give axis=, such as [1, 2] for height and width")
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise Refused(f"reduces axes {axes}, which do not lie side by side; transpose before, or reduce one by one")
    return axes


def _sum(call: Call, input_tensor, axis=None, keepdims=False, name=None):
    """The mean, times how many there are."""
    mean = _reduced(_layers.AveragePooling2D, _layers.GlobalAveragePooling2D)(call, input_tensor, axis, keepdims)
    sizes = call.fixed(input_tensor)
    count = np.prod([sizes[each - 1] for each in _axes(axis, len(sizes) + 1)])
    return call.apply(_layers.Rescaling, mean, "count", scale=float(count))


OPERATORS = {
    "concat": _concat,
    "stack": _stack,
    "split": _split,
    "unstack": _unstack,
    "reshape": _reshape,
    "expand_dims": _expand_dims,
    **dict.fromkeys(("squeeze", "compat.v1.squeeze"), _squeeze),
    **dict.fromkeys(("transpose", "compat.v1.transpose"), _transpose),
    "reverse": _reverse,
    "slice": _slice,
    "tile": _tile,
    "repeat": _repeat,
    **dict.fromkeys(("gather", "compat.v1.gather"), _gather),
    "__operators__.getitem": _getitem,
    "keras.backend.batch_flatten": _batch_flatten,
    "pad": _pad,
    "compat.v1.pad": _pad_v1,
    "math.reduce_mean": _reduced(_layers.AveragePooling2D, _layers.GlobalAveragePooling2D),
    "math.reduce_sum": _sum,
    "math.reduce_max": _reduced(_layers.MaxPooling2D, _layers.GlobalMaxPooling2D),
}
