"""No integer is cast to a narrower type but through `narrowed`, which lets none wrap."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(path for package in ("satkeras", "tflite_export") for path in (ROOT / package).rglob("*.py"))
NARROW = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32)}
# What makes an array of given numbers; zeros, full and arange are given none that could wrap.
MAKERS = {"array", "asarray", "ascontiguousarray"}


def names_a_narrow_type(node: ast.expr) -> bool:
    """`np.int8`, `tf.int8`, `"int8"`, or a choice between such types."""
    if isinstance(node, ast.IfExp):
        return names_a_narrow_type(node.body) or names_a_narrow_type(node.orelse)
    if isinstance(node, ast.Constant):
        return node.value in NARROW
    return isinstance(node, ast.Attribute) and node.attr in NARROW


def narrowing_casts(tree: ast.AST):
    """The line of each `x.astype(np.int8)`, `np.array(x, np.int8)` and `np.int8(x)`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        method = node.func.attr
        if method == "astype" and any(map(names_a_narrow_type, given)):
            yield node.lineno
        elif method in MAKERS and any(map(names_a_narrow_type, given[1:])):
            yield node.lineno
        elif method in NARROW and given:
            yield node.lineno


def outside_narrowed(tree: ast.AST) -> ast.AST:
    """The tree without the function that may cast."""
    tree.body = [node for node in tree.body if getattr(node, "name", None) != "narrowed"]
    return tree


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_narrowed_by_hand(path):
    assert list(narrowing_casts(outside_narrowed(ast.parse(path.read_text())))) == []


@pytest.mark.parametrize(
    "code",
    [
        "x.astype(np.int8)",
        "x.astype('uint8')",
        "x.astype(dtype=np.int32)",
        "x.astype(np.int8 if fits else np.int16)",
        "np.asarray(x, np.int32)",
        "np.array(x, dtype=np.uint8)",
        "np.int32(x)",
    ],
)
def test_the_walk_sees_a_cast(code):
    assert list(narrowing_casts(ast.parse(code))) == [1]


@pytest.mark.parametrize(
    "code", ["x.astype(np.int64)", "np.zeros(3, np.int8)", "x.dtype == np.int8", "narrowed(x, np.int8)"]
)
def test_the_walk_sees_nothing_else(code):
    assert list(narrowing_casts(ast.parse(code))) == []
