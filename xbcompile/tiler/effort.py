"""Effort: how long searches may take, counted in work and not in seconds, so that every machine finds the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xbcompile.deferred import library

if TYPE_CHECKING:
    from ortools.sat.python import cp_model
else:
    cp_model = library("ortools.sat.python.cp_model")


DEFAULT_EFFORT = 1.0  # one unit takes some seconds of one core
FIRST_EFFORT = 1 / 64  # searches that try larger and larger efforts start from here
_LISTENING = 0.1  # seconds between two looks for signals
_STOP_AGAIN = 0.05  # seconds; a solver that has just begun does not hear that it is to stop


@dataclass
class Allowance:
    """Deterministic time that is left for the solver: the same on every machine, unlike seconds.

    `ran_out` tells whether a solve ended for lack of time, so that more of it might change the result.
    """

    left: float
    ran_out: bool = False

    def solver(self, share: float = 1.0) -> cp_model.CpSolver:
        """A single-threaded, seeded solver that stops when this share of the allowance is spent."""
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 0
        solver.parameters.catch_sigint_signal = False  # it would end the search, and the command would go on
        solver.parameters.max_deterministic_time = max(self.left * share, 0.0)
        return solver

    def spend(self, solver: cp_model.CpSolver, status: cp_model.CpSolverStatus | None = None) -> None:
        """Account for a finished solve; a status other than a decision says that more time might have decided."""
        self.left -= solver.response_proto.deterministic_time
        if status is not None and status not in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.INFEASIBLE):
            self.ran_out = True


def solve(solver: cp_model.CpSolver, model: cp_model.CpModel) -> cp_model.CpSolverStatus:
    """Run a solver, which Ctrl-C ends at any moment.

    The solver itself would take Ctrl-C for the end of its time, and the search would go on; while it runs, Python handles no
    signals. So it has a thread of its own.
    """
    solver.parameters.catch_sigint_signal = False
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(solver.solve, model)
        try:
            while not wait([ending], _LISTENING).done:
                pass  # a signal that another thread took is handled here
            return ending.result()
        finally:
            while not ending.done():
                solver.stop_search()
                wait([ending], _STOP_AGAIN)
