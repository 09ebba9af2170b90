"""The corpus test itself: it finds models and inputs, and sees what is wrong."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.corpus import judge as judging
from tests.corpus.__main__ import main
from tests.corpus.files import model_files, stored_inputs
from tests.corpus.inputs import Attempt, Inputs, attempts, vocabularies
from tests.corpus.judge import Stage, Task, Verdict, judged, unfinished
from tests.corpus.reference import ask
from tests.corpus.table import lines_of, table, to_json
from tests.support.comparing import difference, relative_error, shape_difference
from tests.support.model_kit import model_of
from tests.support.worker_pool import Outcome, work_apart

WEIGHTS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def dense() -> onnx.ModelProto:
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"x": ["n", 6]}, ["y"], {"w": WEIGHTS})


def mixing() -> onnx.ModelProto:
    """Parting its samples changes what it computes."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "fc"), helper.make_node("Softmax", ["h"], ["y"], axis=0)]
    return model_of(nodes, {"x": ["n", 6]}, ["y"], {"w": WEIGHTS})


def embedded() -> onnx.ModelProto:
    """Tokens of a vocabulary of 5, a mask, and the step of a network in time, a scalar."""
    nodes = [
        helper.make_node("Unsqueeze", ["tokens", "one"], ["u"]),
        helper.make_node("Gather", ["table", "u"], ["e"], axis=0),
        helper.make_node("MatMul", ["e", "w"], ["h"], "fc"),
        helper.make_node("Mul", ["h", "step"], ["y"]),
    ]
    model = model_of(nodes, {"step": []}, ["y"], {"w": WEIGHTS, "table": np.ones((5, 6)), "one": np.array([1])})
    model.graph.input.insert(0, helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "t"]))
    return model


def saved(folder: Path, **models: onnx.ModelProto | bytes) -> Path:
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return folder


def verdict_of(model: onnx.ModelProto, folder: Path, *targets: str) -> tuple[Verdict, list[Any]]:
    told: list[Any] = []
    path = saved(folder, model=model) / "model.onnx"
    return judged(Task("model.onnx", str(path), targets), told.append), told


def test_a_folder_is_judged_listed_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line: a right model, one in an archive, and a file that is none."""
    corpus = tmp_path / "corpus"
    (corpus / "sound").mkdir(parents=True)
    (corpus / "broken").mkdir()
    saved(corpus / "sound", dense=dense())
    saved(corpus / "broken", text=b"no model")
    saved(tmp_path, packed=dense())
    shutil.make_archive(str(corpus / "packed"), "gztar", tmp_path, "packed.onnx")
    assert main([str(corpus), "--targets", "sot", "--all", "--json", str(tmp_path / "found.json")]) == 0
    printed = capsys.readouterr().out
    assert "sound/dense.onnx: right, 100% of MACs on arrays, sot errs by" in printed
    assert "broken/text.onnx: ideal refused: ModelError" in printed
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["totals"] == {**dict.fromkeys(judging.KINDS, 0), "right": 2, "refused": 1}
    by_name = {each["name"]: [stage["name"] for stage in each["stages"]] for each in found["files"]}
    assert by_name["sound/dense.onnx"] == ["ideal", "samples", "explain", "sot"]
    assert by_name["broken/text.onnx"] == ["ideal", "explain"]
    assert "packed.tar.gz/packed.onnx" in by_name
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nothing")])


def test_wrong_numbers_and_exceptions_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that errs by a part in a thousand, one that raises what is no clear error, one that raises one."""
    import xbcompile

    class Erring(xbcompile.InferenceSession):
        fault: Exception | None = None

        def run(self, *args: Any, **kwargs: Any) -> list[Any]:
            if self.fault is not None:
                raise self.fault
            return [value * 1.001 for value in super().run(*args, **kwargs)]

    assert verdict_of(dense(), tmp_path)[0].kind == "right"
    monkeypatch.setattr(xbcompile, "InferenceSession", Erring)
    verdict, _ = verdict_of(dense(), tmp_path)
    assert verdict.kind == "wrong"
    assert "output 'y' differs by" in verdict.stages[0].text
    monkeypatch.setattr(Erring, "fault", KeyError("lost"))
    assert verdict_of(dense(), tmp_path)[0].kind == "fault"
    monkeypatch.setattr(Erring, "fault", xbcompile.XbcompileError("this is not to be had"))
    verdict, told = verdict_of(dense(), tmp_path, "sot")
    assert (verdict.kind, verdict.stages[0].text) == ("error", "XbcompileError: this is not to be had")
    assert [stage.name for stage in verdict.stages] == ["ideal", "explain"]  # nothing that needs a program
    assert told == ["onnxruntime", "ideal", verdict.stages[0], "explain", verdict.stages[1]]


