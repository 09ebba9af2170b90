"""Why a plan does not fit: requirements, what binds, and changes that help when made."""

from __future__ import annotations

import re

import pytest

import xbcompile
from xbcompile.errors import ScheduleError
from xbcompile.options import PlanOptions
from xbcompile.planning import requirements as fitting
from xbcompile.planning.planner import Planner
from xbcompile.planning.requirements import parse_requirement
from xbcompile.planning.shapes import problem_of_shapes
from xbcompile.targets import load_target

SMALL = [[100, 40], [40, 100], [100, 70]]  # 11,000 weights, of which 64x64 arrays hold 2.69
LENET_5 = [[25, 6], [150, 16], [400, 120], [120, 84], [84, 10]]
READ_S = 1 / 11.1e6  # mram64: one cycle
WRITE_S = 128 / 11.1e6  # two cycles for each of 64 rows


# --- why it does not fit -----------------------------------------------------------------------------------------------


def options_of(text):
    """Arguments of `plan` for options as they are written on the command line."""
    (name, value), *rest = re.findall(r"--(\S+) (\S+)", text)
    assert not rest
    if name == "array":
        return {"array": tuple(int(each) for each in value.split("x"))}
    return {name: int(value) if value.isdigit() else value}


@pytest.mark.parametrize(
    ("requirement", "options"),
    [
        ("stationary", {}),
        ("images<=2", {}),
        ("images<=3", {"cuts": "balanced", "packing": "in-order"}),
        ("arrays<=2", {"arrays": 0}),
        ("weight_updates<=2", {"arrays": 2, "cuts": "greedy"}),
        ("latency_s<=2e-5", {"cuts": "greedy"}),
        ("period_s<=1e-6", {"arrays": 8, "cuts": "greedy"}),
        ("t_per_inference_s<=1e-5", {"cuts": "greedy"}),
        ("energy_j<=5e-8", {"cuts": "greedy"}),
        ("tiles<=5", {"cuts": "greedy"}),
        ("reads<=30", {"cuts": "greedy"}),
    ],
)
def test_relaxations_help_when_made(requirement, options):
    options = {"effort": 0.0, **options}
    (row,) = xbcompile.plan(SMALL, "mram64", require=[requirement], **options).summary["requirements"]
    assert row["verdict"] in ("impossible", "not found")
    assert row["binds"]
    assert row["relaxations"]
    for each in row["relaxations"]:
        changed = {**options, **options_of(each["option"])}
        plan = xbcompile.plan(SMALL, "mram64", require=[requirement], **changed)
        assert plan.fits
        assert plan.summary["requirements"][0]["found"] == each[row["quantity"]]
        assert plan.schedule.images == each["images"]
        assert each["meets_all"]
        smaller = dict(changed)
        if each["change"] in ("arrays", "batch") and requirement != "arrays<=2":
            smaller[each["change"]] -= 1
        elif each["change"] == "columns":
            smaller["array"] = (changed["array"][0], changed["array"][1] - 1)
        if smaller != changed:
            assert not xbcompile.plan(SMALL, "mram64", require=[requirement], **smaller).fits


def test_the_smallest_change_is_searched_for_where_bounds_allow_less():
    """Bounds allow 3, and 20 it takes: doubled from 3, bisected, and planned once more with all the effort."""

    class Search(fitting._Search):
        def possible(self, options):
            return options.arrays >= 3

        def planned(self, options):
            asked.append(options.arrays)
            return mapping if options.arrays >= 20 else None

    asked = []
    requirement = parse_requirement("stationary")
    planner = Planner(problem_of_shapes(SMALL, "small", 8, ""), load_target("mram64").array_spec)
    mapping = planner.map(PlanOptions(effort=0))
    search = Search(requirement, [requirement], planner)
    knob = fitting._Knob("arrays", lambda k: f"--arrays {k}", lambda k: PlanOptions(arrays=k), 1000)
    row = search.smallest(knob)
    assert (row["option"], row["at_least"]) == ("--arrays 20", "--arrays 3")
    assert asked == [3, 6, 12, 24, 18, 21, 19, 20, 20]


