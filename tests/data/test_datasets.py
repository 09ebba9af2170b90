"""Data sets and .npz files: what they give, and every fault. Nothing is downloaded: the downloader is replaced."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper

from xbcompile.data import datasets as module
from xbcompile.data.datasets import ENVIRONMENT_VARIABLE, data_of, load_data
from xbcompile.errors import DataError


def value(*shape, name="x", kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


FLAT = (value("n", 784),)
SQUARE = (value("n", 1, 28, 28),)
SIX = (value("n", 6),)


def idx(array):
    """An IDX file's bytes: two zeros, type 8 (unsigned byte), rank, sizes big-endian, values."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 28, 28))


@pytest.fixture
def folder(tmp_path, monkeypatch, images):
    """A data folder with five images in each part of both sets, and no way to the network."""
    for name in ("mnist", "fashion-mnist"):
        (tmp_path / name).mkdir()
        for part in ("train", "t10k"):
            (tmp_path / name / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
            (tmp_path / name / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(5))))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", refuse)
    return tmp_path


def refuse(*arguments, **options):
    raise AssertionError("a test must not download")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_idx_sets(folder, images, name, part):
    data = load_data(f"{name}:{part}", FLAT)
    assert data.samples == 5
    assert data.inputs["x"].dtype == np.float32
    assert np.array_equal(data.inputs["x"], (images.reshape(5, 784) / 255).astype(np.float32))
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    assert data.name == f"{name}:{part}"


def test_shape_follows_the_model(folder, images):
    found = load_data("mnist:test:3", SQUARE).inputs["x"]
    assert found.shape == (3, 1, 28, 28)
    assert np.array_equal(found[:, 0], (images[:3] / 255).astype(np.float32))
    assert load_data("mnist:test:2", (value("n", "a", "b"),)).inputs["x"].shape == (2, 28, 28)
    assert load_data("mnist:test:2", (value("n", 784, kind=TensorProto.FLOAT16),)).inputs["x"].dtype == np.float16
    any_shape = ValueInfoProto(name="x")
    any_shape.type.tensor_type.elem_type = TensorProto.FLOAT
    assert load_data("mnist:test:2", (any_shape,)).inputs["x"].shape == (2, 28, 28)


def test_counts(folder):
    assert [load_data(f"mnist:test:{n}", FLAT).samples for n in (1, 4, 5)] == [1, 4, 5]
    assert load_data("mnist:test:2", FLAT).labels.tolist() == [0, 1]


def test_the_real_mnist(mnist):
    """Published facts: 60,000 and 10,000 images, the first labels 5, 0, 4 and 7, 2, 1."""
    images, labels = mnist("train", 60_000)
    assert (images.shape, images.min(), images.max()) == ((60_000, 784), 0, 1)
    assert labels[:3].tolist() == [5, 0, 4]
    assert mnist("test", 10_000)[1][:3].tolist() == [7, 2, 1]
    with pytest.raises(DataError, match="'10001' samples; allowed: 1 to 10000"):
        mnist("test", 10_001)


