"""Data of every kind that users have: each gives what the plain arrays give, and what can be read in two ways is one error."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from tests.support.handed_over import Tensor
from xbcompile.data.datasets import Data, holds_samples, load_data
from xbcompile.errors import DataError
from xbcompile.ir.sample_axes import SampleAxes


def value(*shape, name="x", kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


FOUR = (value("n", 4),)
TWO = (value("n", 4), value("n", 2, name="z"))
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Z = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
Y = np.array([0, 2, 1, 1, 0, 2])


class Loader:
    """Gives batches of a size, as torch's DataLoader does."""

    def __init__(self, *arrays, size=4, make=list):
        self.arrays, self.size, self.make = arrays, size, make

    def __len__(self):
        return -(-len(self.arrays[0]) // self.size)

    def __iter__(self):
        for start in range(0, len(self.arrays[0]), self.size):
            yield self.make(Tensor(each[start : start + self.size]) for each in self.arrays)


class Samples:
    """Gives samples by their numbers, as torch's data sets do, which say nothing of an end."""

    def __init__(self, *arrays, label=int):
        self.arrays, self.label = arrays, label

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, number):
        assert number < len(self), "it says nothing of an end"
        *values, y = (each[number] for each in self.arrays)
        return (*values, self.label(y))


class Frame:
    """A table, as pandas has it."""

    def __init__(self, columns):
        self.columns, self.values = [name for name, _ in columns], dict(columns)

    def to_numpy(self):
        raise AssertionError("columns may be of different types")

    def __getitem__(self, name):
        return Tensor(np.asarray(self.values[name]))


class Rows:
    """Hugging Face's data set: rows by their numbers, and columns by a slice."""

    def __init__(self, **columns):
        self.columns_, self.column_names = columns, list(columns)

    def __getitem__(self, key):
        return {name: each[key] for name, each in self.columns_.items()}

    def __iter__(self):
        raise AssertionError("row by row takes long")


def frame(x=X, y=Y, label="label"):
    return Frame([*((f"pixel {i}", x[:, i]) for i in range(x.shape[1])), (label, y)])


