"""Data sets made by the package: what each promises, recomputed here another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy.optimize import linprog

from xbcompile.data import synthetic
from xbcompile.data.datasets import load_data, load_set
from xbcompile.errors import DataError


def value(*shape):
    return helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])


def distances(a, b):
    """Pixels in which each of `a` differs from each of `b`."""
    return (a[:, None] != b[None]).sum(axis=2)


def test_letters():
    patterns, labels = synthetic.letters("train")
    assert (patterns.shape, patterns.dtype, labels.dtype) == ((40, 16), np.float32, np.int64)
    assert set(np.unique(patterns)) == {-1, 1}
    assert np.bincount(labels).tolist() == [10] * 4
    apart = distances(patterns, patterns)
    assert (apart[~np.eye(40, dtype=bool)] >= 1).all()
    assert (apart[labels[:, None] != labels[None]] >= 3).all()


@pytest.mark.parametrize(
    ("letter", "rows"),
    [
        ("A", "#### #..# #### #..#"),
        ("T", "#### .##. .##. .##."),
        ("V", "#..# #..# .##. .##."),
        ("X", "#..# .##. .##. #..#"),
    ],
)
def test_the_first_drawing_of_a_letter(letter, rows):
    patterns, labels = synthetic.letters("train")
    first = patterns[labels == synthetic.LETTERS.index(letter)][0]
    assert [("#" if pixel > 0 else ".") for pixel in first] == list(rows.replace(" ", ""))


def test_no_hyperplane_tells_x_from_the_others():
    """w x + b >= 1 for X and <= -1 for the others has no solution."""
    patterns, labels = synthetic.letters("train")
    signs = np.where(labels == 3, 1.0, -1.0)[:, None]
    demands = -signs * np.column_stack([patterns, np.ones(40)])
    assert linprog(np.zeros(17), demands, -np.ones(40), bounds=(None, None)).status == 2  # infeasible


def test_flipped_letters():
    """640 patterns, each one pixel from its own drawing, in order, and two at least from any of another letter."""
    drawn, letters = synthetic.letters("train")
    patterns, labels = synthetic.letters("test")
    assert (patterns.shape, patterns.dtype, labels.dtype) == ((640, 16), np.float32, np.int64)
    for number, pattern in enumerate(patterns):
        expected = drawn[number // 16].copy()
        expected[number % 16] *= -1
        assert np.array_equal(pattern, expected)
        assert labels[number] == letters[number // 16]
    apart = distances(patterns, drawn)
    assert (apart[labels[:, None] != letters[None]] >= 2).all()


def test_letters_by_name():
    data = load_data("letters:test:50", (value(1, 4, 4),))
    assert data.inputs["x"].shape == (50, 1, 4, 4)
    assert np.array_equal(data.inputs["x"].reshape(50, 16), synthetic.letters("test")[0][:50])
    assert load_data("letters:train", (value(16),)).samples == 40
    with pytest.raises(DataError, match="data 'letters:train:41': '41' samples; allowed: 1 to 40"):
        load_data("letters:train:41", (value(16),))


BLACK = np.zeros((1, 28, 28), np.uint8)


@st.composite
def rectangles(draw):
    """A full rectangle within the 20x20 pixels where MNIST has its ink, on even pixels so that halving keeps it full."""
    height, width = (2 * draw(st.integers(4, 10)) for _ in range(2))
    top, left = (2 * draw(st.integers(2, 12 - size // 2)) for size in (height, width))
    picture = BLACK.copy()
    picture[0, top : top + height, left : left + width] = 255
    return picture, height // 2, width // 2


@settings(max_examples=40)
@given(rectangles(), st.sampled_from(["train", "test"]))
def test_the_label_is_the_cell_of_the_digit(rectangle, part):
    """Garments are black here, so that the one bright thing is the digit: its place is found in the finished scene."""
    digit, height, width = rectangle
    pixels, labels = synthetic.scenes(digit, BLACK, part, 8)
    assert (pixels.shape, pixels.dtype, labels.dtype) == ((8, 80, 56), np.float32, np.int64)
    for scene, cell in zip(pixels, labels, strict=True):
        # Box sums of the digit's size are largest on the digit.
        sums = np.lib.stride_tricks.sliding_window_view(scene, (height, width)).sum(axis=(2, 3))
        top, left = np.unravel_index(sums.argmax(), sums.shape)
        row, column = divmod(int(cell), 7)
        assert abs(top + height / 2 - (8 * row + 4)) <= 2.5  # 2 pixels, and half a pixel for odd sizes
        assert abs(left + width / 2 - (8 * column + 4)) <= 2.5


def test_scenes_are_free_around_the_digit(monkeypatch):
    """Without noise: one full square of 10x10 among full garments; the frame of one pixel around it is black."""
    monkeypatch.setattr(synthetic, "_NOISE", 0.0)
    monkeypatch.setattr(synthetic, "_DIGIT_CONTRAST", (1.0, 1.0))
    monkeypatch.setattr(synthetic, "_CLUTTER_CONTRAST", (0.3, 0.9))
    digit = BLACK.copy()
    digit[0, 4:24, 4:24] = 255
    pixels, labels = synthetic.scenes(digit, np.full((1, 28, 28), 255, np.uint8), "test", 100)
    shifts = []
    for scene, cell in zip(pixels, labels, strict=True):
        rows, columns = (np.unique(found) for found in np.nonzero(scene == 1))
        assert len(rows) == len(columns) == 10
        assert (scene == 1).sum() == 100
        frame = np.pad(scene, 1)[rows[0] : rows[0] + 12, columns[0] : columns[0] + 12].copy()
        frame[1:-1, 1:-1] = 0
        assert not frame.any()
        assert ((scene > 0) & (scene < 1)).any()  # garments elsewhere
        row, column = divmod(int(cell), 7)
        shifts.append((rows[0] + 5 - (8 * row + 4), columns[0] + 5 - (8 * column + 4)))
    by_rows, by_columns = np.transpose(shifts)
    assert set(by_rows) == set(by_columns) == {-2, -1, 0, 1, 2}
    assert len(set(shifts)) > 18  # of 25: rows and columns shift independently


def test_a_scene_depends_on_its_part_and_number_alone():
    random = np.random.default_rng(1)
    digits, garments = random.integers(0, 256, (2, 5, 28, 28), np.uint8)
    ten, labels = synthetic.scenes(digits, garments, "train", 10)
    three, first_labels = synthetic.scenes(digits, garments, "train", 3)
    assert np.array_equal(ten[:3], three)
    assert np.array_equal(labels[:3], first_labels)
    assert len({scene.tobytes() for scene in ten}) == 10
    assert not np.array_equal(synthetic.scenes(digits, garments, "test", 3)[0], three)


def test_every_cell_is_used():
    labels = synthetic.scenes(BLACK, BLACK, "train", 1000)[1]
    counts = np.bincount(labels, minlength=70)
    assert counts.shape == (70,)
    assert counts.min() >= 2  # mean 14.3, standard deviation 3.8
    assert counts.max() <= 32


def test_scenes_by_name(mnist):
    """Pixels are multiples of 1/255 in 0..1; only the asked number is made."""
    pixels, labels = load_set("scenes", "test", 5)
    assert (pixels.shape, labels.shape) == ((5, 80, 56), (5,))
    assert (pixels.min(), pixels.max() <= 1) == (0, True)
    assert np.array_equal(np.round(pixels * 255) / np.float32(255), pixels)
    data = load_data("scenes:test:5", (value(80 * 56),))
    assert np.array_equal(data.inputs["x"], pixels.reshape(5, -1))
    assert np.array_equal(data.labels, labels)


def test_too_many_scenes(monkeypatch, mnist):
    monkeypatch.setitem(synthetic.SCENE_COUNTS, "test", 4)
    with pytest.raises(DataError, match="data 'scenes:test:5': '5' samples; allowed: 1 to 4"):
        load_data("scenes:test:5", (value(80 * 56),))
