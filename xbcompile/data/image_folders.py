"""Folders of images, a class in each subfolder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from xbcompile.errors import DataError, elided, quoted

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
# What each value of a pixel is divided by for an input of floats, by the mode that Pillow gives an image.
_LARGEST = {"1": 1, "L": 255, "RGB": 255, "RGBA": 255, "I;16": 65535}
_MOST_PIXELS = 1 << 26  # of one image: a small file can claim more; assumed
_MOST_BYTES = 1 << 33  # of all pixels; assumed
_Found = list[tuple[Path, int | None]]


def image_folder(path: str, value: onnx.ValueInfoProto) -> tuple[np.ndarray, np.ndarray | None]:
    """All images of a folder as samples of an input, and the number of each one's class.

    Classes are the subfolders, numbered in the order of their names. Images that lie in the folder itself have no labels. For
    inputs of floats, pixels are in 0..1 (as torchvision's `ToTensor` gives them), for others they are the file's numbers.

    Args:
        path: of the folder.
        value: the model's input, whose shape says whether channels come first or last.

    Returns:
        images [samples, rows, columns] or with channels where the input has them, and labels int64 [samples] or None.

    Raises:
        DataError: there are no images, they differ in size or mode, one cannot be read, or Pillow is not installed.
    """
    found = _files(path)
    stacked, mode = _read_all(found, path)
    if value.type.tensor_type.elem_type in _FLOATS:
        stacked = stacked.astype(np.float32) / np.float32(_LARGEST[mode])
    labels = [label for _, label in found if label is not None]
    return _with_channels(stacked, value, path), np.array(labels, np.int64) if labels else None


_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


def _files(path: str) -> _Found:
    """Images and the numbers of their classes, in the order of names."""
    folder = Path(path)
    try:
        entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        classes = [each for each in entries if each.is_dir()]
        plain = _images(entries)
        by_class = [_images(sorted(each.iterdir())) for each in classes]
    except OSError as error:
        raise DataError(f"folder {quoted(path)} cannot be read: {error.strerror}") from None
    empty = [each.name for each, images in zip(classes, by_class, strict=True) if not images]
    if plain and classes:
        raise DataError(
            f"folder {quoted(path)} has images beside subfolders: {quoted(plain[0].name)} and {quoted(classes[0].name)}; put "
            "each image into the subfolder of its class, or all into the folder itself, without labels"
        )
    if empty or not (plain or classes):
        where = f"subfolder {quoted(empty[0])}" if empty else "it"
        raise DataError(f"folder {quoted(path)}: {where} has no images; their names end with {elided(list(ENDINGS))}")
    return [(each, None) for each in plain] + [
        (each, number) for number, images in enumerate(by_class) for each in images
    ]


def _images(entries: Sequence[Path]) -> list[Path]:
    return [each for each in entries if each.suffix.lower() in ENDINGS and not each.name.startswith(".")]


def _read_all(found: _Found, path: str) -> tuple[np.ndarray, str]:
    """Pixels of all files [samples, ...], and their mode."""
    first, *rest = (each for each, _ in found)
    pixels, mode = _read(first)
    if pixels.nbytes * len(found) > _MOST_BYTES:
        raise DataError(
            f"folder {quoted(path)}: {len(found):,} images of {pixels.nbytes:,} bytes each; at most {_MOST_BYTES:,} bytes are "
            "read at once: give an .npy file, which is read as it is run"
        )
    stacked = np.empty((len(found), *pixels.shape), pixels.dtype)
    stacked[0] = pixels
    for number, each in enumerate(rest, 1):
        other, other_mode = _read(each)
        if (other.shape, other_mode) != (pixels.shape, mode):
            raise DataError(
                f"folder {quoted(path)}: images differ: {quoted(_name(first, path))} is {_described(pixels, mode)}, "
                f"{quoted(_name(each, path))} {_described(other, other_mode)}; save all in one size and mode"
            )
        stacked[number] = other
    return stacked, mode


def _name(file: Path, path: str) -> str:
    return os.path.relpath(file, path)


def _described(pixels: np.ndarray, mode: str) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]} pixels of mode {mode}"


def _read(file: Path) -> tuple[np.ndarray, str]:
    """Pixels of one file, [rows, columns] or [rows, columns, channels], and its mode."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DataError("images are read with Pillow; install it: pip install 'xbcompile[images]'") from None
    try:
        with Image.open(file) as image:
            _check_image(image, file)
            return np.asarray(image), image.mode
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image {quoted(str(file))} cannot be read: {error}") from None


def _check_image(image: Any, file: Path) -> None:
    """Raise DataError for what is not one image of plain numbers, before its pixels are read."""
    if image.mode not in _LARGEST:
        raise DataError(
            f"image {quoted(str(file))} is of mode {image.mode}; allowed: {elided(list(_LARGEST))}; save it as RGB or L"
        )
    if image.width * image.height > _MOST_PIXELS:
        raise DataError(
            f"image {quoted(str(file))} has {image.width}x{image.height} pixels; at most {_MOST_PIXELS:,} are read"
        )
    if getattr(image, "n_frames", 1) != 1:
        raise DataError(f"image {quoted(str(file))} has {image.n_frames} frames; save each as an image of its own")


def _with_channels(stacked: np.ndarray, value: onnx.ValueInfoProto, path: str) -> np.ndarray:
    """Channels where the model's input has them: behind the samples, or last.

    Raises:
        DataError: its shape does not say.
    """
    if stacked.ndim == 3:
        return stacked
    wanted = [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim][1:]
    first = np.moveaxis(stacked, -1, 1)
    fits = [each for each in (first, stacked) if _fits(each.shape[1:], wanted)]
    if len(fits) == 1 or (fits and wanted[0] is not None and wanted[0] == first.shape[1] and wanted[-1] is None):
        return fits[0]
    shape = "x".join("?" if size is None else str(size) for size in wanted)
    problem = "does not say whether channels come first or last" if fits else "takes none of that size"
    raise DataError(
        f"folder {quoted(path)}: images have {stacked.shape[2]}x{stacked.shape[1]} pixels of {stacked.shape[3]} channels, and "
        f"the model's input {quoted(value.name)} of {shape} {problem}; give arrays, or compile with --dim"
    )


def _fits(found: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(found) == len(wanted) and all(w is None or w == f for f, w in zip(found, wanted, strict=True))
