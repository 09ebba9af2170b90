"""The program that users hold: its methods give what the commands print, and it shows itself in one line or as a table."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from tests.api.user_program import use
from xbcompile.errors import DataError, ProgramError, RunError
from xbcompile.interop.inference_session import InferenceSession
from xbcompile.notebook import html_table, html_text, printable
from xbcompile.program import program as inert
from xbcompile.report.summary import summarize

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(6, 3)).astype(np.float32)
X = RNG.normal(size=(9, 6)).astype(np.float32)
Y = (X @ WEIGHTS).argmax(axis=1)
STRANGE = "<b>\x1b[31mfc\u202e&"


def model(name="fc1", graph="net"):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name)],
        graph,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def program():
    return xbcompile.compile(model(), "m2tj4")


class Cells(HTMLParser):
    """Texts of cells and paragraphs, and that all that is opened is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.tags = [], [], set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


# --- the value itself


def test_it_is_the_program_that_the_rooms_below_know(program, tmp_path):
    program.save(tmp_path / "p.xbar")
    below = inert.load_program(tmp_path / "p.xbar")
    again = xbcompile.load_program(tmp_path / "p.xbar")
    assert type(program) is type(again) is xbcompile.Program
    assert type(below) is inert.Program
    assert program == below == again == program
    assert below == program
    other = replace(program, pipeline="other")
    assert type(other) is xbcompile.Program
    assert other != program
    assert other != below
    assert program != 3
    assert xbcompile.Program.of(below).digest == program.digest
    assert pickle.loads(pickle.dumps(again)) == program
    with pytest.raises(TypeError, match="unhashable"):
        hash(program)


def test_names_are_offered():
    """In the package and on the program, for completion."""
    assert set(xbcompile.__all__) <= set(dir(xbcompile))
    assert {"summary", "cost", "where", "plot", "run", "export", "report", "save"} <= set(dir(xbcompile.Program))


# --- summary, cost, places


def test_summary_and_cost_are_the_facts_of_the_commands(program, cli, tmp_path):
    program.save(tmp_path / "p.xbar")
    told = json.loads(cli("inspect", tmp_path / "p.xbar", "--json").out)
    assert json.loads(json.dumps(program.summary())) == told
    cost = program.cost()
    assert cost["totals"] == summarize(program)["totals"]
    (layer,) = cost["layers"]
    spec, reads = program.spec, summarize(program)["layers"][0]["reads_per_inference"]
    assert layer["e_read_per_inference_j"] == reads * spec.e_read_j
    assert "energy per inference" in repr(cost)


def test_where_weights_sit_both_ways(program, cli, tmp_path):
    program.save(tmp_path / "p.xbar")
    told = json.loads(cli("where", tmp_path / "p.xbar", "fc1[4,2]", "--json").out)
    for found in (program.where("fc1[4,2]"), program.where("fc1", 4, 2), program.where("fc1", np.int64(4), np.int8(2))):
        assert json.loads(json.dumps(found)) == told
    (place,) = found["weights"]
    for cell in (
        (place["arrays"][0], place["row"], place["column"]),
        f"{place['arrays'][0]},{place['row']},{place['column']}",
    ):
        assert place in program.where(cell=cell)["weights"]
    assert "fc1[0,4,2]: weight" in repr(found)
    for arguments, options, text in (
        ((), {}, "give either a weight"),
        (("fc1[0,0]",), {"cell": (0, 0, 0)}, "give either a weight"),
        (("fc1",), {}, "names no weight"),
        (("fc1", 9, 0), {}, r"has no weight \[0, 9, 0\]"),
        (("fc1", 0.5, 0), {}, "the numbers of a weight are whole numbers; found 0.5, 0"),
        ((), {"cell": (0, 0)}, "names no cell"),
        (("fc2", 0, 0), {}, "no matrix layer 'fc2'"),
    ):
        with pytest.raises(ProgramError, match=text):
            program.where(*arguments, **options)