KINDS = {
    "pair": lambda: (X, Y),
    "by name": lambda: {"x": X, "labels": Y},
    "Hugging Face batch": lambda: {"pixel_values": X, "label": Y.tolist()},
    "targets": lambda: {"x": X, "targets": Y},
    "Hugging Face data set": lambda: Rows(pixel_values=X.tolist(), labels=Y.tolist()),
    "loader of lists": lambda: Loader(X, Y),
    "loader of tuples": lambda: Loader(X, Y, make=tuple),
    "loader of one sample": lambda: Loader(X, Y, size=1),
    "loader of dicts": lambda: [{"x": X[:4], "y": Y[:4]}, {"x": X[4:], "y": Y[4:]}],
    "generator": lambda: ((X[i : i + 5], Y[i : i + 5]) for i in (0, 5)),
    "list of batches": lambda: [(X[:2], Y[:2]), (X[2:], Y[2:])],
    "data set": lambda: Samples(X, Y),
    "data set with labels of one value": lambda: Samples(X, Y, label=np.int64),
    "samples one by one": lambda: ((X[i], int(Y[i])) for i in range(6)),
    "table": frame,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_same(name):
    data = load_data(KINDS[name](), FOUR)
    assert isinstance(data, Data)
    assert data.samples == 6
    np.testing.assert_array_equal(data.inputs["x"], X)
    np.testing.assert_array_equal(data.labels, Y)
    assert data.labels.dtype == np.int64


@pytest.mark.parametrize("given", [X, Tensor(X), X.tolist(), tuple(X), {"x": X}, Loader(X), iter([X])], ids=range(7))
def test_labels_need_not_be(given):
    data = load_data(given, FOUR)
    assert data.labels is None
    np.testing.assert_array_equal(data.inputs["x"], X)


def test_a_data_set_without_labels():
    class Unlabelled(Samples):
        def __getitem__(self, number):
            return super().__getitem__(number)[0]

    data = load_data(Unlabelled(X, Y), FOUR)
    assert data.labels is None
    np.testing.assert_array_equal(data.inputs["x"], X)


def test_labels_are_given_by_name_or_as_they_are():
    both = {"x": X, "y": Y + 1, "label": Y}
    np.testing.assert_array_equal(load_data({"x": X, "class": Y}, FOUR, labels="class").labels, Y)
    np.testing.assert_array_equal(load_data(X, FOUR, labels=Y.tolist()).labels, Y)
    np.testing.assert_array_equal(load_data(frame(label="digit"), FOUR, labels="digit").labels, Y)
    with pytest.raises(
        DataError, match=r"label, y may each be the labels; say which: --labels .*, in Python\s+labels="
    ):
        load_data(dict(sorted(both.items())), FOUR)
    with pytest.raises(DataError, match=r"labels 'kind': it is not there; found: x, labels"):
        load_data({"x": X, "labels": Y}, FOUR, labels="kind")
    with pytest.raises(DataError, match=r"labels 'x': it is an input of the model"):
        load_data({"x": X, "labels": Y}, FOUR, labels="x")
    with pytest.raises(DataError, match=r"a ndarray has no names, so no labels 'y'; give the labels"):
        load_data(X, FOUR, labels="y")


def test_an_input_of_the_model_is_never_the_labels():
    inputs = (value("n", 4), value("n", 2, name="y"))
    data = load_data({"x": X, "y": Z, "labels": Y}, inputs)
    np.testing.assert_array_equal(data.inputs["y"], Z)
    np.testing.assert_array_equal(data.labels, Y)
    assert load_data({"x": X, "y": Z}, inputs).labels is None


def test_several_inputs():
    for each in (
        Loader(X, Z, Y),
        Samples(X, Z, Y),
        Loader(X, Z, Y, make=lambda parts: (lambda x, z, y: ({"x": x, "z": z}, y))(*parts)),
        {"x": X, "z": Z, "labels": Y},
    ):
        data = load_data(each, TWO)
        np.testing.assert_array_equal(data.inputs["z"], Z)
        np.testing.assert_array_equal(data.labels, Y)
    assert load_data(Loader(X, Z), TWO).labels is None
    with pytest.raises(
        DataError, match="data, piece 0 has 1 parts; the model has 2 inputs: give 2 values, or 3 with the"
    ):
        load_data(Loader(X), TWO)
    columns = (value("n", 1, name="a"), value("n", name="b"))
    data = load_data(Frame([("b", Y), ("a", X[:, 0]), ("target", Y)]), columns)
    np.testing.assert_array_equal(data.inputs["a"], X[:, :1])
    np.testing.assert_array_equal(data.inputs["b"], Y)


def test_batches_have_samples_first_whatever_the_models_axis():
    """A recurrent model takes [time, batch, values]; a loader gives [batch, time, values]."""
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    inputs, axes = (value(3, "n", 4),), SampleAxes({"x": 1})
    for each in (Loader(x, np.arange(2), size=1), [(x[:1], Y[:1]), (x[1:], Y[1:2])]):
        np.testing.assert_array_equal(load_data(each, inputs, axes).inputs["x"], x.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Loader(X[:0], Y[:0]), "data gives no samples"),
        (iter([]), "data gives no samples"),
        ([(X, Y), (X[:, :3], Y)], r"input 'x': samples differ in shape: \(3,\), \(4,\)"),
        ([(X, Y), {"x": X}], "piece 1 has other parts than the first one"),
        (
            [(X, Y, Y), (X, Y, Y)],
            "piece 0 has 3 parts; the model has 1 input: give 1 values, or 2 with the labels last",
        ),
        (iter([(X, Y[:3])]), "arrays have different numbers of samples"),
        (iter([1.0, 2.0]), "input 'x': a single number is no batch of samples"),
        (Loader(X, X), "labels must be whole numbers, one per sample"),
        (Frame([("a", Y), ("a", Y)]), "has two columns 'a'"),
        (Frame([("label", Y)]), "samples have shape 1;"),
        (Frame([("labels", Y)]), "has no column beside that of the labels, 'labels'"),
        (object(), "it is no array but a object"),
        (Loader(X * np.nan, Y), "there are NaN or infinite values"),
        (iter("ab"), "it is no array|is not numeric|single number"),
    ],
    ids=range(14),
)
def test_what_is_wrong_is_told(given, text):
    with pytest.raises(DataError, match=text):
        load_data(given, FOUR)


