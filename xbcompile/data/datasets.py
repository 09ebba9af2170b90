"""Data for calibration and evaluation, of any kind that users have: named sets, files, folders, arrays, loaders, tables."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from xbcompile.data import synthetic
from xbcompile.data.arrays import as_array, by_name, whole_labels
from xbcompile.data.batches import is_pair, is_pieces, joined_pieces
from xbcompile.data.columns import LABEL_NAMES, check_columns, check_names, choice_of, table_arrays
from xbcompile.data.csv_tables import read_csv
from xbcompile.data.files import ArrayArchive, check_file, mapped_array, read_at_most
from xbcompile.data.image_folders import image_folder
from xbcompile.data.shaping import shaped
from xbcompile.errors import DataError, elided, plain, quoted
from xbcompile.ir.sample_axes import SampleAxes

ENVIRONMENT_VARIABLE = "XBCOMPILE_DATA"

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
    given: Any,
    model_inputs: tuple[onnx.ValueInfoProto, ...],
    samples: SampleAxes | None = None,
    optional: Collection[str] = (),
    *,
    labels: Any = None,
    finite: bool = True,
    where: str = "data",
) -> Data:
    """Load data and shape it for a model.

    Args:
        given: what `docs/data.md` lists. As text or a path: `SET:train[:N]`, `SET:test[:N]` with SET one of mnist, fashion-mnist,
            digits, letters, scenes; an .npz file whose arrays are named like the model's inputs (any name if there is one
            input); an .npy file with the only input, which is read as far as it is asked for; a .csv file; a folder of
            images. In Python also: arrays (or tensors) by input name, or the only input's; a pair of inputs and labels; a
            table with `columns`, as pandas has it; a data set with `column_names`, as Hugging Face has it; and what gives
            batches or samples one after another, as torch's DataLoader.
        model_inputs: the model's graph inputs.
        samples: which of their axes count samples; None: axis 0 of each.
        optional: inputs that data may lack.
        labels: the name of the labels in data with names; None: one of `LABEL_NAMES`. Or the labels themselves.
        finite: whether NaN and infinite values are refused.
        where: what objects of Python are called in messages.

    Raises:
        DataError: unknown set or part, missing or damaged file, arrays that do not fit, or data that can be read in two ways.
    """
    axes = samples or SampleAxes({value.name: 0 for value in model_inputs})
    named = labels if isinstance(labels, str) else None
    if isinstance(given, str | bytes | os.PathLike):
        where = os.fsdecode(given)
        arrays, found, first = _read(where, model_inputs, optional, named)
    else:
        arrays, found, first = _taken(given, model_inputs, optional, named, where)
    if labels is not None and named is None:
        found = labels
    return data_of(arrays, found, model_inputs, where, axes, optional, finite=finite, samples_first=first)


def holds_samples(given: Any, model_inputs: tuple[onnx.ValueInfoProto, ...]) -> bool:
    """Whether something is data that `load_data` takes apart, rather than inputs of the model as they are.

    Args:
        given: anything.
        model_inputs: the model's graph inputs; where one takes no numbers, texts and lists are inputs.
    """
    names = [value.name for value in model_inputs]
    tensors = (value.type.HasField("tensor_type") and value.type.tensor_type for value in model_inputs)
    if not all(kind and kind.elem_type != onnx.TensorProto.STRING for kind in tensors):
        return False
    if isinstance(given, Mapping):
        return any(key in LABEL_NAMES and key not in names for key in given)
    if isinstance(given, str | os.PathLike):
        return True
    return is_pair(given) or is_pieces(given) or hasattr(given, "column_names") or hasattr(given, "columns")


# Arrays by input name, labels or None, and whether samples lie along axis 0 of each whatever the model's axes.
_Arrays = tuple[dict[str, Any], Any, bool]


def _read(
    spec: str, model_inputs: tuple[onnx.ValueInfoProto, ...], optional: Collection[str], labels: str | None
) -> _Arrays:
    """What a text or path names."""
    names = [value.name for value in model_inputs]
    ending = os.path.splitext(spec)[1].lower()
    if ending in (".npz", ".csv"):
        if ending == ".npz":
            return *_from_npz(spec, names, optional, labels), False
        return *table_arrays(*read_csv(spec), names, optional, labels, spec), True
    name, colon, rest = spec.partition(":")
    is_set = name in _SETS and bool(colon)
    is_folder = not is_set and ending != ".npy" and os.path.isdir(spec)
    if labels is not None:
        kind = "one array" if ending == ".npy" else "subfolders as classes" if is_folder else "labels of its own"
        raise DataError(f"data {quoted(spec)} has {kind}, and no array of labels {quoted(labels)}; leave --labels out")
    if ending == ".npy":
        return {_only_input(model_inputs, optional, spec).name: mapped_array(spec)}, None, False
    if is_folder:
        value = _only_input(model_inputs, optional, spec)
        pixels, classes = image_folder(spec, value)
        return {value.name: pixels}, classes, True
    if name not in _SETS:
        raise DataError(
            f"unknown data {quoted(spec)}; allowed: {', '.join(f'{s}:test[:N]' for s in _SETS)}, or a .npz, .npy or .csv file, "
            "or a folder of images"
        )
    return _from_set(spec, name, rest, model_inputs, optional)


def _from_set(
    spec: str, name: str, rest: str, model_inputs: tuple[onnx.ValueInfoProto, ...], optional: Collection[str]
) -> _Arrays:
    """A named set, of which `rest` says the part and the number of samples."""
    part, _, count_text = rest.partition(":")
    if part not in ("train", "test"):
        raise DataError(f"data {quoted(spec)}: part {quoted(part)} is unknown; allowed: train, test")
    value = _only_input(model_inputs, optional, spec)
    count = int(count_text) if _COUNT.fullmatch(count_text) else 0
    pixels, labels = load_set(name, part, count or None)
    if count_text and not 1 <= count <= len(pixels):
        raise DataError(f"data {quoted(spec)}: {quoted(count_text)} samples; allowed: 1 to {len(pixels)}")
    return {value.name: pixels}, labels, True


def _taken(
    given: Any,
    model_inputs: tuple[onnx.ValueInfoProto, ...],
    optional: Collection[str],
    labels: str | None,
    where: str,
) -> _Arrays:
    """What an object of Python holds."""
    names = [value.name for value in model_inputs]
    needed = [name for name in names if name not in optional]
    if hasattr(given, "column_names") and hasattr(given, "__getitem__"):  # a data set of Hugging Face
        given = given[:]
    if isinstance(given, Mapping):
        given = by_name(given, names, where)
        choice = choice_of(list(given), names, optional, labels, where)
        arrays = {name: given[key] for name, key in choice.inputs.items()}
        return arrays, None if choice.labels is None else given[choice.labels], False
    if hasattr(given, "columns") and hasattr(given, "to_numpy"):  # a table of pandas and the like
        columns = [str(name) for name in given.columns]
        check_columns(columns, where)
        values = [as_array(given[name], f"{where}, column {quoted(str(name))}") for name in given.columns]
        return *table_arrays(columns, values, names, optional, labels, where), True
    if is_pieces(given):
        return *joined_pieces(given, needed, labels, where), True
    if labels is not None:
        raise DataError(
            f"{where}: a {type(given).__name__} has no names, so no labels {quoted(labels)}; give the labels themselves"
        )
    if is_pair(given):
        return by_name(given[0], needed, where), given[1], False
    return by_name(given, needed, where), None, False


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
    path: str, names: Sequence[str], optional: Collection[str], labels: str | None
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    with ArrayArchive(path) as archive:
        choice = choice_of(archive.names, names, optional, labels, path)
        arrays = {name: archive.read(key) for name, key in choice.inputs.items()}
        return arrays, None if choice.labels is None else archive.read(choice.labels)


def data_of(
    arrays: dict[str, np.ndarray],
    labels: Any,
    model_inputs: tuple[onnx.ValueInfoProto, ...],
    where: str,
    samples: SampleAxes | None = None,
    optional: Collection[str] = (),
    *,
    finite: bool = True,
    samples_first: bool = False,
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
        samples_first: samples lie along axis 0 of each array, whatever the model's axes.

    Raises:
        DataError: a name, type, shape, value or number of samples does not fit.
    """
    names = [value.name for value in model_inputs]
    axes = samples or SampleAxes(dict.fromkeys(names, 0))
    check_names(arrays, names, optional, where)
    inputs = {}
    for value in model_inputs:
        if value.name in arrays:
            place = f"{plain(where)}, array {quoted(value.name)}"
            x = _in_place(as_array(arrays[value.name], place), value, place, axes, samples_first, finite)
            inputs[value.name] = x if axes.cuts(value.name, x) else np.asarray(x)
    whole = None if labels is None else whole_labels(labels, f"data {quoted(where)}")
    return Data(where, inputs, whole, _checked_samples(inputs, whole, where, axes))


def _checked_samples(inputs: dict[str, np.ndarray], labels: np.ndarray | None, where: str, axes: SampleAxes) -> int:
    """Number of samples; raises DataError where inputs and labels hold different numbers."""
    samples = axes.samples(inputs)
    counts = {name: n for name, n in axes.counts(inputs).items() if not (n == axes.call == 1)}
    counts |= {} if labels is None else {"labels": len(labels)}
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
