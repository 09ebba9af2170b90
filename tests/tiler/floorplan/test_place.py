"""Floorplans and placements on them, against all permutations and instances whose optimum is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.errors import ScheduleError
from xbcompile.ir.site_grid import MAX_SITES, SiteGrid
from xbcompile.tiler.floorplan import place as floorplan_module
from xbcompile.tiler.floorplan.bounds import lower_bound, nearest_distances
from xbcompile.tiler.floorplan.place import place_on_floorplan
from xbcompile.tiler.floorplan.search import Graph, _start_of, search
from xbcompile.tiler.floorplan.solver import _ascend, _different_sites, _root, solve
from xbcompile.tiler.floorplan.traffic import Traffic

MANY = settings(deadline=None, derandomize=True, max_examples=60)

floorplans = st.builds(SiteGrid, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12))


def traffic_of(pairs):
    """Traffic of {(a, b): values}, a < b."""
    table = np.array([(a, b, v) for (a, b), v in sorted(pairs.items())], dtype=np.int64).reshape(-1, 3)
    return Traffic(table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), table[:, 2])


def cost_of(traffic, site, distance):
    rows = zip(traffic.array_a.tolist(), traffic.array_b.tolist(), traffic.values.tolist(), strict=True)
    return sum(values * int(distance[site[a], site[b]]) for a, b, values in rows)


@st.composite
def problems(draw, most_arrays, most_sites):
    floorplan = draw(floorplans.filter(lambda f: f.sites <= most_sites))
    arrays = draw(st.integers(1, min(floorplan.sites, most_arrays)))
    pairs = list(itertools.combinations(range(arrays), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return traffic_of({pair: draw(st.integers(1, 10**9)) for pair in chosen}), arrays, floorplan


def by_permutations(traffic, arrays, floorplan):
    distance = floorplan.distance()
    orders = np.array(list(itertools.permutations(range(floorplan.sites), arrays)))
    hops = distance[orders[:, traffic.array_a], orders[:, traffic.array_b]]
    return int((hops @ traffic.values).min())


# ---- the floorplan ----


@pytest.mark.parametrize(
    ("text", "floorplan"),
    [
        ("4x5", SiteGrid(4, 5, 1)),
        ("4x5x2", SiteGrid(4, 5, 2)),
        (" 1x1x1 ", SiteGrid(1, 1, 1)),
        ("64x64", SiteGrid(64, 64)),
    ],
)
def test_text(text, floorplan):
    assert SiteGrid.parse(text) == floorplan
    assert SiteGrid.parse(str(floorplan)) == floorplan


@pytest.mark.parametrize("text", ["", "4", "4x", "4x4x4x4", "-1x4", "4 x 4", "axb", "4.0x4", "4×4"])
def test_other_text(text):
    with pytest.raises(ScheduleError, match="give site rows x site columns, as in 8x8, or"):
        SiteGrid.parse(text)


def test_impossible_numbers():
    with pytest.raises(ScheduleError, match="site_columns = 0; it must be at least 1"):
        SiteGrid.parse("4x0")
    with pytest.raises(ScheduleError, match="chip_hop_cost = 0; it must be at least 1"):
        SiteGrid.parse("4x4x2", chip_hop_cost=0)
    with pytest.raises(ScheduleError, match="4096x1025x1: 4,198,400 sites are more than the 4,194,304"):
        SiteGrid(4096, MAX_SITES // 4096 + 1)


def test_distance_is_the_shortest_way_over_the_wires():
    """Floyd and Warshall over neighbouring sites and facing chip edges; site numbers go chip, row, column."""
    floorplan = SiteGrid(2, 3, 3, 7)
    length = np.full((18, 18), 10**6)
    np.fill_diagonal(length, 0)
    for chip, row, column in itertools.product(range(3), range(2), range(3)):
        here = (chip * 2 + row) * 3 + column
        if column < 2:
            length[here, here + 1] = length[here + 1, here] = 1
        if row < 1:
            length[here, here + 3] = length[here + 3, here] = 1
        if column == 2 and chip < 2:
            there = ((chip + 1) * 2 + row) * 3
            length[here, there] = length[there, here] = 7
    for via in range(18):
        length = np.minimum(length, length[:, via, None] + length[via])
    assert np.array_equal(floorplan.distance(), length)


@MANY
@given(floorplans)
def test_nearest_distances_hold_for_every_site(floorplan):
    nearest = nearest_distances(floorplan, 1000)
    found = np.sort(floorplan.distance(), axis=1)[:, 1:]
    assert nearest.shape == (floorplan.sites - 1,)
    assert (nearest <= found).all()
    if floorplan.chips == 1 and len(nearest):
        assert np.array_equal(nearest, found.min(axis=0))
    assert np.array_equal(nearest_distances(floorplan, 3), nearest[:3])


# ---- placements ----


@MANY
@given(problems(6, 6))
def test_few_arrays_are_placed_as_the_best_permutation(problem):
    best = by_permutations(*problem)
    assert lower_bound(*problem) <= best
    placement = place_on_floorplan(*problem, effort=0.07)
    assert (placement.cost, placement.lower_bound, placement.status) == (best, best, "optimal")


@MANY
@given(problems(5, 6), st.floats(0, 1))
def test_the_solver_alone_is_exact_or_honest(problem, effort):
    """From the worst placement, with any effort: a bound below the optimum, a cost above it; both meet when there is time."""
    traffic, arrays, floorplan = problem
    graph = Graph.of(traffic, arrays, floorplan)
    best = by_permutations(*problem)
    place = np.arange(arrays)
    found, bound = solve(graph, floorplan, place, bound=0, effort=effort * 1e-5)
    assert bound <= best <= graph.cost(found) <= graph.cost(place)
    found, bound = solve(graph, floorplan, place, bound=0, effort=1)
    assert bound == best == graph.cost(found)


def says(node, place):
    """What a node's tables say of a placement."""
    at = [node.columns.tolist().index(place[row]) for row in node.rows]
    total = node.bound + sum(int(node.linear[i, p]) for i, p in enumerate(at))
    pairs = itertools.permutations(enumerate(at), 2)
    return total + sum(int(node.quadratic[i, p, j, q]) for (i, p), (j, q) in pairs)