def test_a_loader_without_an_end_is_stopped(monkeypatch):
    monkeypatch.setattr("xbcompile.data.batches._MOST_BYTES", 1000)

    def forever():
        while True:
            yield X, Y

    with pytest.raises(DataError, match=r"11 pieces take 1,056 bytes; at most 1,000 are read at once"):
        load_data(forever(), FOUR)


def test_what_holds_samples_is_told_from_inputs():
    for name, make in KINDS.items():
        assert holds_samples(make(), FOUR), name
    for plain in (X, X.tolist(), {"x": X}, tuple(X), Tensor(X)):
        assert not holds_samples(plain, FOUR)
    assert not holds_samples("text", (value("n", kind=TensorProto.STRING),))


@settings(max_examples=30, deadline=None)
@given(
    samples=st.integers(1, 9),
    values=st.integers(1, 5),
    size=st.integers(1, 10),
    has_labels=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_batches_of_any_size_are_joined(samples, values, size, has_labels, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(samples, values)).astype(np.float32), rng.integers(0, 5, samples)
    data = load_data(Loader(*((x, y) if has_labels else (x,)), size=size), (value("n", values),))
    np.testing.assert_array_equal(data.inputs["x"], x)
    assert (data.labels is None) == (not has_labels)
    assert data.labels is None or data.labels.tolist() == y.tolist()


# --- files


def test_npz_with_any_label_key(tmp_path):
    for key in ("labels", "label", "y", "targets", "target"):
        np.savez(tmp_path / "a.npz", images=X, **{key: Y})
        data = load_data(tmp_path / "a.npz", FOUR)
        np.testing.assert_array_equal(data.labels, Y)
    np.savez(tmp_path / "a.npz", images=X, digit=Y)
    np.testing.assert_array_equal(load_data(tmp_path / "a.npz", FOUR, labels="digit").labels, Y)
    np.savez(tmp_path / "a.npz", y=X)
    np.testing.assert_array_equal(load_data(tmp_path / "a.npz", FOUR).inputs["x"], X)
    np.savez(tmp_path / "a.npz", x=X, y=Y, label=Y)
    with pytest.raises(DataError, match=r"y, label may each be the labels; say which: --labels y"):
        load_data(tmp_path / "a.npz", FOUR)


def write_csv(path, header, rows):
    lines = [",".join(header)] if header else []
    path.write_text("\n".join([*lines, *(",".join(map(repr, row)) for row in rows)]) + "\n")
    return path


def test_csv(tmp_path):
    rows = [[*map(float, x), int(y)] for x, y in zip(X, Y, strict=True)]
    path = write_csv(tmp_path / "d.csv", ["a", "b", "c", "d", "label"], rows)
    data = load_data(path, FOUR)
    np.testing.assert_array_equal(data.inputs["x"], X)
    np.testing.assert_array_equal(data.labels, Y)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"label", b'"digit"'))
    np.testing.assert_array_equal(load_data(path, FOUR, labels="digit").labels, Y)
    path = write_csv(tmp_path / "e.csv", [], rows)
    np.testing.assert_array_equal(load_data(path, FOUR, labels="4").labels, Y)
    path = write_csv(tmp_path / "f.csv", ["z", "label", "x"], [[1, 5, 2], [3, 6, 4]])
    whole = (value("n", kind=TensorProto.INT64), value("n", 1, name="z"))
    data = load_data(path, whole)
    assert (data.inputs["x"].tolist(), data.inputs["z"].tolist(), data.labels.tolist()) == ([2, 4], [[1], [3]], [5, 6])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "its first line is empty"),
        (b"a,b\n", "it has no rows"),
        (b"a,b\n1,2,3\n", "its first line has 2 columns, and its rows 3"),
        (b"1,2\n1,2,3\n", "the number of columns changed from 2 to 3"),
        (b"a,b\n1,cat\n", "could not convert string 'cat'"),
        (b"a,b\n1,\n", "could not convert string ''"),
        (b"a,a\n1,2\n", "has two columns 'a'"),
        (b"\xff\xfe\x00", "it is no text in UTF-8"),
        (b"label\n1\n", "has no column beside that of the labels|samples have shape"),
        (b"a,b,c,d,label\n1,2,3,4,1.5\n", "labels must be whole numbers"),
        (b"a,b,c,d\n1,2,3,nan\n", "NaN or infinite"),
        (b"PK\x03\x04\x00\x00", "is no table of numbers"),
    ],
    ids=range(12),
)
def test_bad_csv(tmp_path, content, text):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        load_data(path, FOUR)
    assert "bad.csv" in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), named=st.booleans(), data=st.data())
