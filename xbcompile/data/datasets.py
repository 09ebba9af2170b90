"""Data for calibration and evaluation: `mnist:train:1000`, `digits:test`, `letters:test`, ..., or a .npz file."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from xbcompile.data import synthetic
from xbcompile.data.arrays import as_array, whole_labels
from xbcompile.data.files import ArrayArchive, check_file, mapped_array, read_at_most
from xbcompile.data.shaping import shaped
from xbcompile.errors import DataError, elided, plain, quoted
from xbcompile.ir.sample_axes import SampleAxes

ENVIRONMENT_VARIABLE = "XBCOMPILE_DATA"
LABELS = "labels"

# SHA-256 of the original gzip files, and where they are kept.
_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
_FILES = {
    "mnist": (
        _MNIST_URL,
        {
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion-mnist": (
        _FASHION_URL,
        {
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
}
_IMAGE_SIDES = (28, 28)  # of those sets
_MOST_IDX_AXES, _MOST_IDX_BYTES = 3, 1 << 30  # theirs have 47 million bytes at most
_DIGITS_TRAINING = 1437  # scikit-learn's 1,797 digits: the first 1,437 train, the last 360 test
_SETS = (*_FILES, "digits", "letters", "scenes")
_COUNT = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, eq=False)
class Data:
    """Inputs of a model, and labels where there are any.

    Args:
        name: as the user wrote it.
        inputs: arrays by graph input name, see `SampleAxes`; those of an .npy file are `StoredArray`.
        labels: int64 [samples], or None.
        samples: number of samples.
    """

    name: str
    inputs: dict[str, Any]
    labels: np.ndarray | None
    samples: int


def load_data(
    spec: str | os.PathLike[str],
    model_inputs: tuple[onnx.ValueInfoProto, ...],
    samples: SampleAxes | None = None,
    optional: Collection[str] = (),
    *,
    finite: bool = True,
) -> Data:
    """Load data and shape it for a model.

    Args:
        spec: `SET:train[:N]`, `SET:test[:N]` with SET one of mnist, fashion-mnist, digits, letters, scenes; or the path of
            a .npz file whose arrays are named like the model's inputs (any name if there is one input), with an
            optional array `labels`; or of a .npy file with the only input, which is read as far as it is asked for.
        model_inputs: the model's graph inputs.
        samples: which of their axes count samples; None: axis 0 of each.
        optional: inputs that a file may lack.
        finite: whether NaN and infinite values are refused.

    Raises:
        DataError: unknown set or part, missing or damaged file, or arrays that do not fit the model.
    """
    if not isinstance(spec, str | bytes | os.PathLike):
        raise DataError(f"data {quoted(spec)}: give the name of a set or of a file, not a {type(spec).__name__}")
    spec = os.fsdecode(spec)
    axes = samples or SampleAxes({value.name: 0 for value in model_inputs})
    if spec.endswith(".npy"):
        arrays = {_only_input(model_inputs, optional, spec).name: mapped_array(spec)}
        return data_of(arrays, None, model_inputs, spec, axes, optional, finite=finite)
    if spec.endswith(".npz"):
        return _from_npz(spec, model_inputs, axes, optional, finite)
    name, _, rest = spec.partition(":")
    if name not in _SETS:
        raise DataError(
            f"unknown data {quoted(spec)}; allowed: {', '.join(f'{s}:test[:N]' for s in _SETS)}, or a .npz or .npy file"
        )
    part, _, count_text = rest.partition(":")
    if part not in ("train", "test"):
        raise DataError(f"data {quoted(spec)}: part {quoted(part)} is unknown; allowed: train, test")
    value = _only_input(model_inputs, optional, spec)
    count = int(count_text) if _COUNT.fullmatch(count_text) else 0
    pixels, labels = load_set(name, part, count or None)
    if count_text and not 1 <= count <= len(pixels):
        raise DataError(f"data {quoted(spec)}: {quoted(count_text)} samples; allowed: 1 to {len(pixels)}")
    inputs = {value.name: _in_place(pixels, value, spec, axes, samples_first=True)}
    return Data(spec, inputs, labels, _checked_samples(inputs, labels, spec, axes))


def load_set(name: str, part: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One part ("train" or "test") of a named set: pixels float32 [N, ...] and labels int64 [N].

    Pixels are in 0..1, [N, 28, 28] (digits: [N, 64]; scenes: [N, 80, 56]); those of letters are -1 or +1, [N, 16].

    Args:
        name: mnist, fashion-mnist, digits, letters or scenes.
        part: "train" or "test".
        count: the first so many samples, or all where there are fewer; None: all.

    Raises:
        DataError: the files are missing or damaged.
    """
    if name == "scenes":
        (digits, _), (garments, _) = (_idx_set(source, part) for source in _FILES)
        limit = synthetic.SCENE_COUNTS[part]
        return synthetic.scenes(digits, garments, part, limit if count is None else min(count, limit))
    if name == "letters":
        pixels, labels = synthetic.letters(part)
    elif name == "digits":
        pixels, labels = _digits(part)
    else:
        images, labels = _idx_set(name, part)
        pixels = images[:count].astype(np.float32) / np.float32(255)
    return pixels[:count], labels[:count].astype(np.int64)


