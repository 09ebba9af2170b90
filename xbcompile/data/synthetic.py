"""Data sets made here, because the papers' own are not published: stylised letters, and digits hidden in scenes.

`letters` stands for the benchmark of Bayat et al., Implementation of multilayer perceptron network with highly uniform
passive memristive crossbar circuits (2018): 40 training patterns of 4x4 black and white pixels, ten variants of each of
A, T, V and X, and as test set all 640 patterns that differ from one of them in one pixel. The drawings are our own.

`scenes` stands for the face detection of Jung et al., Nature 601, 211 (2022), whose network ends in a map of 10x7
cells: a handwritten digit (MNIST) among parts of garments (Fashion-MNIST); the label is the cell that holds the digit.
"""

from __future__ import annotations

import numpy as np

LETTERS = "ATVX"

# Ten 4x4 drawings side by side for each letter. Two drawings of different letters differ in three pixels at least, so a
# drawing with one pixel flipped is nearer to its own letter than to any drawing of another. X cannot be told from the
# other letters by a hyperplane.
_DRAWINGS = {
    "A": """
        #### .##. .##. .#.. ..#. .... .... .... .#.. ....
        #..# #..# #### #.#. .#.# .##. .##. .### #.#. ..#.
        #### #### #..# ###. .### #..# #### .### ###. .#.#
        #..# #..# #..# #.#. .#.# #### #..# .#.# .... .###
    """,
    "T": """
        #### #### ###. #### .... #### #### .... .... ###.
        .##. .#.. .#.. .##. #### .#.. ..#. #### .### ###.
        .##. .#.. .#.. .##. .##. .#.. ..#. ..#. ..#. .#..
        .##. .#.. .#.. .... .##. .... .... ..#. ..#. ....
    """,
    "V": """
        #..# #.#. .#.# #.#. .#.# .#.# #..# #..# .... #..#
        #..# #.#. .#.# #.#. .#.# .#.# #.#. .#.# #..# #.#.
        .##. #.#. .#.# .#.. ..#. ..#. .#.. ..#. .#.# #.#.
        .##. .#.. ..#. .#.. ..#. .... .... .... ..#. .#..
    """,
    "X": """
        #..# #.#. .#.# #..# #.#. .#.# #..# #.#. .#.# #.#.
        .##. .#.. ..#. .##. .#.. ..#. .##. .#.. ..#. #.#.
        .##. .#.. ..#. #..# #.#. .#.# #..# #.#. .#.# .#..
        #..# #.#. .#.# .... .... .... #..# #.#. .#.# #.#.
    """,
}

SCENE_COUNTS = {"train": 10_000, "test": 2_000}
SCENE_ROWS, SCENE_COLUMNS = 80, 56
CELL = 8  # pixels; a scene has 10x7 cells

# First word of the generator's key; the second is the scene's number.
_PART_KEYS = {"train": 0x7363_656E, "test": 0x7363_656F}
_SHIFT = 2  # pixels from a cell's centre to the digit's, at most, in rows and in columns
_DIGIT_CONTRAST = (0.4, 1.0)
_CLUTTER_PARTS = 16
_CLUTTER_SIDE = (5, 13)  # pixels: lowest, and one above the highest
_CLUTTER_CONTRAST = (0.3, 1.0)
_NOISE = 0.12  # standard deviation, in parts of white


