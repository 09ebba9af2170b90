"""Arrays in files: what they give, how much memory they take, and every fault of .npy files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import xbcompile
from tests.support.small_programs import dense_model
from xbcompile.data import stored
from xbcompile.data.datasets import load_data
from xbcompile.data.stored import StoredArray, blocks
from xbcompile.errors import DataError
from xbcompile.ir import SampleAxes
from xbcompile.runtime import Session

X = np.random.default_rng(0).random((30, 2, 3)).astype(np.float32)
FLAT = (helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6]),)


def saved(folder: Path, x: np.ndarray) -> str:
    np.save(folder / "x.npy", x)
    return str(folder / "x.npy")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_a_file_gives_what_its_array_gives(tmp_path: Path, dtype: Any) -> None:
    """In the model's type and shape, along whatever axis samples lie."""
    x = (X * 200).astype(dtype)
    found = load_data(saved(tmp_path, x), FLAT).inputs["x"]
    assert isinstance(found, StoredArray)
    assert (found.shape, found.dtype, len(found), found.nbytes) == ((30, 6), np.float32, 30, 30 * 6 * 4)
    assert np.array_equal(found[4:9], x.reshape(30, 6)[4:9].astype(np.float32))
    assert np.array_equal(np.asarray(found), x.reshape(30, 6).astype(np.float32))
    second = (helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, "n", 3]),)
    axes = SampleAxes({"x": 1}, {}, {"x": 3})
    moved = load_data(saved(tmp_path, x.transpose(1, 0, 2)), second, axes).inputs["x"]
    assert np.array_equal(axes.part({"x": moved}, 5, 7)["x"], x.transpose(1, 0, 2)[:, 5:7].astype(np.float32))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.where(np.arange(180).reshape(X.shape) == 100, np.nan, X), "there are NaN or infinite values (1 of 180)"),
        (X.astype(np.float64) * 1e39, "values outside the range of the model's input 'x', float32"),
        (X[:, :1], "samples have shape 1x3; the model's input 'x' wants 6"),
        (X.astype(complex), "type complex64 is not numeric"),
        (np.array([{}], dtype=object), "is no valid .npy file without pickles"),
    ],
)
def test_faults(tmp_path: Path, x: np.ndarray, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "BLOCK_BYTES", 48)  # the fault is not in the first block
    path = saved(tmp_path, x.astype(np.complex64) if x.dtype == complex else x)
    with pytest.raises(DataError) as caught:
        load_data(path, FLAT)
    assert text in str(caught.value)
    assert path in str(caught.value)


def test_other_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data file '.*none\.npy' does not exist"):
        load_data(str(tmp_path / "none.npy"), FLAT)
    (tmp_path / "bad.npy").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"bad\.npy' is no valid \.npy file"):
        load_data(str(tmp_path / "bad.npy"), FLAT)
    with pytest.raises(DataError, match=r"has one array, but the model has 2 inputs; use a \.npz file"):
        load_data(saved(tmp_path, X), (*FLAT, helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 6])))


def test_changes_in_memory_alone_stay(tmp_path: Path) -> None:
    """Pages of a copy-on-write map are not let go of: they would be read again without the changes."""
    x = np.load(saved(tmp_path, X), mmap_mode="c")
    x[0] = 7
    assert all(each.shape[1:] == (2, 3) for each in blocks(x))
    assert (StoredArray(x)[0] == 7).all()
    assert (x[0] == 7).all()


def test_runs_read_as_they_go(tmp_path: Path) -> None:
    """Files of 64 MB, from Python and as data, in a tenth of that; outputs are those of arrays in memory."""
    program = xbcompile.compile(dense_model(1024, 4), "ideal", effort=0)
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (16_384, 1024))
    array[::7] = np.random.default_rng(1).random(1024)
    del array
    session = Session(program, threads=1, memory_bytes=1 << 22)
    expected = session.run_samples({"x": np.load(tmp_path / "x.npy")}, chunk=500)["y"]
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        found = session.run_samples({"x": mapped})["y"]
        data = load_data(str(tmp_path / "x.npy"), program.network.inputs, program.network.samples)
        again = session.run_samples(data.inputs)["y"]
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert np.array_equal(found, expected)
    assert np.array_equal(again, expected)


def test_files_of_one_call(tmp_path: Path) -> None:
    """All samples in one call of the model, as many as that takes, and a single one."""
    program, x = xbcompile.compile(dense_model(6, 4), "ideal", effort=0), X.reshape(30, 6)
    expected = Session(program).run_samples({"x": x})["y"]
    for count in (30, 1):
        path = saved(tmp_path, x[:count])
        data = load_data(path, program.network.inputs, program.network.samples)
        for given in (data.inputs["x"], np.load(path, mmap_mode="r")):
            assert np.array_equal(Session(program).run_samples({"x": given}, chunk=30)["y"], expected[:count])