def test_digits():
    """scikit-learn's own arrays: the first 1,437 train, the other 360 test, 16 grey values to 0..1."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs = (value("n", 64),)
    train, test = load_data("digits:train", inputs), load_data("digits:test", inputs)
    assert (train.samples, test.samples) == (1437, 360)
    both = np.concatenate([train.inputs["x"], test.inputs["x"]])
    assert np.array_equal(both, (bunch.data / 16).astype(np.float32))
    assert np.array_equal(np.concatenate([train.labels, test.labels]), bunch.target)
    assert load_data("digits:test:7", (value("n", 1, 8, 8),)).inputs["x"].shape == (7, 1, 8, 8)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"comes with scikit-learn; install it: pip install 'xbcompile\[demo\]'"):
        load_data("digits:test", (value("n", 64),))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            "",
            "unknown data ''; allowed: mnist:test[:N], fashion-mnist:test[:N], digits:test[:N], letters:test[:N], "
            "scenes:test[:N], or a .npz, .npy or .csv file, or a folder of images",
        ),
        ("cifar:test", "unknown data 'cifar:test'"),
        ("mnist", "data 'mnist': part '' is unknown; allowed: train, test"),
        ("mnist:validation", "data 'mnist:validation': part 'validation' is unknown; allowed: train, test"),
        ("mnist:test:0", "data 'mnist:test:0': '0' samples; allowed: 1 to 5"),
        ("mnist:test:6", "'6' samples; allowed: 1 to 5"),
        ("mnist:test:-1", "'-1' samples"),
        ("mnist:test:1.5", "'1.5' samples"),
        ("mnist:test:²", "'²' samples"),
        ("mnist:test:1:1", "'1:1' samples"),
    ],
)
def test_bad_specs(folder, spec, text):
    with pytest.raises(DataError) as caught:
        load_data(spec, FLAT)
    assert text in str(caught.value)


def test_models_that_a_set_does_not_fit(folder):
    with pytest.raises(
        DataError, match=r"mnist:test, array 'x': samples have shape 28x28; the model's input 'x' wants 6"
    ):
        load_data("mnist:test", SIX)
    with pytest.raises(DataError, match="has one array, but the model has 2 inputs"):
        load_data("mnist:test", (value("n", 784), value("n", 784, name="z")))
    with pytest.raises(DataError, match="type float32 does not fit the model's input 'x' of type int64"):
        load_data("mnist:test", (value("n", 784, kind=TensorProto.INT64),))
    with pytest.raises(DataError, match="the model's input 'x' takes no numbers"):
        load_data("mnist:test", (value("n", 784, kind=TensorProto.STRING),))
    sequence = helper.make_value_info("x", helper.make_sequence_type_proto(FLAT[0].type))
    with pytest.raises(DataError, match="the model's input 'x' takes no numbers"):
        load_data("mnist:test", (sequence,))


def damaged(content):
    return content[:40] + bytes([content[40] ^ 0xFF]) + content[41:]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda good: b"", "is no IDX file of unsigned bytes"),
        (lambda good: b"<html>", "is no valid gzip file"),
        (lambda good: gzip.compress(good)[:-20], "is no valid gzip file"),
        (lambda good: damaged(gzip.compress(good)), "is no valid gzip file"),
        (lambda good: gzip.compress(b""), "is no IDX file of unsigned bytes"),
        (lambda good: gzip.compress(b"\0\0\x0d" + good[3:]), "is no IDX file of unsigned bytes"),
        (lambda good: gzip.compress(good[:4]), "is truncated, or longer than its header says"),
        (lambda good: gzip.compress(good[:16]), "is truncated"),
        (lambda good: gzip.compress(good[:-1]), "is truncated"),
        (lambda good: gzip.compress(good + b"\0"), "or longer than its header says"),
        (lambda good: gzip.compress(b"\0\0\x08\0"), "is truncated"),
        (lambda good: gzip.compress(idx(np.zeros((5, 784)))), "are no pairs"),
        (lambda good: gzip.compress(idx(np.zeros((4, 28, 28)))), "are no pairs"),
        (lambda good: gzip.compress(idx(np.zeros((0, 28, 28)))), "are no pairs"),
    ],
)
def test_damaged_files(folder, images, change, text):
    path = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(change(idx(images)))
    with pytest.raises(DataError) as caught:
        load_data("mnist:test", FLAT)
    assert text in str(caught.value)
    assert "mnist" in str(caught.value)


def test_every_byte_of_a_gzip_file_counts(folder, images):
    """Flipped anywhere, the file is refused or (in the header's comment fields) reads the same; it never crashes."""
    path = folder / "mnist" / "t10k-labels-idx1-ubyte.gz"
    good = gzip.compress(idx(np.arange(5)), mtime=0)
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 0x55
        path.write_bytes(flipped)
        try:
            assert load_data("mnist:test", FLAT).labels.tolist() == [0, 1, 2, 3, 4]
        except DataError:
            continue
        assert position < 10


def test_missing_folder(folder, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder / "none"))
    with pytest.raises(DataError, match=r"XBCOMPILE_DATA is '.*none', but .*t10k-images-idx3-ubyte\.gz does not exist"):
        load_data("mnist:test", FLAT)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    return tmp_path


