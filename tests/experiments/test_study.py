"""The error study: laws that follow from the error model, what it measures through, its files and its errors."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.cli import main
from xbcompile.cli.studying import parse_states, run_study
from xbcompile.errors import TargetError, XbcompileError
from xbcompile.experiments.random_products import (
    RandomProducts,
    StudySettings,
    one_layer_program,
    program_errors,
    states_between,
    with_errors,
)
from xbcompile.experiments.study import accuracy, best_states, by_inputs, by_sigma, by_states, fewest_states, study
from xbcompile.runtime import Session
from xbcompile.targets import load_target

M2TJ4 = load_target("m2tj4")
DIGITS = Path(__file__).parents[2] / "models" / "digits_mlp.onnx"
SMALL = StudySettings(M2TJ4, seeds=2, states=(2, 4, 8), matrices=3, vectors=2, inputs=(4, 8))
MANY = StudySettings(M2TJ4, seeds=3, states=(2, 3, 4, 6, 9, 13, 20, 32), matrices=20, vectors=5)


@pytest.fixture(scope="module")
def many():
    """One set of products for all measurements: their codes are fitted once."""
    return RandomProducts(MANY)


def test_quantization_falls_about_as_one_over_n(many):
    """D4.2, Fig. 13; a little faster while scale and offset are fitted to 16 weights only (1.01 at 256 uniform ones)."""
    exponent = by_states(many)["quantization_exponent"]["mean"]
    assert -1.2 < exponent < -1.0


def test_uniform_weights_are_quantized_as_well_as_a_rounded_range():
    """Rounding 1..-1 to N levels that reach both ends errs by 1 / ((N - 1) sqrt(3)); the optimum is below it."""
    products = RandomProducts(replace(MANY, weights="uniform", seeds=1))
    for states in (4, 16):
        assert 0 < products.measure(states, 0, 0).weight.max() < 1 / ((states - 1) * np.sqrt(3))


def test_plateau_of_four_states(many):
    """D4.2, section 4.2: 0.25 at sigma_NL = 0, closer to 0.3 at 10 Ohm."""
    part = by_sigma(many)
    assert part["plateau"]["mean"] == pytest.approx(0.25, abs=0.03)
    assert part["perp"][1]["sigma_nl_ohm"] == 10
    assert part["plateau"]["mean"] < part["perp"][1]["plateau"]["mean"] < 0.33
    for each in part["perp"]:  # flat, then a straight line
        assert each["rmse"]["mean"][0] == pytest.approx(each["plateau"]["mean"], rel=0.03)
        assert each["rmse"]["mean"][-1] == pytest.approx(300 * part["slope_perp_per_ohm"]["mean"], rel=0.1)


def test_own_offsets_average_and_shared_ones_do_not(many):
    """D4.2, Fig. 16, right. Expected per output, inputs u in 0..1, shares p of the levels: own E sum u^2 = 4 / 3, shared
    that plus sum over pairs of 1/4 P(same level) > 0: the shared ones weigh more.
    """
    assert 1.05 < by_sigma(many)["slope_ratio"] < 1.6


def test_device_error_is_linear_in_sigma(many):
    """With the same chips the offsets are sigma times fixed draws."""
    one, ten = (many.measure(4, 0, sigma).device for sigma in (1.0, 10.0))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-3)
    assert many.measure(4, 0, 0).device.max() < 1e-6


def test_own_offsets_have_their_expected_size(many):
    """An output errs by a_R^-1 sum u e, so by sigma / a_R sqrt(sum u^2) with 1 / a_R = 2 scale / range."""
    scale = np.stack([many._codes(seed, 4).scale[:, 0] for seed in range(MANY.seeds)])
    expected = 10 * 2 * scale / MANY.range_ohm * np.sqrt(4 / 3)
    measured = many.measure(4, 0, 10).device
    assert np.sqrt(np.square(measured).mean()) == pytest.approx(np.sqrt(np.square(expected).mean()), rel=0.1)


def test_best_number_of_states_falls_with_sigma(many):
    part = best_states(many)
    few = [best["fraction_few"]["mean"] for best in part["best"]]
    assert few[0] < few[-1]
    law = {(p["sigma_nl_ohm"], p["sigma_perp_ohm"]): p["fewest_states"] or np.inf for p in part["law"]["points"]}
    assert law[0, 30.0] > law[0, 60.0] >= law[0, 100.0]
    assert 0.3 < part["law"]["k"] < 0.9
    assert all(sum(best["fraction"]) == pytest.approx(1) for best in part["best"])


def test_shared_offsets_grow_faster_with_the_matrix():
    """Own offsets of K inputs add up as sqrt(K); offsets of 4 levels shared by all cells as K."""
    part = by_inputs(RandomProducts(replace(MANY, seeds=8, inputs=(4, 64))))["exponents"]
    assert part["perp"]["mean"] == pytest.approx(0.5, abs=0.12)
    assert part["perp"]["mean"] + 0.15 < part["nl"]["mean"] < 1.2
    assert part["perp"]["mean"] < part["perp_one_array"]["mean"] < part["nl"]["mean"]


def test_direct_reads_equal_a_compiled_program():
    """One 4x4 matrix: the same weights, inputs and chip through Session."""
    products = RandomProducts(SMALL)
    weights, x = products._data(0)
    target = with_errors(M2TJ4, 4, 20, 30)
    chips = np.random.SeedSequence((0, 4)).generate_state(len(weights), np.uint64)
    direct = products.errors(0, 4, 20.0, 30.0).product
    for m, chip in enumerate(chips):
        program = one_layer_program(weights[m], target, arrays=1)
        y = Session(program, seed=int(chip), threads=1).run({"x": x[m]})["y"]
        error = y - x[m].astype(np.float64) @ weights[m]
        assert direct[m] == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-4)


@given(st.integers(2, 200), st.integers(1, 250), st.integers(1, 30))
def test_states_between(low, more, count):
    found = states_between(low, low + more, count)
    assert found[0] == low
    assert found[-1] == low + more
    assert all(a < b for a, b in pairwise(found))
    assert len(found) <= count + 5


@settings(max_examples=50)
@given(st.floats(3, 30), st.floats(0.01, 0.3))
def test_fewest_states_of_a_known_curve(knee, tolerance):
    """q / N beside a constant d: within the tolerance of d at N = (q / d) / sqrt((1 + tolerance)^2 - 1), as well as a line
    between neighbouring N can say: 2.1 % between 3 and 4."""
    states = tuple(range(2, 4000))
    q = knee * np.sqrt((1 + tolerance) ** 2 - 1)
    error = np.hypot(q / np.asarray(states), 1.0)
    assert fewest_states(states, error, tolerance) == pytest.approx(knee, rel=0.021)


def test_fewest_states_at_the_edges():
    assert fewest_states((2, 4, 8), np.array([1.0, 1.1, 1.2]), 0.05) == 2
    assert fewest_states((2, 4, 8), np.array([4.0, 2.0, 1.0]), 0.05) is None


def test_results_repeat():
    small = replace(SMALL, inputs=(4,))
    assert json.dumps(study(small)) == json.dumps(study(small))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"target": load_target("mram64")}, "study works on model multistate"),
        ({"states": (4, 2)}, "rising"),
        ({"states": (2,)}, "rising"),
        ({"states": (2, 300)}, "from 2 to 256"),
        ({"sigma_nl_ohm": -1.0}, "out of range"),
        ({"sigma_perp_ohm": (float("nan"),)}, "out of range"),
        ({"sigma_perp_ohm": ()}, "no sigma_perp"),
        ({"sigma_perp_ohm": (5.0, 5.0)}, "twice"),
        ({"sigma_nl_ohm": 0.0, "sigma_perp_ohm": (0.0,)}, "all 0"),
        ({"weights": "cauchy"}, "allowed: normal, uniform"),
        ({"seeds": 0}, "seeds = 0"),
        ({"inputs": (0, 4)}, "inputs"),
    ],
)
def test_bad_settings(change, text):
    with pytest.raises(TargetError, match=text):
        replace(SMALL, **change)


@pytest.mark.parametrize("text", ["", "a", "2:x", "64:2", "2:2", "1:8", "2,4.5", "nan"])
def test_bad_states(text):
    with pytest.raises(TargetError, match="--states"):
        parse_states(text)


def test_lists_and_ranges_of_states():
    assert parse_states("2,4,16") == (2, 4, 16)
    assert parse_states("2:6") == (2, 3, 4, 5, 6)


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["xbcompile", "study", *arguments])
        status: object = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return call


def test_command(cli, tmp_path):
    """JSON on standard output equals study.json; nothing but the named files is left in the folder."""
    options = ["--seeds", "1", "--matrices", "2", "--states", "2,4,8", "--sigma-perp", "5,60", "--quick"]
    status, out, _ = cli("m2tj4", *options, "-o", "deep/plots", "--json")
    assert status in (0, None)
    result = json.loads(out)
    files = sorted(path.name for path in Path("deep/plots").iterdir())
    assert files == sorted(Path(name).name for name in result.pop("files"))
    assert json.loads(Path("deep/plots/study.json").read_text()) == result
    assert set(result) == {"target", "settings", "by_states", "by_sigma", "by_inputs", "best_states", "levels_ohm"}
    plots = {"error_sources", "matrix_size", "best_states_law", "fig13_quantization", "fig14_levels", "fig15_sigma_nl"}
    plots |= {"fig16_sigma_perp", "fig17_combined", "fig18_best_states"}
    assert set(files) == {f"{name}.{kind}" for name in plots for kind in ("png", "svg")} | {"study.json"}
    assert Path("deep/plots/fig13_quantization.png").read_bytes().startswith(b"\x89PNG")
    described = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    described = described[described.index("## `study`") :]
    for part in ("by_states", "by_sigma", "by_inputs", "best_states", "levels_ohm"):
        assert [key for key in result[part] if f"`{part}.{key}" not in described and f"`.{key}" not in described] == []


def test_tables(cli):
    status, out, _ = cli("m2tj4", "--seeds", "1", "--matrices", "2", "--states", "2,4", "--sigma-nl", "0", "--quick")
    assert status in (0, None)
    assert "quantization alone: RMSE ~ N^(" in out
    assert "5 Ohm" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["mram64"], "study works on model multistate"),
        (["m2tj4", "--states", "many"], "--states 'many'"),
        (["m2tj4", "--sigma-perp", "5,x"], "--sigma-perp '5,x'"),
        (["m2tj4", "--model", "a.onnx"], "--model and --data go together"),
        (["m2tj4", "--model", "a.onnx", "--data", "digits:test"], "a.onnx"),
        (["m2tj4", "-o", "file"], "is a file"),
        (["m2tj4", "-o", "file/inside"], "is a file; give the name of a folder"),
    ],
)
def test_bad_options_are_one_line(cli, arguments, text):
    Path("file").write_text("kept")
    status, out, err = cli(*arguments, "--quick")
    assert status == 1
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("xbcompile: error: ")
    assert text in err
    assert Path("file").read_text() == "kept"
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_accuracy_of_a_network(tmp_path):
    """4 states without offsets lose little; offsets cost."""
    pytest.importorskip("sklearn")
    chosen = replace(SMALL, states=(2, 3, 4), sigma_perp_ohm=(60.0,))
    part = accuracy(chosen, DIGITS, "digits:test:200", "digits:train:200")
    exact, noisy = (curve["accuracy"]["mean"] for curve in part["curves"])
    assert part["states"] == [2, 3, 4]
    assert exact[-1] > part["software"] - 0.05
    assert exact[0] < exact[-1]
    assert noisy[-1] < exact[-1]


def test_accuracy_needs_labels(tmp_path):
    np.savez(tmp_path / "x.npz", input=np.zeros((4, 64), np.float32))
    with pytest.raises(XbcompileError, match="no labels"):
        run_study(SMALL, None, DIGITS, str(tmp_path / "x.npz"), None, None, lambda text: None, lambda text: None)


def test_errors_of_a_program_are_those_of_its_chips():
    """Without offsets the compiled program is the exact device."""
    exact = program_errors(SMALL, with_errors(M2TJ4, 4, 0, 0), 8, 1, 0)
    assert exact.max() < 1e-5
    assert program_errors(SMALL, with_errors(M2TJ4, 4, 50, 0), 8, 1, 0).min() > 0.01
