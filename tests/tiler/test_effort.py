"""A solver that runs is interrupted by Ctrl-C, as Python code is."""

from __future__ import annotations

import signal
import time

import pytest
from ortools.sat.python import cp_model

from xbcompile.tiler.effort import Allowance, solve


def pigeons(holes: int) -> cp_model.CpModel:
    """One pigeon more than there are holes: what no propagation proves impossible."""
    model = cp_model.CpModel()
    sits = [[model.new_bool_var("") for _ in range(holes)] for _ in range(holes + 1)]
    for pigeon in sits:
        model.add_bool_or(pigeon)
    for hole in zip(*sits, strict=True):
        for one, first in enumerate(hole):
            for second in hole[:one]:
                model.add_bool_or(~first, ~second)
    return model


def test_an_interruption_ends_the_solver():
    solver = Allowance(1e4).solver()
    solver.parameters.symmetry_level = 0
    solver.parameters.cp_model_presolve = False
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)  # SIGINT itself may be ignored where tests run
    try:
        with pytest.raises(KeyboardInterrupt):
            solve(solver, pigeons(30))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0.4 < time.monotonic() - started < 5


def test_a_solver_gives_what_it_finds():
    model = cp_model.CpModel()
    number = model.new_int_var(0, 9, "")
    model.maximize(number)
    solver = Allowance(1.0).solver()
    assert solve(solver, model) == cp_model.OPTIMAL
    assert solver.value(number) == 9