def test_download(offline, monkeypatch, images):
    """Both files are asked for by their address and checksum, and read from the user's cache."""
    asked = []

    def retrieve(url, known_hash, fname, path, downloader):
        asked.append((url, known_hash))
        Path(path).mkdir(parents=True, exist_ok=True)
        content = idx(images) if "images" in fname else idx(np.arange(5))
        (Path(path) / fname).write_bytes(gzip.compress(content))
        return str(Path(path) / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert load_data("mnist:test", FLAT).samples == 5
    base = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    assert [url for url, _ in asked] == [base + "t10k-images-idx3-ubyte.gz", base + "t10k-labels-idx1-ubyte.gz"]
    assert all(text.startswith("sha256:") and len(text) == 7 + 64 for _, text in asked)
    assert (offline / "cache" / "xbcompile" / "mnist" / "t10k-images-idx3-ubyte.gz").is_file()


def test_checksum_failure(offline, monkeypatch):
    """pooch's own check, on a server that sends something else."""

    class Downloader:
        def __init__(self, **options):
            pass

        def __call__(self, url, output_file, pooch):
            Path(output_file).write_bytes(b"something else")

    monkeypatch.setattr("pooch.HTTPDownloader", Downloader)
    with pytest.raises(DataError) as caught:
        load_data("fashion-mnist:train", FLAT)
    assert str(caught.value) == (
        f"fashion-mnist is not in the cache {offline / 'cache' / 'xbcompile' / 'fashion-mnist'} and cannot be downloaded "
        "(ValueError); set XBCOMPILE_DATA to a folder that holds fashion-mnist/train-images-idx3-ubyte.gz"
    )
    assert not list((offline / "cache" / "xbcompile" / "fashion-mnist").glob("*.gz"))


@pytest.mark.parametrize("name", ["ConnectionError", "Timeout", "HTTPError"])
def test_no_network(offline, monkeypatch, name):
    import requests

    def fail(*arguments, **options):
        raise getattr(requests, name)("no route to host")

    monkeypatch.setattr("pooch.retrieve", fail)
    with pytest.raises(DataError, match=rf"cannot be downloaded \({name}\); set XBCOMPILE_DATA to a folder that holds"):
        load_data("mnist:test", FLAT)


def test_checksums_of_the_real_files(mnist):
    import os

    folder = Path(os.environ[ENVIRONMENT_VARIABLE]) / "mnist"
    for file, checksum in module._FILES["mnist"][1].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == checksum


@pytest.fixture
def npz(tmp_path):
    def save(**arrays):
        path = str(tmp_path / "d.npz")
        np.savez(path, **arrays)
        return path

    return save


X = np.arange(24.0).reshape(4, 6)


def test_npz_by_name(npz):
    two = (value("n", 6), value("n", 2, name="z", kind=TensorProto.INT64))
    data = load_data(npz(z=np.ones((4, 2), np.int8), x=X, labels=np.arange(4, dtype=np.uint8)), two)
    assert np.array_equal(data.inputs["x"], X.astype(np.float32))
    assert data.inputs["x"].dtype == np.float32
    assert data.inputs["z"].dtype == np.int64
    assert (data.labels.tolist(), data.labels.dtype) == ([0, 1, 2, 3], np.int64)


def test_npz_with_a_single_array_of_any_name(npz):
    assert np.array_equal(load_data(npz(anything=X), SIX).inputs["x"], X.astype(np.float32))
    assert load_data(npz(anything=X), SIX).labels is None
    assert load_data(npz(arr_0=X.astype(int), labels=np.arange(4)), SIX).samples == 4
    assert load_data(npz(x=X.reshape(4, 2, 3)), SIX).inputs["x"].shape == (4, 6)


def test_an_input_named_labels(npz):
    data = load_data(npz(labels=X), (value("n", 6, name="labels"),))
    assert np.array_equal(data.inputs["labels"], X.astype(np.float32))
    assert data.labels is None


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": X, "z": X}, "has arrays x, z; the model's inputs are x"),
        ({"w": X, "z": X}, "has arrays w, z; the model's inputs are x"),
        ({}, "has arrays none; the model's inputs are x"),
        ({"labels": np.arange(4)}, "has arrays none; the model's inputs are x"),
        ({"x": X[:, :5]}, "array 'x': samples have shape 5; the model's input 'x' wants 6"),
        ({"x": X[0]}, "array 'x': samples have shape scalar; the model's input 'x' wants 6"),
        ({"x": X[:0]}, "array 'x': there are no samples (shape (0, 6))"),
        ({"x": np.float32(1)}, "array 'x': there are no samples (shape ())"),
        ({"x": X.astype(str)}, "is not numeric"),
        ({"x": X.astype(complex)}, "array 'x': type complex128 is not numeric"),
        ({"x": np.where(X == 7, np.nan, X)}, "array 'x': there are NaN or infinite values"),
        ({"x": np.where(X == 7, -np.inf, X)}, "array 'x': there are NaN or infinite values"),
        ({"x": np.where(X == 7, 1e39, X)}, "there are values outside the range of the model's input 'x', float32"),
        ({"x": X, "labels": np.arange(3)}, "arrays have different numbers of samples: {'x': 4, 'labels': 3}"),
        ({"x": X, "labels": np.arange(4.0)}, "labels must be whole numbers, one per sample; found float64 (4,)"),
        ({"x": X, "labels": np.eye(4, dtype=int)}, "labels must be whole numbers, one per sample; found int64 (4, 4)"),
        (
            {"x": X, "labels": np.array([0, 1, 2, 2**63], np.uint64)},
            "labels go up to 9223372036854775808; allowed: 9223",
        ),
        ({"x": X, "labels": np.int64(3)}, "labels must be whole numbers, one per sample; found int64 ()"),
    ],
)
def test_bad_arrays(npz, arrays, text):
    path = npz(**arrays)
    with pytest.raises(DataError) as caught:
        load_data(path, SIX)
    assert text in str(caught.value)
    assert path in str(caught.value)