def letters(part: str) -> tuple[np.ndarray, np.ndarray]:
    """The patterns of one part, float32 [N, 16] with black (drawn) +1 and white -1, and labels int64 [N], 0 to 3 for A, T, V, X.

    "train" has the 40 drawings, letter by letter; "test" the 640 patterns with one pixel flipped: pattern 16 i + j is
    drawing i with pixel j flipped.
    """
    drawn = np.concatenate([_read_drawings(_DRAWINGS[letter]) for letter in LETTERS])
    labels = np.repeat(np.arange(len(LETTERS), dtype=np.int64), len(drawn) // len(LETTERS))
    if part == "train":
        return drawn, labels
    flips = 1 - 2 * np.eye(drawn.shape[1], dtype=np.float32)
    return (drawn[:, None] * flips).reshape(-1, drawn.shape[1]), np.repeat(labels, drawn.shape[1])


def _read_drawings(text: str) -> np.ndarray:
    """Drawings that stand side by side, as float32 [drawings, pixels] of +-1, rows first."""
    rows = [line.split() for line in text.split("\n") if line.strip()]
    drawings = ["".join(pieces) for pieces in zip(*rows, strict=True)]
    return np.array([[1 if pixel == "#" else -1 for pixel in drawing] for drawing in drawings], np.float32)


def scenes(digits: np.ndarray, garments: np.ndarray, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` scenes of a part: pixels float32 [count, 80, 56] in 0..1, and labels int64 [count], 0 to 69.

    A scene holds one digit at half size (ink at most 10x10 pixels) whose centre, that of the box around its ink, is
    within 2 pixels of the centre of cell `label`, cells counted row by row; parts of garments at half size, one pixel at
    least from the box of the digit's ink; and pixel noise. Pixels are multiples of 1/255. A scene depends on its part
    and number alone (Philox 4x64 keyed by both).

    Args:
        digits: uint8 [n, 28, 28], the pictures of digits to choose from; use another set per part.
        garments: uint8 [m, 28, 28], likewise.
        part: "train" or "test".
        count: number of scenes, at most SCENE_COUNTS of the part.
    """
    pixels = np.empty((count, SCENE_ROWS, SCENE_COLUMNS), np.float32)
    labels = np.empty(count, np.int64)
    for number in range(count):
        random = np.random.Generator(np.random.Philox(key=[_PART_KEYS[part], number]))
        pixels[number], labels[number] = _scene(digits, garments, random)
    return pixels, labels


def _scene(digits: np.ndarray, garments: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """One scene, float32 [80, 56], and its label."""
    label = int(random.integers((SCENE_ROWS // CELL) * (SCENE_COLUMNS // CELL)))
    digit = _ink(_half_size(digits[random.integers(len(digits))]))
    height, width = digit.shape
    cell_row, cell_column = divmod(label, SCENE_COLUMNS // CELL)
    shift_row, shift_column = random.integers(-_SHIFT, _SHIFT + 1, 2)
    top = _start(cell_row, shift_row, height, SCENE_ROWS)
    left = _start(cell_column, shift_column, width, SCENE_COLUMNS)

    canvas = np.zeros((SCENE_ROWS, SCENE_COLUMNS), np.float32)
    for garment in _clutter(garments, random):
        side = len(garment)
        row, column = int(random.integers(SCENE_ROWS - side + 1)), int(random.integers(SCENE_COLUMNS - side + 1))
        if top - side <= row <= top + height and left - side <= column <= left + width:
            continue  # it would touch the digit
        view = canvas[row : row + side, column : column + side]
        np.maximum(view, garment, out=view)
    canvas[top : top + height, left : left + width] = np.float32(random.uniform(*_DIGIT_CONTRAST)) * digit
    canvas += np.float32(_NOISE) * random.standard_normal(canvas.shape, np.float32)
    return np.round(255 * canvas.clip(0, 1)) / np.float32(255), label


def _start(cell: int, shift: int, size: int, limit: int) -> int:
    """First pixel of something of `size` pixels, centred `shift` pixels from the cell's centre but inside the canvas."""
    return min(max(cell * CELL + CELL // 2 + int(shift) - size // 2, 0), limit - size)


def _clutter(garments: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Square parts of pictures, at half size, float32, each with a contrast of its own."""
    parts = []
    for picture in random.integers(len(garments), size=_CLUTTER_PARTS):
        half = _half_size(garments[picture])
        side = int(random.integers(*_CLUTTER_SIDE))
        row, column = random.integers(len(half) - side + 1, size=2)
        contrast = np.float32(random.uniform(*_CLUTTER_CONTRAST))
        parts.append(contrast * half[row : row + side, column : column + side])
    return parts


def _half_size(picture: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels, scaled to 0..1, float32."""
    whole = picture.astype(np.float32) / np.float32(255)
    return (whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2]) / np.float32(4)


def _ink(picture: np.ndarray) -> np.ndarray:
    """The smallest part that holds every pixel above 0; the whole picture where there is none."""
    rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
    if not len(rows):
        return picture
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