@MANY
@given(problems(5, 6), st.integers(0, 4), st.randoms(use_true_random=False))
def test_what_the_ascent_does_to_its_tables(problem, rounds, random):
    """They say what a placement costs; less only where a site is free. So do those of a child of which it is one."""
    traffic, arrays, floorplan = problem
    graph = Graph.of(traffic, arrays, floorplan)
    node, scale = _root(graph)
    place = random.sample(range(floorplan.sites), arrays)
    cost = graph.cost(np.array(place)) * scale
    assert says(node, place) == cost
    for placed in range(arrays):
        node, _ = _ascend(node, rounds, 1e9, 1 << 60)
        assert min(node.bound, node.linear.min(), node.quadratic.min()) >= 0
        if arrays == floorplan.sites:
            assert says(node, place) == cost
        assert says(node, place) <= cost
        parent, column = node, node.columns.tolist().index(place[placed])
        node = parent.child(0, column)
        assert node.placed[-1] == (placed, place[placed])
        assert says(node, place) == says(parent, place)


@pytest.mark.parametrize(
    ("floorplan", "count"),
    [
        (SiteGrid(3, 3), 3),
        (SiteGrid(4, 4), 3),
        (SiteGrid(2, 3), 2),
        (SiteGrid(4, 2, 2), 4),
        (SiteGrid(2, 1, 2), 1),
    ],
)
def test_sites_that_reflections_exchange(floorplan, count):
    """One of each kind: every site has the distances of one of them, and chips that make up a square are not turned."""
    graph = Graph.of(traffic_of({}), 1, floorplan)
    chosen = graph.site.reshape(-1)[_different_sites(graph, floorplan)]
    distances = np.sort(floorplan.distance(), axis=1)
    assert len(chosen) == count
    assert {tuple(row) for row in distances[chosen].tolist()} == {tuple(row) for row in distances.tolist()}


