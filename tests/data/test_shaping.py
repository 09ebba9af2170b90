"""Data in the type and shape of a model's input: values keep their order and their meaning, or are refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from onnx import TensorProto, helper

from xbcompile.data.shaping import converted, shaped, transposition_hint
from xbcompile.errors import DataError


def reshaped(found: tuple[int, ...], wanted: tuple[int | str, ...], axis: int | None = 0) -> tuple[int, ...]:
    """The shape in which data of `found` reaches a model that wants `wanted`; values must stay in order."""
    x = np.arange(np.prod(found), dtype=np.float32).reshape(found)
    y = shaped(x, helper.make_tensor_value_info("x", TensorProto.FLOAT, wanted), "data", axis=axis)
    assert np.array_equal(x.ravel(), y.ravel())
    return y.shape


@pytest.mark.parametrize(
    ("found", "wanted", "right"),
    [
        ((2, 28, 28), ("n", 1, 28, 28), (2, 1, 28, 28)),
        ((2, 28, 28), ("n", 784), (2, 784)),
        ((2, 28, 28), ("n", 28, 28, 1), (2, 28, 28, 1)),
        ((2, 784), ("n", 1, 28, 28), (2, 1, 28, 28)),
        ((2, 28, 28, 1), ("n", 1, 28, 28), (2, 1, 28, 28)),  # channels last or first: the same for one channel
        ((2, 28, 28), ("n", 4, 7, 28), (2, 4, 7, 28)),
        ((2, 12, 5), ("n", 3, 4, 5, 1), (2, 3, 4, 5, 1)),
        ((2, 3, 4, 4), ("n", 3, 16), (2, 3, 16)),
        ((2, 4, 4, 3), ("n", 48), (2, 48)),
        ((2, 1), ("n",), (2,)),
        ((2,), ("n", 1, 1), (2, 1, 1)),
        ((2, 28, 28), ("n", 1, "h", "w"), (2, 1, 28, 28)),
        ((2, 28, 28), ("n", "h", "w", 1), (2, 28, 28, 1)),
        ((2, 5, 7), ("n", "t", 7), (2, 5, 7)),
        ((2, 0), ("n", 0), (2, 0)),
    ],
)
def test_neighbouring_axes_are_merged_and_split(found, wanted, right):
    assert reshaped(found, wanted) == right


@pytest.mark.parametrize(
    ("found", "wanted", "use"),
    [
        ((2, 4, 4, 3), ("n", 3, 4, 4), "; they look channels last (NHWC): use .transpose(0, 3, 1, 2)"),
        ((2, 4, 4, 3), ("n", 3, "h", "w"), "; they look channels last (NHWC): use .transpose(0, 3, 1, 2)"),
        ((2, 3, 4, 5), ("n", 4, 5, 3), "; they look channels first (NCHW): use .transpose(0, 2, 3, 1)"),
        ((2, 4, 5, 6, 3), ("n", 3, 4, 5, 6), "; they look channels last: use .transpose(0, 4, 1, 2, 3)"),
        ((2, 6, 20), ("n", 20, 6), "; they look transposed: use .transpose(0, 2, 1)"),
        ((2, 20, 6), ("n", 6, 4, 5), "; they look transposed: use .transpose(0, 2, 1)"),
        ((2, 5, 4, 3), ("n", 4, 5, 3), "; they look transposed: use .transpose(0, 2, 1, 3)"),
        ((2, 28, 28), ("n", 16, 7, 7), ""),  # patches: no order of these axes gives them
        ((2, 12, 2), ("n", 4, 6), ""),
        ((2, 6, 2), ("n", 4, 3), ""),
        ((2, 5), ("n", 6), ""),
        ((2, 0), ("n", 6), ""),
    ],
)
def test_another_layout_is_refused_and_told(found, wanted, use):
    with pytest.raises(DataError, match=r"data: samples have shape .*; the model's input 'x' wants ") as caught:
        reshaped(found, wanted)
    assert str(caught.value).endswith(use or str(wanted[-1]))
    if use:  # what it says is right
        axes = [int(each) for each in use.partition("transpose(")[2].rstrip(")").split(",")]
        reshaped(tuple(found[axis] for axis in axes), wanted)


def test_samples_along_another_axis():
    assert reshaped((28, 2, 6), (28, "n", 6), axis=1) == (28, 2, 6)
    assert reshaped((28, 2, 3, 2), (28, "n", 6), axis=1) == (28, 2, 6)
    with pytest.raises(
        DataError, match=r"samples have shape 6x28; .* wants 28x6; they look transposed: use .transpose"
    ):
        reshaped((6, 2, 28), (28, "n", 6), axis=1)
    assert transposition_hint((6, 2, 28), (28, None, 6), axis=1).endswith("use .transpose(2, 1, 0)")
    assert transposition_hint((4, 4, 3), (3, 4, 4), axis=None).endswith("(NHWC): use .transpose(2, 0, 1)")


def test_without_samples():
    assert reshaped((1, 4, 4), (4, 4), axis=None) == (4, 4)
    assert reshaped((), (), axis=None) == ()
    assert reshaped((1, 1), (), axis=None) == ()
    with pytest.raises(DataError, match=r"have shape 4x4x3; .* wants 3x4x4; .* \(NHWC\): use .transpose\(2, 0, 1\)"):
        reshaped((4, 4, 3), (3, 4, 4), axis=None)


def reachable(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """All shapes that come of merging groups of neighbours, some of which are split again instead: by brute force."""
    if not shape:
        return {()}
    splits = {(a, shape[0] // a) for a in range(2, shape[0]) if shape[0] % a == 0}
    heads = {((shape[0],), 1)} | {(split, 1) for split in splits}
    heads |= {((int(np.prod(shape[:n])),), n) for n in range(2, len(shape) + 1)}
    return {(*head, *rest) for head, n in heads for rest in reachable(shape[n:])}


def test_merging_and_splitting_by_brute_force():
    """Shapes of 24 values with two or three axes from each other; splitting into more than two parts is left out."""
    shapes = [(24,), *((a, 24 // a) for a in (2, 3, 4, 6, 8, 12)), (2, 3, 4), (6, 2, 2), (2, 2, 6)]
    for found, wanted in product(shapes, repeat=2):
        if len(found) == 1 or len(wanted) - len(found) > 1:
            continue
        if wanted in reachable(found):
            assert reshaped((2, *found), ("n", *wanted)) == (2, *wanted)
        else:
            with pytest.raises(DataError, match="samples have shape"):
                reshaped((2, *found), ("n", *wanted))


@pytest.mark.parametrize(
    ("values", "dtype", "text"),
    [
        (np.array([300]), "uint8", "outside the range"),
        (np.array([-1]), "uint8", "outside the range"),
        (np.array([-1]), "uint64", "outside the range"),
        (np.array([2**63], np.uint64), "int64", "outside the range"),
        (np.array([2**63 - 1], np.uint64), "int64", None),
        (np.array([2]), "bool", "outside the range"),
        (np.array([True]), "float32", None),
        (np.array([70_000]), "float16", "outside the range"),
        (np.array([1e39]), "float32", "outside the range"),
        (np.array([1.0]), "int64", "does not fit"),
        (np.array([1.0]), "bool", "does not fit"),
        (np.array([1j]), "float32", "not numeric"),
        (np.array(["1"]), "int64", "not numeric"),
        (np.array([np.nan]), "float32", r"NaN or infinite values \(1 of 1\)"),
    ],
)
def test_other_types_keep_values(values, dtype, text):
    if text is None:
        assert converted(values, np.dtype(dtype), "x", "data").tolist() == values.tolist()
        return
    with pytest.raises(DataError, match=text):
        converted(values, np.dtype(dtype), "x", "data")


def test_values_that_are_not_finite_where_they_may_be():
    x = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert np.array_equal(converted(x, np.dtype("float32"), "x", "data", finite=False), x.astype("f"), equal_nan=True)
    with pytest.raises(DataError, match="outside the range"):
        converted(np.array([np.inf, 1e39]), np.dtype("float32"), "x", "data", finite=False)