def test_facts_show_themselves_as_the_command_does(program, cli, tmp_path, monkeypatch):
    program.save(tmp_path / "p.xbar")
    monkeypatch.setenv("COLUMNS", "160")
    printed = [line.rstrip() for line in cli("inspect", tmp_path / "p.xbar").out.splitlines()]
    assert repr(program.summary()).splitlines() == printed
    cells = Cells(program.summary()._repr_html_())
    numbers = re.findall(r"\d[\d,.]*", " ".join(printed))
    assert numbers
    assert set(numbers) <= set(re.findall(r"\d[\d,.]*", " ".join(cells.texts)))
    assert {"table", "th", "td", "p"} <= cells.tags


def test_facts_print_nothing_in_a_notebook(program, monkeypatch, capsys):
    """There rich takes every console for the notebook's own output; what is shown would be there twice."""

    def display(*arguments):
        raise AssertionError("it is shown by the side")

    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", display)
    for value in (program.summary(), program.where("fc1", 0, 0)):
        assert "fc1" in repr(value)
        assert "fc1" in value._repr_html_()
    assert capsys.readouterr() == ("", "")


# --- how values show themselves


def shown(program):
    session = xbcompile.Session(program)
    session.run_samples(X)
    return {
        "program": program,
        "summary": program.summary(),
        "cost": program.cost(),
        "where": program.where(program.network.layers[0].name, 0, 0),
        "run": program.run((X, Y)),
        "costs of a run": program.run(X).cost,
        "diagnosis": xbcompile.diagnose(program, (X, Y)),
        "plan": xbcompile.plan(program, require=["images<=1"]),
        "session": session,
        "target": program.target,
        "InferenceSession": InferenceSession(program),
        "corrections": session.corrections,
    }


def test_everything_is_short_and_strange_names_are_only_text():
    program = xbcompile.compile(model(STRANGE, STRANGE), "m2tj4")
    for name, value in shown(program).items():
        text = repr(value)
        assert len(text) < 4000, name
        assert "\x1b" not in text.replace("\\x1b", ""), name
        assert "\u202e" not in text, name
        if name not in ("summary", "cost", "where", "run"):
            assert len(text.splitlines()) == 1, name
        if hasattr(value, "_repr_html_"):
            cells = Cells(value._repr_html_())
            assert cells.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}, name
            assert not {"\x1b", "\u202e"} & set("".join(cells.texts)), name
        else:
            assert name == "corrections"


def test_tables_of_notebooks():
    page = html_table(("a", "<b>"), [(1234567, "-5 mV"), ("x", None)] * 30, "title", most=3)
    cells = Cells(page)
    assert cells.texts[:3] == ["title", "a", "<b>"]
    assert "1,234,567" in cells.texts
    assert cells.texts[-1] == "and 57 more"
    assert page.count("text-align:right") == 4
    for text, side in (
        ("4x3", "left"),
        ("2 levels", "right"),
        ("1.5e-09", "right"),
        ("-", "left"),
        ("0,1 and 2", "left"),
    ):
        assert f'text-align:{side}">{text}' in html_table(("a",), [(text,)]), text
    assert html_table((), [("a",)]).count("<th") == 0
    assert html_text("a<b") == "<p>a&lt;b</p>"
    assert printable("a\nb\x07\u2028") == "a\nb\\x07\\u2028"


# --- run, diagnose, export, report


def test_a_run_is_that_of_the_command(program, cli, tmp_path, capsys):
    program.save(tmp_path / "p.xbar")
    np.savez(tmp_path / "d.npz", x=X, target=Y)
    told = json.loads(cli("run", tmp_path / "p.xbar", "--data", tmp_path / "d.npz", "--repeat", 2, "--json").out)
    found = xbcompile.run(program, (X, Y), chips=2)
    for key in set(told) - {"data", "seconds"}:
        assert json.loads(json.dumps(found.facts[key])) == told[key], key
    assert found.accuracy == told["accuracy"]["mean"]
    assert found.cost.inferences == 2 * len(X)
    assert capsys.readouterr() == ("", "")
    session = xbcompile.Session(program, seed=1)
    np.testing.assert_array_equal(found.outputs["y"], session.run_samples(X)["y"])
    assert program.run(X).accuracy is None
    assert program.run(X, seed=1).outputs["y"].tolist() == found.outputs["y"].tolist()


