"""Switching of serial junctions: against loops that are swept, by hand, and what an array keeps of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from tests.support.device_kit import read_images
from xbcompile.targets import load_target
from xbcompile.targets.families.junction_switching import PARALLEL, SwitchingCells, current_at, programming_volts
from xbcompile.targets.families.serial_junctions import SerialJunctionArray, SerialJunctionParameters

P: SerialJunctionParameters = load_target("multicell").parameters
LINEAR = replace(P, slope_parallel_ohm_per_volt=0.0, slope_antiparallel_ohm_per_volt=0.0)


def test_write_voltages_of_constant_resistances_by_hand() -> None:
    """Each switches at 0.313 V over 850 Ohm, while those before it are 1785 Ohm and those behind it 850 Ohm."""
    p = replace(LINEAR, junctions=3)
    current = 0.313 / 850
    expected = [current * (850 * (3 - n) + 1785 * n) for n in range(3)]
    np.testing.assert_allclose(SwitchingCells.nominal(p).write_volts(), expected, rtol=1e-12)
    assert SwitchingCells.nominal(p).erase_volt() == pytest.approx(3 * 0.313)


def test_the_last_of_seven_switches_at_the_published_voltage() -> None:
    assert SwitchingCells.nominal(replace(P, junctions=7)).write_volts()[-1] == pytest.approx(3.25, abs=0.01)


def test_the_current_is_the_root() -> None:
    cells = SwitchingCells.of_chip(P, 3, 1)
    ohm, slope = cells.in_states(np.array([[True], [False], [True], [True]]))
    found = current_at(ohm, slope, 1.5)
    root = optimize.brentq(lambda i: float(np.sum(i * ohm / (1 - i * slope))) - 1.5, 1e-5, 1e-3, xtol=1e-16)
    np.testing.assert_allclose(found, root, rtol=1e-9)
    assert cells.cell_volt(found, ohm > 1300) == pytest.approx(1.5)


@pytest.mark.parametrize("junctions", [1, 2, 5])
def test_loops_switch_at_the_write_and_erase_voltages(junctions: int) -> None:
    """A sweep in small steps: N jumps up where the closed form has them, all of them down by the erase voltage."""
    p = replace(P, junctions=junctions)
    cells = SwitchingCells.of_chip(p, 7, 3)
    step = 1e-3
    up = np.arange(step, 1.05 * cells.write_volts().max(), step)
    down = -np.arange(step, 1.05 * cells.erase_volt().max(), step)
    ohm = cells.loop(np.concatenate([up, down]))
    for cell in range(3):
        rising = up[1:][np.diff(ohm[: len(up), cell]) > 200]
        np.testing.assert_allclose(rising, cells.write_volts()[:, cell], atol=2 * step)
        low = cells.ohm[PARALLEL, :, cell].sum()
        erased = -down[np.argmax(np.isclose(ohm[len(up) :, cell], low, rtol=1e-3))]
        assert erased == pytest.approx(cells.erase_volt()[cell], abs=2 * step)


def test_equal_junctions_switch_one_by_one() -> None:
    """A nominal cell of three passes through every state on its way up: jumps of one junction's 935 Ohm, less its slope."""
    cells = SwitchingCells.nominal(replace(LINEAR, junctions=3))
    volts = np.arange(0.005, 1.7, 0.005)
    assert np.unique(np.round(cells.loop(volts))).tolist() == [2550.0, 3485.0, 4420.0, 5355.0]


def test_the_weakest_junctions_come_first() -> None:
    cells = SwitchingCells.nominal(P)
    volt = cells.threshold_volt.copy()
    volt[PARALLEL] = [0.33, 0.30, 0.32, 0.31]
    assert replace(cells, threshold_volt=volt).order().tolist() == [3, 0, 2, 1]


def test_one_voltage_per_state_fails_only_where_cells_differ() -> None:
    """Without spread every cell ends in its state; with it about as often as write voltages cross the amplitudes."""
    exact = replace(P, resistance_sigma=0.0, slope_sigma=0.0, v_switch_sigma_volt=0.0)
    for junctions in (1, 4):
        p = replace(exact, junctions=junctions)
        reached = (SwitchingCells.nominal(p).write_volts() <= programming_volts(p)[:, None]).sum(axis=1)
        assert reached.tolist() == list(range(junctions + 1))
    assert np.all(np.diff(programming_volts(P)) > 0)


def test_an_array_in_an_open_loop_has_wrong_cells_of_its_own() -> None:
    p = replace(P, rows=30, columns=20, open_loop_writing=True, v_switch_sigma_volt=0.015)
    cells = np.random.default_rng(0).integers(0, len(p.levels), (30, 20), np.uint8)
    wanted = np.stack([p.pairs[cells, side] for side in range(2)])
    found = SerialJunctionArray(p, 1).antiparallel(0, cells).sum(axis=1)
    wrong = found != wanted
    assert 0.01 < wrong.mean() < 0.12  # 4 to 5 % of many cells
    assert np.all(found[wanted == 0] == 0)
    assert np.abs(found - wanted).max() == 1
    assert np.array_equal(found, SerialJunctionArray(p, 1).antiparallel(0, cells).sum(axis=1))
    assert not np.array_equal(found, SerialJunctionArray(p, 2).antiparallel(0, cells).sum(axis=1))
    closed = SerialJunctionArray(replace(p, open_loop_writing=False), 1).antiparallel(0, cells)
    np.testing.assert_array_equal(closed.sum(axis=1), wanted)
    still = replace(p, v_switch_sigma_volt=0.0, resistance_sigma=0.0)
    np.testing.assert_array_equal(SerialJunctionArray(still, 1).antiparallel(0, cells).sum(axis=1), wanted)


def test_a_loaded_divider_is_a_mean_of_the_inputs_weighted_by_conductance() -> None:
    """Fig. 4a without load: sum G V / sum G in each branch, in units of V_read (G_max - G_min) / G_sum."""
    p = replace(LINEAR, rows=6, columns=3, divider_loads=True)
    device = SerialJunctionArray(p, 4)
    rng = np.random.default_rng(1)
    cells = rng.integers(0, len(p.levels), (6, 3), np.uint8)
    drive = rng.uniform(-1, 1, 6).astype(np.float32)
    siemens = device.currents(0, cells)[:, 0] / 0.2
    branch = (drive @ siemens) / siemens.sum(axis=1)
    common = 6 * (p.cell_siemens[0] + p.cell_siemens[-1]) / 2
    found = read_images(device, 0, 0, cells, drive[None, None, None])[0, 0, 0]
    np.testing.assert_allclose(found, (branch[0] - branch[1]) * common / p.level_siemens, rtol=1e-5, atol=1e-5)
