"""Which axes count samples: feeds are counted, cut and joined by them."""

from __future__ import annotations

import numpy as np
import pytest

from xbcompile.errors import DataError
from xbcompile.ir import SampleAxes

# x [T, N, 2] beside a state that calls share, s [3]; y [N, T], v the same for all, l one value of each call.
AXES = SampleAxes({"x": 1, "s": None}, {"y": 0, "v": None, "l": None}, {"x": 3, "s": 1}, shared=("v",))
WHOLE = SampleAxes({"x": None}, {"y": None}, {"x": 2})


def feeds(samples: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(4 * samples * 2.0).reshape(4, samples, 2), "s": np.ones(3)}


def test_parts_are_cut_along_the_axis_and_what_is_shared_stays() -> None:
    given = feeds(5)
    parts = list(AXES.parts(given, 2))
    assert [first for first, _ in parts] == [0, 2, 4]
    assert [part["x"].shape for _, part in parts] == [(4, 2, 2), (4, 2, 2), (4, 1, 2)]
    np.testing.assert_array_equal(np.concatenate([part["x"] for _, part in parts], axis=1), given["x"])
    assert all(part["s"] is given["s"] for _, part in parts)


def test_outputs_are_joined_along_their_own_axes() -> None:
    parts = [{"y": np.full((2, 4), i), "v": np.ones(3), "l": np.float32(i)} for i in range(2)]
    joined = AXES.join(parts)
    assert joined["y"][:, 0].tolist() == [0, 0, 1, 1]
    assert joined["v"].shape == (3,)
    assert joined["l"].tolist() == [0, 1]
    assert AXES.join(parts, stack=True)["v"].shape == (2, 3)  # what differs from call to call may show in all


def test_inputs_given_per_call_make_calls_of_their_own() -> None:
    given = feeds(3) | {"s": np.arange(9.0).reshape(3, 3)}
    assert AXES.given_per_call(given) == ("s",)
    assert [(part["x"].shape, part["s"].tolist()) for _, part in AXES.parts(given, 500)] == [
        ((4, 1, 2), [0, 1, 2]),
        ((4, 1, 2), [3, 4, 5]),
        ((4, 1, 2), [6, 7, 8]),
    ]
    first = AXES.first(given, 2)
    assert (first["x"].shape, first["s"].shape) == ((4, 2, 2), (2, 3))
    scalar = SampleAxes({"g": None}, {"y": None}, {"g": 0})
    assert [part["g"].shape for _, part in scalar.parts({"g": np.arange(2.0)}, 500)] == [(), ()]


def test_a_call_without_axes_of_samples_is_one() -> None:
    once, calls = {"x": np.ones((7, 2))}, {"x": np.ones((3, 7, 2))}
    assert (WHOLE.samples(once), WHOLE.samples(calls)) == (1, 3)
    assert [part["x"].shape for _, part in WHOLE.parts(once, 2)] == [(7, 2)]
    assert [part["x"].shape for _, part in WHOLE.parts(calls, 2)] == [(7, 2)] * 3
    assert WHOLE.join([{"y": np.ones(4)}])["y"].shape == (4,)
    assert WHOLE.join([{"y": np.ones(4)}] * 3, stack=True)["y"].shape == (3, 4)
    assert WHOLE.words() == "each call of the model is one sample"


def test_a_single_sample_goes_with_many_where_a_call_takes_one() -> None:
    axes = SampleAxes({"x": 0, "m": 0}, {"y": 0}, {"x": 2, "m": 2}, call=1)
    given = {"x": np.ones((5, 2)), "m": np.zeros((1, 4))}
    assert axes.checked_samples(given) == 5
    assert [part["m"].shape for _, part in axes.parts(given, 500)] == [(1, 4)] * 5


@pytest.mark.parametrize(
    ("axes", "given", "text"),
    [
        (AXES, {"x": np.ones((4, 0, 2)), "s": np.ones(3)}, "there are no samples to run"),
        (
            AXES,
            {"x": np.ones((4, 2, 2)), "s": np.ones((3, 3))},
            "different numbers of samples: {'x': 2, 's': 3}; axis 1 of x",
        ),
        (
            SampleAxes({"x": 0}, {"y": 0}, {"x": 2}, call=4),
            {"x": np.ones((9, 2))},
            "9 samples do not fill the model's fixed",
        ),
        (SampleAxes({"x": 0, "z": 0}, {"y": 0}), {"x": np.ones((9, 2)), "z": np.ones((1, 2))}, "different numbers of"),
    ],
)
def test_inputs_that_do_not_go_together(axes: SampleAxes, given: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(DataError, match=text):
        axes.checked_samples(given)


def test_lists_with_one_entry_for_each_sample_are_joined() -> None:
    """Sequences of maps, as classifiers of scikit-learn give them."""
    axes = SampleAxes({"x": 0}, {"p": 0}, {"x": 2})
    assert axes.join([{"p": [{0: 0.5}, {0: 0.1}]}, {"p": [{0: 0.7}]}])["p"] == [{0: 0.5}, {0: 0.1}, {0: 0.7}]