def test_fewer_slices_are_a_relaxation():
    """One array holds the matrix: 8 reads take too long, 5 just do."""
    limit = 5 * READ_S
    (row,) = xbcompile.plan([[64, 64]], "mram64", require=[f"latency_s<={limit!r}"]).summary["requirements"]
    assert row["verdict"] == "impossible"
    assert row["lower_bound"] == pytest.approx(8 * READ_S)
    slices = next(each for each in row["relaxations"] if each["change"] == "slices")
    assert (slices["option"], slices["at_least"]) == ("--slices 5", "--slices 5")
    assert slices["latency_s"] == pytest.approx(limit)


def test_arrays_for_stationary_weights_and_batch_for_energy():
    (row,) = xbcompile.plan([[64, 64]] * 5, "mram64", arrays=2, require="stationary", effort=0).summary["requirements"]
    assert (row["found"], row["lower_bound"], row["limit"]) == (False, 5, None)
    assert row["binds"] == "5 images do not stay on 2 arrays"
    assert row["relaxations"][0]["option"] == "--arrays 5"
    # 5 writes per batch: the reads alone take 40 e_read
    spec = load_target("mram64").array_spec
    limit = 40 * spec.e_read_j + 5 * spec.e_write_j / 7
    summary = xbcompile.plan([[64, 64]] * 5, "mram64", require=f"energy_j<={limit!r}", effort=0).summary
    assert summary["requirements"][0]["binds"].startswith("writes take")
    assert summary["requirements"][0]["relaxations"][0]["option"] == "--batch 7"


def test_verdicts(monkeypatch):
    """Balanced cuts take 8 images, proven; any cuts take 4."""
    require = ["images<=7", "images<=8", "latency_s<=1"]
    rows = xbcompile.plan(SMALL, "mram64", require=require, cuts="balanced", effort=0).summary["requirements"]
    assert [row["verdict"] for row in rows] == ["impossible", "met", "met"]
    assert rows[0]["lower_bound"] == 8
    assert rows[0]["relaxations"][0]["option"] == "--cuts greedy"
    assert rows[1]["relaxations"] == []
    # just below what is found, but above the bound
    monkeypatch.setattr(fitting, "_relaxations", lambda *_: [])
    found = xbcompile.plan(LENET_5, "mram64", arrays=4, effort=0).schedule.makespan_s
    (row,) = xbcompile.plan(LENET_5, "mram64", arrays=4, effort=0, require=[f"latency_s<={found * 0.999}"]).summary[
        "requirements"
    ]
    assert row["verdict"] == "not found"


def test_what_binds():
    def binds(require, entries=LENET_5, **options):
        return xbcompile.plan(entries, "mram64", require=[require], effort=0, **options).summary["requirements"][0][
            "binds"
        ]

    long = [{"name": "a", "inputs": 64, "outputs": 64}, {"name": "b", "inputs": 64, "outputs": 64, "vectors": 50}]
    assert binds("latency_s<=1e-9", long, arrays=0).startswith("critical path of 2 layers")
    assert "most of it in 'b'" in binds("latency_s<=1e-9", long, arrays=0)
    assert binds("latency_s<=1e-9").startswith("16 writes on 1 array")
    assert binds("latency_s<=1e-9", batch=1000).startswith("reads on 1 array")
    assert binds("period_s<=1e-9", long, arrays=0).endswith("'b' takes its array longest")
    assert binds("images<=1") == "61,470 weights fill 15.01 arrays of 64x64; 16 images hold them"
    assert binds("energy_j<=1e-12", batch=1000).startswith("reads take")
    assert binds("tiles<=1").endswith("tiles of at most 64x64, each read once per slice and vector")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "requirement 'fast' is unknown"),
        ("stationary<=1", "requirement 'stationary<=1' is unknown"),
        ("latency_s<1", "is unknown"),
        ("colour<=3", "requirement 'colour<=3' is unknown"),
        ("images<=many", "'many' is no number of 0 or more"),
        ("images<=nan", "'nan' is no number"),
        ("images<=-1", "'-1' is no number"),
        ("images<=", "'' is no number"),
    ],
)
def test_malformed_requirements(text, message):
    with pytest.raises(ScheduleError, match=re.escape(message)):
        parse_requirement(text)