def test_an_error_without_words_and_negative_counts_are_no_clear_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import xbcompile
    from xbcompile.frontend import explain

    def refusing(*args: Any, **kwargs: Any) -> None:
        raise xbcompile.XbcompileError(" ")

    counted = explain.explain(saved(tmp_path, model=dense()) / "model.onnx")
    wrong = replace(counted, totals=replace(counted.totals, macs=-1))
    monkeypatch.setattr(explain, "explain", lambda path: wrong)
    monkeypatch.setattr(xbcompile, "InferenceSession", refusing)
    verdict, _ = verdict_of(dense(), tmp_path)
    assert [(stage.name, stage.kind) for stage in verdict.stages] == [("ideal", "fault"), ("explain", "wrong")]


def test_what_onnxruntime_does_not_run_is_no_error_of_ours(tmp_path: Path) -> None:
    """Of a node that there is not; and numbers that are others each time have nothing to compare with."""
    unknown = model_of(
        [helper.make_node("Nothing", ["x"], ["y"], domain="no.where")], {"x": [2]}, ["y"], domains={"no.where": 1}
    )
    assert verdict_of(unknown, tmp_path)[0].kind == "refused"
    noise = model_of([helper.make_node("RandomNormalLike", ["x"], ["y"])], {"x": [2, 3]}, ["y"])
    verdict, _ = verdict_of(noise, tmp_path)
    assert (verdict.kind, verdict.stages[0].text) == ("unchecked", "onnxruntime gives other numbers each time")


def sleeping(case: float, tell: Any) -> str:
    """What a worker does in the test below."""
    tell("onnxruntime")
    tell("ideal")
    tell(Stage("ideal", "right"))
    tell("samples")
    if case < 0:
        raise SystemExit(3)
    time.sleep(case)
    return "slept"


def test_what_takes_too_long_or_ends_its_process_is_counted_by_its_stage() -> None:
    outcomes = {
        outcome.case: outcome
        for cases, seconds in (([0, -1], 100.0), ([60], 0.5))
        for outcome in work_apart(sleeping, cases, seconds=seconds, modules=())
    }
    assert [outcomes[case].ending for case in (60, -1, 0)] == ["late", "died", "done"]
    assert outcomes[0].value == "slept"
    for case, kind in ((60, "slow"), (-1, "fault")):
        told = outcomes[case].told
        verdict = unfinished(Outcome(Task("m.onnx", "", ()), outcomes[case].ending, None, told, outcomes[case].status))
        assert [(stage.name, stage.kind) for stage in verdict.stages] == [("ideal", "right"), ("samples", kind)]
    task = Task("m.onnx", "", ())
    assert unfinished(Outcome(task, "late", told=("onnxruntime",))).kind == "slow"
    assert unfinished(Outcome(task, "died", told=("onnxruntime",), status=-11)).kind == "refused"


def test_inputs_fit_what_the_model_looks_them_up_in(tmp_path: Path) -> None:
    model = embedded()
    assert vocabularies(model.graph) == {"tokens": 5}
    coded = model_of(
        [helper.make_node("Equal", ["x", "range"], ["y"])], {"x": ["n", 1]}, ["y"], {"range": np.ones((1, 7))}
    )
    assert vocabularies(coded.graph) == {"x": 7}
    inputs = Inputs(model)
    feeds = inputs.feeds(Attempt(2, 40, 3))
    assert feeds["tokens"].shape == (2, 40)
    assert set(np.unique(feeds["tokens"])) == set(range(5))
    assert feeds["step"].shape == ()
    again = inputs.feeds(Attempt(2, 40, 3))
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)
    assert len({attempt.number for attempt in attempts(inputs.values)}) > 1