def test_csv_of_any_size_keeps_its_numbers(tmp_path_factory, rows, columns, named, data):
    numbers = data.draw(
        st.lists(st.lists(st.floats(-1e30, 1e30), min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    )
    header = [f"c{i}" for i in range(columns)] if named else []
    path = write_csv(tmp_path_factory.mktemp("csv") / "d.csv", header, numbers)
    wide = (value("n", columns, kind=TensorProto.DOUBLE),)
    np.testing.assert_array_equal(load_data(path, wide).inputs["x"], np.array(numbers))


# --- folders of images


def write_images(folder, images, classes, mode=None):
    """Pixels uint8; files are numbered within the folder of their class, the names of which are in another order."""
    for number, (pixels, label) in enumerate(zip(images, classes, strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        (image.convert(mode) if mode else image).save(folder / label / f"{number:03}.png")


GREY = np.random.default_rng(2).integers(0, 256, (5, 3, 4), np.uint8)
COLOUR = np.random.default_rng(3).integers(0, 256, (5, 3, 4, 3), np.uint8)
CLASSES = ["dog", "cat", "dog", "ant", "cat"]
ORDER = [3, 1, 4, 0, 2]  # by class, then by name


def test_a_folder_of_grey_images(tmp_path):
    write_images(tmp_path, GREY, CLASSES)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    for shape in ([1, 3, 4], [3, 4], [3, 4, 1], [12]):
        data = load_data(tmp_path, (value("n", *shape),))
        np.testing.assert_array_equal(data.inputs["x"], (GREY[ORDER] / np.float32(255)).reshape(5, *shape))
        assert data.labels.tolist() == [0, 1, 1, 2, 2]
    whole = load_data(str(tmp_path), (value("n", 3, 4, kind=TensorProto.UINT8),))
    np.testing.assert_array_equal(whole.inputs["x"], GREY[ORDER])


def test_a_folder_of_colour_images_with_channels_first_or_last(tmp_path):
    write_images(tmp_path, COLOUR, CLASSES)
    scaled = COLOUR[ORDER] / np.float32(255)
    first = scaled.transpose(0, 3, 1, 2)
    for shape, wanted in (
        ((3, 3, 4), first),
        ((3, 4, 3), scaled),
        ((3, None, None), first),
        ((3, "h", "w"), first),
        ((None, None, 3), scaled),
    ):
        np.testing.assert_array_equal(load_data(tmp_path, (value("n", *shape),)).inputs["x"], wanted)
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((36,), "of 36 takes none of that size"),
        (("a", "b", "c"), r"of \?x\?x\? does not say whether channels come first or last"),
        ((1, 3, 4), "4x3 pixels of 3 channels, and the model's input 'x' of 1x3x4 takes none of that size"),
    ]
    for sizes, text in wrong:
        with pytest.raises(DataError, match=text):
            load_data(tmp_path, (value("n", *sizes),))


def test_images_without_classes_and_of_other_modes(tmp_path):
    write_images(tmp_path, GREY, ["."] * 5)
    assert load_data(tmp_path, (value("n", 3, 4),)).labels is None
    bits = tmp_path / "bits"
    write_images(bits, GREY, CLASSES, "1")
    assert set(np.unique(load_data(bits, (value("n", 3, 4),)).inputs["x"])) <= {0.0, 1.0}
    deep = tmp_path / "deep"
    write_images(deep, GREY.astype(np.uint16) * 257, CLASSES)
    np.testing.assert_array_equal(
        load_data(deep, (value("n", 3, 4),)).inputs["x"], GREY[ORDER].astype(np.float32) * 257 / np.float32(65535)
    )


def test_bad_folders(tmp_path, monkeypatch):
    inputs = (value("n", 3, 4),)
    with pytest.raises(DataError, match="it has no images; their names end with"):
        load_data(tmp_path, inputs)
    write_images(tmp_path, GREY, CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="subfolder 'empty' has no images"):
        load_data(tmp_path, inputs)
    (tmp_path / "empty").rmdir()
    with pytest.raises(DataError, match="subfolders as classes, and no array of labels 'y'; leave --labels out"):
        load_data(tmp_path, inputs, labels="y")
    odd = tmp_path / "dog" / "odd.png"
    for pixels, text in (
        (np.zeros((3, 5), np.uint8), "is 4x3 pixels of mode L, 'dog/odd.png' 5x3 pixels of mode L; save all in one"),
        (np.zeros((3, 4, 3), np.uint8), "'dog/odd.png' 4x3 pixels of mode RGB"),
    ):
        Image.fromarray(pixels).save(odd)
        with pytest.raises(DataError, match=re.escape(text)):
            load_data(tmp_path, inputs)
    Image.fromarray(GREY[0]).convert("P").save(odd)
    with pytest.raises(DataError, match="is of mode P; allowed: 1, L, RGB, RGBA, I;16; save it as RGB or L"):
        load_data(tmp_path, inputs)
    odd.write_bytes(b"\x89PNG no image")
    with pytest.raises(DataError, match=r"odd\.png' cannot be read: cannot identify image file"):
        load_data(tmp_path, inputs)
    whole = (tmp_path / "dog" / "000.png").read_bytes()
    odd.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"odd\.png' cannot be read"):
        load_data(tmp_path, inputs)
    odd.unlink()
    monkeypatch.setattr("xbcompile.data.image_folders._MOST_PIXELS", 10)
    with pytest.raises(DataError, match="has 4x3 pixels; at most 10 are read"):
        load_data(tmp_path, inputs)
    monkeypatch.setattr("xbcompile.data.image_folders._MOST_PIXELS", 100)
    monkeypatch.setattr("xbcompile.data.image_folders._MOST_BYTES", 10)
    with pytest.raises(DataError, match="5 images of 12 bytes each; at most 10 bytes are read at once"):
        load_data(tmp_path, inputs)
    Image.fromarray(GREY[0]).save(tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"has images beside subfolders: 'stray\.png' and 'ant'"):
        load_data(tmp_path, inputs)


def test_images_of_many_frames_are_refused(tmp_path):
    frames = [Image.fromarray(each).convert("L") for each in GREY]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"a\.gif' (has 5 frames; save each|is of mode P)"):
        load_data(tmp_path, (value("n", 3, 4),))


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    write_images(tmp_path, GREY, CLASSES)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'xbcompile\[images\]'"):
        load_data(tmp_path, (value("n", 3, 4),))