def _idx_set(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, rows, columns], and labels uint8 [N]."""
    prefix = "train" if part == "train" else "t10k"
    images = _read_idx(_find(name, f"{prefix}-images-idx3-ubyte.gz"))
    labels = _read_idx(_find(name, f"{prefix}-labels-idx1-ubyte.gz"))
    if images.shape[1:] != _IMAGE_SIDES or labels.shape != images.shape[:1] or not len(images):
        raise DataError(
            f"{name}: images of shape {images.shape} and labels of shape {labels.shape} are no pairs of a label and an image of "
            f"28x28"
        )
    return images, labels


def _find(name: str, file: str) -> Path:
    """The file in the user's data folder, or downloaded into the user's cache and checked."""
    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    if folder:
        path = Path(folder) / name / file
        check_file(str(path), f"{ENVIRONMENT_VARIABLE} is {quoted(folder)}, but {plain(str(path))}")
        return path
    import platformdirs
    import pooch
    import requests

    url, checksums = _FILES[name]
    cache = Path(platformdirs.user_cache_dir("xbcompile")) / name
    try:
        return Path(
            pooch.retrieve(
                url + file, f"sha256:{checksums[file]}", file, cache, downloader=pooch.HTTPDownloader(progressbar=True)
            )
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise DataError(
            f"{name} is not in the cache {cache} and cannot be downloaded ({type(error).__name__}); set "
            f"{ENVIRONMENT_VARIABLE} to a folder that holds {name}/{file}"
        ) from None


def _read_idx(path: Path) -> np.ndarray:
    """Read a compressed IDX file of unsigned bytes (the format of Yann LeCun's MNIST page), no further than it says it goes."""
    where = plain(str(path))
    try:
        with gzip.open(path) as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\0\0\x08":
                raise DataError(f"{where} is no IDX file of unsigned bytes")
            sizes = file.read(4 * start[3])
            shape = np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4").tolist()
            if len(shape) > _MOST_IDX_AXES or math.prod(shape) > _MOST_IDX_BYTES:
                raise DataError(
                    f"{where} says that it has {len(shape)} axes, of sizes {elided([str(n) for n in shape])}; allowed: "
                    f"{_MOST_IDX_AXES} axes and {_MOST_IDX_BYTES:,} bytes"
                )
            values = read_at_most(file, math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where} is no valid gzip file: {error}") from None
    if not shape or len(shape) != start[3] or len(values) != math.prod(shape):
        raise DataError(f"{where} is truncated, or longer than its header says")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _digits(part: str) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's bundled 8x8 digits scaled to 0..1, float32 [N, 64], and labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("the digits data comes with scikit-learn; install it: pip install 'xbcompile[demo]'") from None
    bunch = load_digits()
    pixels, labels = (bunch.data / 16).astype(np.float32), bunch.target
    chosen = slice(None, _DIGITS_TRAINING) if part == "train" else slice(_DIGITS_TRAINING, None)
    return pixels[chosen], labels[chosen]


def _only_input(
    model_inputs: tuple[onnx.ValueInfoProto, ...], optional: Collection[str], spec: str
) -> onnx.ValueInfoProto:  # fmt: skip
    """The input that data of a single array are for."""
    needed = [value for value in model_inputs if value.name not in optional]
    if len(needed) != 1:
        raise DataError(
            f"data {quoted(spec)} has one array, but the model has {len(model_inputs)} inputs; use a .npz file"
        )
    return needed[0]


def _from_npz(
    path: str, model_inputs: tuple[onnx.ValueInfoProto, ...], axes: SampleAxes, optional: Collection[str], finite: bool
) -> Data:
    names = [value.name for value in model_inputs]
    with ArrayArchive(path) as archive:
        found = [name for name in archive.names if name != LABELS or name in names]
        labels = archive.read(LABELS) if LABELS in archive.names and LABELS not in names else None
        if len(names) == len(found) == 1:
            arrays = {names[0]: archive.read(found[0])}
        else:
            _check_names(found, names, optional, path)
            arrays = {name: archive.read(name) for name in found}
    return data_of(arrays, labels, model_inputs, path, axes, optional, finite=finite)


def _check_names(found: Collection[Any], names: Collection[str], optional: Collection[str], where: str) -> None:
    if not set(names) - set(optional) <= set(found) <= set(names):
        raise DataError(
            f"data {quoted(where)} has arrays {elided(sorted(map(str, found)))}; the model's inputs are "
            f"{elided(list(names))}"
        )


def data_of(
    arrays: dict[str, np.ndarray],
    labels: np.ndarray | None,
    model_inputs: tuple[onnx.ValueInfoProto, ...],
    where: str,
    samples: SampleAxes | None = None,
    optional: Collection[str] = (),
    *,
    finite: bool = True,
) -> Data:
    """Check arrays by input name, and labels, against a model.

    Args:
        arrays: by name; an input without samples once, or once per call of the model, with one more axis in front.
        labels: of the samples; None: there are none.
        model_inputs: the model's graph inputs.
        where: where the arrays come from, for messages.
        samples: which axes count samples; None: axis 0 of each input.
        optional: inputs that may be missing.
        finite: whether NaN and infinite values are refused.

    Raises:
        DataError: a name, type, shape, value or number of samples does not fit.
    """
    names = [value.name for value in model_inputs]
    axes = samples or SampleAxes(dict.fromkeys(names, 0))
    _check_names(arrays, names, optional, where)
    inputs = {}
    for value in model_inputs:
        if value.name in arrays:
            place = f"{plain(where)}, array {quoted(value.name)}"
            x = _in_place(as_array(arrays[value.name], place), value, place, axes, finite=finite)
            inputs[value.name] = x if axes.cuts(value.name, x) else np.asarray(x)
    whole = None if labels is None else whole_labels(labels, f"data {quoted(where)}")
    return Data(where, inputs, whole, _checked_samples(inputs, whole, where, axes))


def _checked_samples(inputs: dict[str, np.ndarray], labels: np.ndarray | None, where: str, axes: SampleAxes) -> int:
    """Number of samples; raises DataError where inputs and labels hold different numbers."""
    samples = axes.samples(inputs)
    counts = {name: n for name, n in axes.counts(inputs).items() if not (n == axes.call == 1)}
    counts |= {} if labels is None else {LABELS: len(labels)}
    if set(counts.values()) - {samples}:
        raise DataError(f"data {quoted(where)}: arrays have different numbers of samples: {counts}; {axes.words()}")
    return samples


def _in_place(
    x: np.ndarray,
    value: onnx.ValueInfoProto,
    where: str,
    axes: SampleAxes,
    samples_first: bool = False,
    finite: bool = True,
) -> Any:
    """`x` as the model's input wants it, its samples along the axis that counts them; see `shaped`.

    Args:
        x: the array.
        value: the model's input.
        where: where the array comes from, for messages.
        axes: which axes count samples.
        samples_first: its samples are along axis 0, whatever the model's axis.
        finite: whether NaN and infinite values are refused.
    """
    axis, dims = axes.inputs.get(value.name), value.type.tensor_type.shape.dim
    if axis is None:
        return _without_samples(x, value, where, axes, samples_first, finite)
    if axis == 0 or not dims:
        return shaped(x, value, where, finite=finite)
    if x.ndim == len(dims) and not samples_first:
        return shaped(x, value, where, axis=axis, finite=finite)
    first = _with_dims(value, [axis, *(i for i in range(len(dims)) if i != axis)])
    return np.moveaxis(shaped(x, first, where, finite=finite), 0, axis)


def _without_samples(
    x: np.ndarray, value: onnx.ValueInfoProto, where: str, axes: SampleAxes, per_call: bool, finite: bool
) -> np.ndarray:
    """An input that holds no samples: once, or with one more axis in front, which counts calls of the model."""
    dims, known = value.type.tensor_type.shape.dim, value.type.tensor_type.HasField("shape")
    if not known or (x.ndim <= len(dims) and not per_call):
        return shaped(x, value, where, axis=None, finite=finite)
    x = shaped(x, _with_dims(value, [None, *range(len(dims))]), where, finite=finite)
    return x[0, ...] if len(x) == 1 and axes.parted else x


def _with_dims(value: onnx.ValueInfoProto, axes: list[int | None]) -> onnx.ValueInfoProto:
    """The input with its dimensions in another order; None: a new one, which is open."""
    dims = value.type.tensor_type.shape.dim
    names = [dim.dim_param or f"{value.name}:{i}" for i, dim in enumerate(dims)]
    sizes = ["" if i is None else dims[i].dim_value if dims[i].HasField("dim_value") else names[i] for i in axes]
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, sizes)