def test_states_are_of_the_batch_that_the_input_has(tmp_path: Path) -> None:
    """[n, k] and a state [2, ?, 3] of the same number of samples, neither of which says so."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "fc"), helper.make_node("Add", ["h", "state"], ["y"])]
    model = model_of(nodes, {"x": ["n", 6], "state": [2, None, 3]}, ["y"], {"w": WEIGHTS})
    reference = ask(saved(tmp_path, model=model) / "model.onnx")
    assert {name: value.shape for name, value in reference.feeds.items()} == {"x": (2, 6), "state": (2, 2, 3)}
    assert reference.single["state"].shape == (2, 1, 3)


def test_open_sizes_are_tried_until_onnxruntime_takes_them(tmp_path: Path) -> None:
    """Only 32 of an open axis fit the weights; one sample is a batch of one."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")]
    model = model_of(nodes, {"x": ["n", "k"]}, ["y"], {"w": np.ones((32, 2))})
    reference = ask(saved(tmp_path, model=model) / "model.onnx")
    assert reference.feeds["x"].shape == (2, 32)
    assert reference.single["x"].shape == (1, 32)
    assert np.allclose(reference.runs[0]["y"], reference.feeds["x"].sum(1, keepdims=True), atol=1e-4)
    never = model_of(nodes, {"x": ["n", "k"]}, ["y"], {"w": np.ones((33, 2))})
    assert "no inputs found" in ask(saved(tmp_path, model=never) / "model.onnx").refusal


def test_inputs_beside_a_model_are_taken(tmp_path: Path) -> None:
    path = saved(tmp_path, model=dense()) / "model.onnx"
    assert stored_inputs(path, ["x"]) is None
    (tmp_path / "test_data_set_0").mkdir()
    x = np.ones((1, 6), np.float32)
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(numpy_helper.from_array(x).SerializeToString())
    assert np.array_equal(stored_inputs(path, ["x"])["x"], x)
    np.savez(tmp_path / "model.npz", x=2 * x)
    assert np.array_equal(ask(path).feeds["x"], 2 * x)
    assert [*model_files(tmp_path, tmp_path / "scratch")] == ["model.onnx"]


def test_samples_that_depend_on_each_other_are_checked_one_by_one(tmp_path: Path) -> None:
    """The stage gives onnxruntime's numbers, or a clear error."""
    stages = {stage.name: stage.kind for stage in verdict_of(mixing(), tmp_path)[0].stages}
    assert stages["ideal"] == "right"
    assert "samples" in stages


def test_outputs_are_compared_but_for_rounding() -> None:
    right: dict[str, Any] = {
        "y": np.array([1.0, np.nan, 1e3], np.float32),
        "s": [{"a": np.float32(1)}],
        "i": np.array([1, 2]),
    }
    moved = {**right, "y": right["y"] * np.float32(1 + 1e-6), "i": np.array([1, 3])}

    def changed(**values: Any) -> str | None:
        return difference({**right, **values}, [right, moved])

    assert changed() is None
    assert changed(y=right["y"] + np.float32(0.01)) is None  # of a largest value of 1,000
    assert "differs by 0.1" in str(changed(y=right["y"] + np.float32(0.1)))
    assert "NaN or infinite elsewhere" in str(changed(y=np.nan_to_num(right["y"])))
    assert changed(i=np.array([1, 7])) is None  # the runs themselves do not agree on it
    assert "differs in 1 of 2" in str(changed(i=np.array([2, 2])))
    assert "[0]['a'] differs" in str(changed(s=[{"a": np.float32(2)}]))
    assert "of other parts" in str(changed(s=[]))
    assert shape_difference(right, right) is None
    assert shape_difference({"y": np.array([np.inf])}, {"y": np.array([1.0])}) is None
    assert "'y' is NaN" in str(shape_difference({"y": np.array([np.nan])}, {"y": np.array([1.0])}))
    assert relative_error({"y": np.array([1.0, 1.0])}, {"y": np.array([1.0, 2.0])}) == pytest.approx((1 / 5) ** 0.5)


def test_tables_count_by_folder_and_by_stage() -> None:
    sound = Verdict("a/x.onnx", (Stage("ideal", "right"), Stage("sot", "right", error=0.25)), 10, 5)
    bad = Verdict("b/y.onnx", (Stage("ideal", "wrong", "by far"),))
    assert [*lines_of(sound, everything=False)] == []
    assert [*lines_of(sound, everything=True)] == ["a/x.onnx: right, 50% of MACs on arrays, sot errs by 25.0%, 0.0 s"]
    assert [*lines_of(bad, everything=False)] == ["b/y.onnx: ideal wrong: by far"]
    refused = Verdict("z.onnx", (Stage("ideal", "refused", "no model"),))
    assert [*lines_of(refused, everything=False)] == []
    assert [*lines_of(refused, everything=True)] == ["z.onnx: ideal refused: no model"]
    rows = [line.split() for line in table([sound, bad]).splitlines()]
    assert rows[1:4] == [["a", "1", "1", "50%"], ["b", "1", "1"], ["all", "2", "1", "1", "50%"]]
    assert rows[-2:] == [["ideal", "2", "1", "1"], ["sot", "1", "1"]]
    assert to_json([sound, bad])["totals"]["wrong"] == 1