def test_with_free_sites_the_last_array_tries_them_all():
    """Here the tables say 7 of the last array's wrong site, and 8 of the best placement."""
    traffic = traffic_of({(0, 2): 1, (0, 4): 2, (1, 2): 1, (1, 3): 1, (2, 4): 1})
    floorplan = SiteGrid(1, 3, 2, 2)
    graph = Graph.of(traffic, 5, floorplan)
    place, bound = solve(graph, floorplan, np.arange(5), bound=0, effort=1)
    assert bound == graph.cost(place) == by_permutations(traffic, 5, floorplan) == 8


@MANY
@given(problems(27, 27), st.integers(0, 3), st.sampled_from([0, 0.02]))
def test_invariants(problem, seed, effort):
    traffic, arrays, floorplan = problem
    placement = place_on_floorplan(*problem, seed=seed, effort=effort)
    assert placement.site.dtype == np.int32
    assert placement.site.shape == (arrays,)
    assert len(set(placement.site.tolist())) == arrays
    assert placement.site.min() >= 0
    assert placement.site.max() < floorplan.sites
    distance = floorplan.distance()
    assert placement.cost == cost_of(traffic, placement.site, distance)
    assert placement.cost >= placement.lower_bound >= traffic.values.sum()  # no two arrays are closer than one hop
    assert (placement.status == "optimal") == (placement.cost == placement.lower_bound)
    assert placement == place_on_floorplan(*problem, seed=seed, effort=effort)


def grid_traffic(rows, columns, values=3):
    """A grid's own neighbours, its arrays shuffled: on that grid every value moves one hop, and never less."""
    number = np.random.default_rng(1).permutation(rows * columns).reshape(rows, columns)
    pairs = {}
    for row, column in itertools.product(range(rows), range(columns)):
        for other in ((row + 1, column), (row, column + 1)):
            if other[0] < rows and other[1] < columns:
                pair = sorted((int(number[row, column]), int(number[other])))
                pairs[tuple(pair)] = values
    return traffic_of(pairs)


@pytest.mark.parametrize("size", [(1, 8), (3, 4), (5, 5), (12, 12)])
def test_a_grid_is_placed_on_itself(size):
    traffic = grid_traffic(*size)
    placement = place_on_floorplan(traffic, size[0] * size[1], SiteGrid(*size), effort=1)
    assert placement.cost == placement.lower_bound == traffic.values.sum()
    assert placement.status == "optimal"


def test_a_star_is_placed_around_its_middle():
    """8 arrays around one on 3 x 3: four at one hop, four at two; the greatest values near: proven by the bound alone."""
    traffic = traffic_of({(0, leaf): 100 * leaf for leaf in range(1, 9)})
    placement = place_on_floorplan(traffic, 9, SiteGrid(3, 3), effort=0.1)
    assert placement.cost == 100 * (8 + 7 + 6 + 5) + 200 * (4 + 3 + 2 + 1)
    assert lower_bound(traffic, 9, SiteGrid(3, 3)) == placement.cost


def test_a_triangle_costs_four():
    """A grid has no triangle: of three sites two are two hops apart. The solver's bound proves it."""
    placement = place_on_floorplan(traffic_of({(0, 1): 1, (0, 2): 1, (1, 2): 1}), 3, SiteGrid(2, 2))
    assert (placement.cost, placement.lower_bound) == (4, 4)


