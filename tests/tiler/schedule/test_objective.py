"""Objectives: their text, and that each is served best by its own schedules."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import array_spec, check_schedule, layer_graphs, matrix_shapes, uses_of
from xbcompile.errors import ScheduleError
from xbcompile.tiler import MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.schedule.objective import OBJECTIVES, Figures, parse_objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_name_is_that_figure_itself(name):
    figures, bounds = Figures(3.0, 2.0, 7.0, 5), Figures(1.0, 1.0, 1.0, 1)
    assert parse_objective(name).weights == ((name, 1.0),)
    assert parse_objective(name).value(figures, bounds) == figures.of(name)


def test_a_weighted_sum_is_relative_to_the_bounds():
    figures, bounds = Figures(3.0, 2.0, 7.0, 5), Figures(1.5, 1.0, 2.0, 0)
    assert parse_objective("energy = 0.25, latency=2").value(figures, bounds) == 2 * 3 / 1.5 + 0.25 * 7 / 2
    assert parse_objective("weight-updates=1,throughput=1").value(figures, bounds) == 5 + 2  # a bound of 0 counts as 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed", "objective='speed': 'speed' is unknown; use one of latency, throughput, energy, weight-updates, or"),
        ("", "'' is unknown"),
        ("latency,energy", "'latency' has no weight"),
        ("latency=1,", "'' is unknown"),
        ("latency=1,latency=2", "'latency' is given twice"),
        ("latency=fast", "the weight 'fast' of 'latency' is no number"),
        ("latency=0", "the weight of 'latency' is 0; weights are positive numbers"),
        ("latency=-1", "weights are positive"),
        ("latency=nan", "weights are positive"),
        ("latency=1e-320,energy=1", "weights are positive numbers from 1e-100 to 1e+100"),
        ("latency=1,energy=1e308", "weights are positive numbers from 1e-100 to 1e+100"),
        ("latency=inf,energy=1", "weights are positive"),
    ],
)
def test_bad_objectives_are_explained(text, message):
    with pytest.raises(ScheduleError, match=re.escape(message)):
        parse_objective(text)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(matrix_shapes, min_size=2, max_size=4), st.integers(1, 24), st.booleans(), st.integers(0, 2), st.data())
def test_no_other_objective_gives_a_better_figure(shapes, arrays, while_reading, at_a_time, data):
    layout = plan_layout(shapes, 6, 6, effort=0)
    reads = data.draw(st.lists(st.integers(1, 9), min_size=len(shapes), max_size=len(shapes)))
    uses = uses_of(reads, data.draw(layer_graphs(len(shapes))), vectors=data.draw(st.sampled_from([1, 5])))
    spec = array_spec(6, 6, writes_while_reading=while_reading, writes_at_a_time=at_a_time)
    found, bounds = {}, set()
    for name in OBJECTIVES:
        schedule = make_schedule(layout, uses, spec, arrays=arrays, effort=0, objective=name)
        check_schedule(schedule, layout, uses, spec, arrays)
        writes = len(schedule.writes)
        bounds.add(
            (schedule.makespan_lower_bound_s, schedule.period_lower_bound_s, schedule.weight_updates_lower_bound)
        )
        found[name] = (schedule.makespan_s, schedule.period_s, writes, schedule.weight_updates)
    for figure, name in enumerate(OBJECTIVES):
        assert found[name][figure] == min(each[figure] for each in found.values()), name
    assert len(bounds) == 1  # whatever is looked for


def test_weights_move_the_balance_between_makespan_and_writes():
    # 9 equal images of one layer on 4 arrays: evenly spread, 3 + 2 + 2 + 2 and all written; or 3 stay and 6 take turns
    shapes = [MatrixShape(1, 4, 4)] * 9
    layout, spec = plan_layout(shapes, 4, 4, pack=False), array_spec(4, 4)
    uses = uses_of([1] * 9, [[]] * 9)
    balance = [
        make_schedule(layout, uses, spec, arrays=4, effort=0, objective=f"latency={w},weight-updates={1 - w}")
        for w in (0.01, 0.5, 0.99)
    ]
    makespans, updates = [s.makespan_s for s in balance], [s.weight_updates for s in balance]
    assert updates[0] == 6 < updates[2]
    assert makespans[0] > makespans[2]
    assert sorted(makespans, reverse=True) == makespans
