"""The sorts that are saved change nothing: codes and scales are those of the sort of each whole column, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.passes.fit import closed_forms
from xbcompile.passes.fit.closed_forms import fit_ternary


def by_whole_sorts(weights, row_weight):
    """Each prefix of a column sorted by |w| / g, of equal ones the first first."""
    w = np.asarray(weights, np.float64)
    g = np.ones_like(w) if row_weight is None else np.asarray(row_weight, np.float64)
    w_top, g_top = np.abs(w).max(axis=0), g.max(axis=0)
    w_top[w_top == 0] = 1.0
    size, g = np.abs(w) / w_top, g / g_top
    codes, scale = np.ones(w.shape, np.uint8), np.empty(w.shape[1])
    for m in range(w.shape[1]):
        order = np.argsort(-size[:, m] / g[:, m], kind="stable")
        moment, power = np.cumsum((g * size)[order, m]), np.cumsum((g * g)[order, m])
        best = int(np.argmax(moment**2 / power))
        scale[m] = moment[best] / power[best] * w_top[m] / g_top[m]
        support = order[: best + 1]
        codes[support, m] = 1 + np.sign(w[support, m])
    return codes, scale


VALUES = {
    "normal": lambda r, shape: r.standard_normal(shape),
    "float32": lambda r, shape: r.standard_normal(shape).astype(np.float32),
    "few": lambda r, shape: r.integers(-3, 4, shape),  # ties everywhere, zeros and columns of zeros
    "sparse": lambda r, shape: r.standard_normal(shape) * r.integers(0, 2, shape),
    "extreme": lambda r, shape: r.standard_normal(shape) * 10.0 ** r.integers(-300, 300, shape[1]),
    "equal": lambda r, shape: r.choice([-0.7, 0.7], shape),
}
ROW_WEIGHTS = {
    "none": lambda r, shape: None,
    "alike": lambda r, shape: np.full(shape, 0.37),
    "columns": lambda r, shape: np.tile(r.random((1, shape[1])) + 0.1, (shape[0], 1)),
    "few": lambda r, shape: r.choice([0.5, 1.0, 2.0], shape),
    "rows": lambda r, shape: np.tile(r.random((shape[0], 1)) + 0.1, (1, shape[1])),
    "any": lambda r, shape: r.random(shape) + 0.1,
}


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 60), st.integers(1, 7)),
    st.sampled_from(sorted(VALUES)),
    st.sampled_from(sorted(ROW_WEIGHTS)),
)
def test_ternary_codes_are_those_of_whole_sorts(seed, shape, values, row_weights):
    generator = np.random.default_rng(seed)
    weights = VALUES[values](generator, shape)
    row_weight = ROW_WEIGHTS[row_weights](generator, shape)
    codes, scale = fit_ternary(weights, row_weight)
    expected, expected_scale = by_whole_sorts(weights, row_weight)
    assert codes.dtype == np.uint8
    assert np.array_equal(codes, expected)
    assert scale.tobytes() == expected_scale.tobytes()


@pytest.mark.parametrize("row_weights", ["none", "rows"])
def test_blocks_of_columns_are_fitted_alike(row_weights, monkeypatch):
    generator = np.random.default_rng(0)
    weights, row_weight = generator.standard_normal((50, 30)), ROW_WEIGHTS[row_weights](generator, (50, 30))
    whole = fit_ternary(weights, row_weight)
    monkeypatch.setattr(closed_forms, "_SORTED_WEIGHTS", 333)
    for found, expected in zip(fit_ternary(weights, row_weight), whole, strict=True):
        assert np.array_equal(found, expected)