def test_cliques_go_to_chips_of_their_own():
    """Two cliques of four with one value between them, two chips of 2 x 2, 10 per crossing: 2 * (4 + 2 * 2) * 5 + 10."""
    pairs = dict.fromkeys(itertools.combinations((0, 2, 4, 6), 2), 5)
    pairs |= dict.fromkeys(itertools.combinations((1, 3, 5, 7), 2), 5)
    placement = place_on_floorplan(traffic_of({**pairs, (0, 1): 1}), 8, SiteGrid(2, 2, 2))
    assert placement.cost == placement.lower_bound == 90
    assert len(set((placement.site[::2] // 4).tolist())) == 1


def random_traffic(arrays):
    random = np.random.default_rng(2)
    ends = np.sort(random.integers(0, arrays, (3 * arrays, 2)))
    return traffic_of({(int(a), int(b)): int(random.integers(1, 100)) for a, b in ends if a != b})


def test_more_effort_is_never_worse():
    traffic = random_traffic(150)
    found = [place_on_floorplan(traffic, 150, SiteGrid(16, 10), effort=effort) for effort in (0, 0.0625, 0.15, 0.3)]
    for less, more in itertools.pairwise(found):
        assert more.cost <= less.cost
        assert more.lower_bound >= less.lower_bound
    assert found[-1].cost < found[1].cost < found[0].cost


def test_more_effort_of_the_solver_is_never_worse():
    traffic, floorplan = random_traffic(8), SiteGrid(3, 3)
    graph = Graph.of(traffic, 8, floorplan)
    found = [solve(graph, floorplan, np.arange(8), bound=1, effort=effort) for effort in (0, 1e-5, 1e-4, 1e-3, 1e-2, 1)]
    for (place, bound), (better, higher) in itertools.pairwise(found):
        assert graph.cost(better) <= graph.cost(place)
        assert higher >= bound
    assert found[0][1] == 1
    assert found[2][1] > traffic.values.sum()
    assert found[-1][1] == graph.cost(found[-1][0])


def test_the_search_alone_finds_the_grid():
    """5 x 5 grid's own traffic, from a start that is no solution."""
    traffic, floorplan = grid_traffic(5, 5), SiteGrid(5, 5)
    graph = Graph.of(traffic, 25, floorplan)
    assert graph.cost(search(graph, seed=0, effort=0, enough=0)) > traffic.values.sum()
    assert graph.cost(search(graph, seed=0, effort=1, enough=0)) == traffic.values.sum()
    for seed in (2**47, 2**64 + 1, 2**128 - 1):  # as large as `compile --seed` takes them
        place = search(graph, seed=seed, effort=1 / 16, enough=0)
        assert len(set(place.tolist())) == graph.arrays
    starts = {_start_of(seed + (high << 64), run) for seed in range(20) for high in (0, 1, 1 << 63) for run in range(9)}
    assert len(starts) == 20 * 3 * 9
    assert max(starts) < 2**63


def test_large_problems_are_bounded_without_assignment_and_solver(monkeypatch):
    monkeypatch.setattr(floorplan_module, "solve", None)
    traffic = grid_traffic(40, 40)
    placement = place_on_floorplan(traffic, 1600, SiteGrid(40, 20, 2), effort=0.0625)
    assert traffic.values.sum() <= placement.lower_bound <= placement.cost
    order = np.arange(1600)
    assert placement.cost < cost_of(traffic, order, SiteGrid(40, 20, 2).distance()) / 5


def test_impossible_arguments():
    nothing = traffic_of({})
    with pytest.raises(ScheduleError, match=r"floorplan 2x2x1: 4 sites for 5 arrays; use a larger grid or more chips"):
        place_on_floorplan(nothing, 5, SiteGrid(2, 2))
    with pytest.raises(ScheduleError, match="effort=nan: give a number from 0 up"):
        place_on_floorplan(nothing, 1, SiteGrid(2, 2), effort=float("nan"))
    with pytest.raises(ScheduleError, match="seed=-1: the seed of the search must not be negative"):
        place_on_floorplan(nothing, 1, SiteGrid(2, 2), seed=-1)


def test_nothing_to_place_or_to_move():
    empty = place_on_floorplan(traffic_of({}), 0, SiteGrid(1, 1))
    assert (empty.cost, empty.lower_bound, empty.status, len(empty.site)) == (0, 0, "optimal", 0)
    quiet = place_on_floorplan(traffic_of({}), 4, SiteGrid(2, 2))
    assert (quiet.cost, quiet.status) == (0, "optimal")
    assert sorted(quiet.site.tolist()) == [0, 1, 2, 3]