def test_whole_numbers_that_do_not_fit(npz):
    small = (value("n", 6, kind=TensorProto.UINT8),)
    assert load_data(npz(x=X.astype(int)), small).inputs["x"].dtype == np.uint8
    for wrong in (np.full((4, 6), 256), np.full((4, 6), -1)):
        with pytest.raises(DataError, match="there are values outside the range of the model's input 'x', uint8"):
            load_data(npz(x=wrong), small)
    with pytest.raises(DataError, match="type float64 does not fit the model's input 'x' of type uint8"):
        load_data(npz(x=X), small)


def test_different_numbers_of_samples(npz):
    two = (value("n", 6), value("n", 6, name="z"))
    with pytest.raises(DataError, match=r"arrays have different numbers of samples: \{'x': 4, 'z': 3\}"):
        load_data(npz(x=X, z=X[:3]), two)


def test_bad_files(tmp_path, npz):
    good = Path(npz(x=X)).read_bytes()
    path = tmp_path / "bad.npz"
    npy = tmp_path / "x.npy"
    np.save(npy, X)
    objects = tmp_path / "objects.npz"
    np.savez(objects, x=np.array([{}], dtype=object))
    contents = [
        b"",
        b"hello",
        good[:100],
        good[: len(good) // 2],
        npy.read_bytes(),
        objects.read_bytes(),
        pickle.dumps(X),
    ]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.npz' is no valid \.npz file without pickles"):
            load_data(str(path), SIX)
    with pytest.raises(DataError, match=r"data file '.*none\.npz' does not exist"):
        load_data(str(tmp_path / "none.npz"), SIX)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match=r"folder\.npz' is a folder; give a file"):
        load_data(str(tmp_path / "folder.npz"), SIX)


def test_flipped_bytes_of_a_compressed_npz(tmp_path):
    """Refused, or the same arrays; never another error."""
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=X)
    good = path.read_bytes()
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 0x41
        path.write_bytes(flipped)
        try:
            found = load_data(str(path), SIX).inputs["x"]
        except DataError:
            continue
        assert np.array_equal(found, X.astype(np.float32))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"not an array")
    with pytest.raises(DataError, match=r"d\.npz' is no valid .*array 'x': it does not begin as an \.npy file does"):
        load_data(str(path), SIX)


def test_arrays_in_memory():
    data = data_of({"x": X}, None, SIX, "calibration")
    assert data.inputs["x"].dtype == np.float32
    with pytest.raises(DataError, match="data 'calibration' has arrays z; the model's inputs are x"):
        data_of({"z": X}, None, SIX, "calibration")
    with pytest.raises(DataError, match="calibration, array 'x': there are NaN or infinite values"):
        data_of({"x": X * np.nan}, None, SIX, "calibration")
    ragged: Any = [[1.0], [1.0, 2.0]]
    with pytest.raises(DataError, match="calibration, array 'x': it is no array"):
        data_of({"x": ragged}, None, SIX, "calibration")
    strange = data_of({"x": X * np.nan}, None, SIX, "data", finite=False)
    assert np.isnan(strange.inputs["x"]).all()


def test_labels_of_two_classes(npz):
    data = load_data(npz(x=X, labels=np.array([True, False, True, True])), SIX)
    assert (data.labels.tolist(), data.labels.dtype) == ([1, 0, 1, 1], np.int64)
    assert load_data(npz(x=X, labels=np.array([-1, 1, 1, -1], np.int8)), SIX).labels.tolist() == [-1, 1, 1, -1]