def test_what_a_run_refuses(program):
    with pytest.raises(RunError, match="corrections are of one chip, and 2 are to be run"):
        program.run(X, chips=2, corrections=xbcompile.commission(program))
    with pytest.raises(RunError, match="one device is given, and 2 chips are to be run"):
        program.run(X, program.target.device("ideal"), chips=2)
    with pytest.raises(RunError, match="chips"):
        program.run(X, chips=0)
    with pytest.raises(DataError, match=r"threshold 0.5 is for accuracy, and data 'data' has no labels"):
        program.run(X, threshold=0.5)


def test_sessions_take_data_of_any_kind(program):
    expected = xbcompile.Session(program).run_samples(X)["y"]
    for data in ({"pixel_values": X, "labels": Y}, (X, Y), [(X[:4], Y[:4]), (X[4:], Y[4:])], iter([X[:5], X[5:]])):
        np.testing.assert_array_equal(xbcompile.Session(program).run_samples(data)["y"], expected)


def test_progress_is_told_or_shown_and_silent_by_default(program, capsys):
    steps = []

    def tell(text, part):
        steps.append((text, part))

    xbcompile.compile(model(), "m2tj4", progress=tell)
    assert [text for text, _ in steps][-1] == "verifying"
    assert [part for _, part in steps] == sorted(part for _, part in steps)
    steps.clear()
    program.run(X, chips=2, progress=tell)
    assert steps[-1] == ("18 of 18 samples", 1.0)
    steps.clear()
    xbcompile.diagnose(program, X, progress=tell)
    assert steps
    assert capsys.readouterr() == ("", "")
    program.run(X, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "running: 9 of 9 samples: 100%" in err
    assert "left" in err


def test_a_diagnosis_scores_labels(program):
    found = xbcompile.diagnose(program, (X, Y))
    by_hand = xbcompile.diagnose(program, {"x": X}, score=lambda output: float((output.argmax(axis=1) == Y).mean()))
    assert found.end_to_end == by_hand.end_to_end
    with pytest.raises(DataError, match="threshold 1 is for accuracy, and the data have no labels"):
        xbcompile.diagnose(program, X, threshold=1.0)


def test_export_and_report(program, tmp_path, cli):
    program.save(tmp_path / "p.xbar")
    cli("export", tmp_path / "p.xbar", "-o", tmp_path / "theirs")
    files = program.export(tmp_path / "deep" / "ours")
    assert sorted(path.name for path in files) == sorted(path.name for path in (tmp_path / "theirs").iterdir())
    for path in files:
        assert path.read_bytes() == (tmp_path / "theirs" / path.name).read_bytes(), path.name
    assert tmp_path / "deep" / "ours" / "drives.npz" in program.export(tmp_path / "deep" / "ours", (X, Y))
    page = program.report(tmp_path / "page.html", (X, Y))
    assert page == tmp_path / "page.html"
    assert "accuracy" in page.read_text("utf-8")
    (tmp_path / "file").write_text("")
    with pytest.raises(ProgramError, match="cannot be made: Not a directory"):
        program.export(tmp_path / "file" / "folder")
    with pytest.raises(ProgramError):
        program.report(tmp_path / "none" / "page.html")


def test_the_plot_is_a_figure_of_all_layers(program):
    figure = program.plot()
    texts = " ".join(label.get_text() for axes in figure.axes for label in axes.get_yticklabels())
    assert "fc1" in texts
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_typed_program_of_a_user_runs():
    assert 0 <= use(model(), X, Y) <= 1
