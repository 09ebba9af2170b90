"""Line resistance: against all of Kirchhoff's equations solved at once, a ladder's closed form, and the published drop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.targets import load_target
from xbcompile.targets.families.line_resistance import LineResistance

OHM = st.sampled_from([0.0, 0.5, 3.0, 400.0, 5e4])


def kirchhoff(conductance: np.ndarray, lines: LineResistance) -> np.ndarray:
    """Currents into the grounds per volt on each row: every node potential and every branch current as an unknown.

    Ohm's law v_a - v_b - R i = 0 of each branch and the sum of currents at each inner node, in one dense system; R may be 0.
    """
    rows, columns = conductance.shape
    row_node = np.arange(rows * columns).reshape(rows, columns)
    column_node = row_node + rows * columns
    source, ground = 2 * rows * columns + np.arange(rows), 2 * rows * columns + rows + np.arange(columns)
    branches: list[tuple[np.ndarray, np.ndarray, Any]] = [
        (row_node, column_node, 1 / conductance),
        (source, row_node[:, 0], lines.row_contact_ohm),
        (row_node[:, :-1], row_node[:, 1:], lines.row_segment_ohm),
        (column_node[:-1], column_node[1:], lines.column_segment_ohm),
        (column_node[-1], ground, lines.column_contact_ohm),
    ]
    start = np.concatenate([np.ravel(a) for a, _, _ in branches])
    end = np.concatenate([np.ravel(b) for _, b, _ in branches])
    ohm = np.concatenate([np.broadcast_to(r, np.shape(a)).ravel() for a, _, r in branches])
    inner, count, nodes = 2 * rows * columns, len(ohm), 2 * rows * columns + rows + columns
    incidence = np.zeros((count, nodes))
    incidence[np.arange(count), start], incidence[np.arange(count), end] = 1, -1
    system = np.zeros((count + inner, inner + count))
    system[:count, :inner], system[:count, inner:] = incidence[:, :inner], -np.diag(ohm)
    system[count:, inner:] = incidence[:, :inner].T
    known = np.zeros((count + inner, rows))
    known[:count] = -incidence[:, source]
    return np.linalg.solve(system, known)[-columns:].T


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.builds(LineResistance, OHM, OHM, OHM, OHM), st.integers(0, 2**32 - 1))
def test_effective_conductances_solve_kirchhoffs_equations(
    rows: int, columns: int, lines: LineResistance, seed: int
) -> None:
    conductance = np.random.default_rng(seed).uniform(1e-6, 1e-4, (2, rows, columns))
    found = lines.effective(conductance)
    for i in range(2):
        expected = kirchhoff(conductance[i], lines)
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-9 * expected.max())


@pytest.mark.parametrize(("rows", "columns"), [(20, 20), (7, 24), (24, 7)])
def test_larger_arrays_solve_kirchhoffs_equations(rows: int, columns: int) -> None:
    lines = LineResistance(3.0, 4.0, 370.0, 200.0)
    conductance = np.random.default_rng(0).uniform(1e-5, 1e-4, (1, rows, columns))
    np.testing.assert_allclose(lines.effective(conductance)[0], kirchhoff(conductance[0], lines), rtol=1e-9)


def test_perfect_lines_leave_conductances_alone_and_open_devices_carry_nothing() -> None:
    conductance = np.random.default_rng(1).uniform(0, 1, (3, 4, 5))
    assert np.array_equal(LineResistance().effective(conductance), conductance)
    conductance[:, 2, 3] = 0
    tiny = LineResistance(1e-12, 1e-12, 1e-12, 1e-12).effective(conductance)
    np.testing.assert_allclose(tiny, conductance, rtol=1e-9, atol=1e-9)


def test_images_do_not_depend_on_each_other() -> None:
    lines = LineResistance(3.0, 3.0, 370.0, 370.0)
    conductance = np.random.default_rng(2).uniform(1e-5, 1e-4, (9, 20, 30))
    together = lines.effective(conductance)
    for i in range(9):
        assert np.array_equal(lines.effective(conductance[i : i + 1])[0], together[i])


def test_a_line_is_the_ladder_of_the_textbook() -> None:
    """N cells g, each behind a segment r: V_n / V_0 = cosh((N - n + 1/2) t) / cosh((N + 1/2) t), 2 cosh t = 2 + r g."""
    segment, siemens, count = 3.0, 10e-6, 70
    t = np.arccosh(1 + segment * siemens / 2)
    expected = np.cosh((count - np.arange(1, count + 1) + 0.5) * t) / np.cosh((count + 0.5) * t)
    conductance = np.full((1, 1, count), siemens)
    found = LineResistance(row_segment_ohm=segment, row_contact_ohm=segment).effective(conductance)[0, 0] / siemens
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_segment_resistance_gives_the_published_drop() -> None:
    """Bayat et al., Supplementary Note 1: about 7 % at the end of 70 devices of 10 uS (and, with V/2 writing, about 7 % for
    40 devices of some 30 uS). Between N devices lie N - 1 segments; from one on, segment n carries the current of N - n.
    """
    ohm = load_target("memristor20").parameters.r_row_segment_ohm
    lines = LineResistance(row_segment_ohm=ohm)
    for count, siemens, first_order in ((70, 10e-6, 69 * 70 / 2), (40, 30e-6, 39 * 40 / 2)):
        drop = 1 - lines.effective(np.full((1, 1, count), siemens))[0, 0, -1] / siemens
        assert drop == pytest.approx(0.07, abs=0.005)  # rounds to 7 %
        assert first_order * ohm * siemens * (1 - drop) < drop < first_order * ohm * siemens
