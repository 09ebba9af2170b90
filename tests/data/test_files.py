"""Files of arrays that are damaged, hostile or no files: one clear error, in bounded time and memory.

What is right is what numpy reads of them, `numpy.lib.format` describes, or was put into them.
"""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from onnx import TensorProto, helper

from tests.support.array_files import idx, idx_of, npy, npy_header, npy_of, npz
from xbcompile.data import files
from xbcompile.data.datasets import ENVIRONMENT_VARIABLE, load_data
from xbcompile.data.files import ArrayArchive, mapped_array
from xbcompile.errors import DataError

X = np.arange(24, dtype=np.float32).reshape(4, 6)
SIX = (helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6]),)
IMAGES = (helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 784]),)


def refused(path: Path | str, inputs: Any = SIX) -> str:
    """The message of data that are refused, which is one line and not long."""
    with pytest.raises(DataError) as caught:
        load_data(str(path), inputs)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


ARRAYS = numpy_strategies.arrays(
    st.sampled_from(["<f4", ">f8", "<f2", "|u1", ">i4", "<i8", "|b1", "<c8", "<U2"]),
    numpy_strategies.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(array=ARRAYS, fortran=st.booleans(), version=st.sampled_from([1, 2, 3]), compression=st.sampled_from([0, 8]))
def test_right_files_give_what_was_put_into_them(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, fortran: bool, version: int, compression: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    header = npy_header(array.dtype.str, array.shape, fortran)
    content = npy(header, array.tobytes("F" if fortran else "C"), version)
    (folder / "x.npy").write_bytes(content)
    (folder / "x.npz").write_bytes(npz([("x.npy", content), ("y", content)], compression))
    found = mapped_array(str(folder / "x.npy"))
    with ArrayArchive(str(folder / "x.npz")) as archive:
        assert archive.names == ["x", "y"]
        for each in (found, archive.read("x"), archive.read("y")):
            assert (each.dtype, each.shape) == (array.dtype, array.shape)
            assert each.tobytes() == array.tobytes()


def test_headers_of_other_writers(tmp_path: Path) -> None:
    """Fields in any order, and the long integers of Python 2, as the format allows."""
    for text in (
        "{'shape': (4, 6), 'descr': '<f4', 'fortran_order': False}",
        '{"descr": "<f4", "fortran_order": False, "shape": (4L, 6L), }',
    ):
        path = tmp_path / "x.npy"
        path.write_bytes(npy(text, X.tobytes()))
        np.testing.assert_array_equal(np.asarray(load_data(str(path), SIX).inputs["x"]), X)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "1e20 elements": (npy(npy_header("<f4", (10**20,)), b""), "is larger than any array"),
    "2**62 samples of nothing": (npy(npy_header("<f4", (2**62, 0)), b""), "is larger than any array"),
    "many samples of nothing": (npy(npy_header("<f4", (2**40, 0)), b""), "is larger than any array"),
    "a product that overflows": (npy(npy_header("<f4", (2**32, 2**32)), b""), "is larger than any array"),
    "more than there is": (npy(npy_header("<f4", (10**9, 6)), X.tobytes()), "takes 24,000,000,000 bytes, and there are 96"),
    "one value short": (npy(npy_header("<f4", (4, 6)), X.tobytes()[:-1]), "takes 96 bytes, and there are 95"),
    "a negative size": (npy(npy_header("<f4", (-4, 6)), X.tobytes()), "its shape is (-4, 6); it must be a tuple"),
    "65 axes": (npy(npy_header("<f4", (1,) * 65), X.tobytes()), "of at most 64 whole numbers"),
    "a size that is true": (npy(npy_header("<f4", (True, 24)), X.tobytes()), "its shape is (True, 24)"),
    "a shape that is a number": (npy(npy_header("<f4", 24), X.tobytes()), "its shape is 24"),
    "objects": (npy_of(X.astype(object)), "its values are of type '|O'; they must be numbers"),
    "records": (npy_of(np.zeros(4, [("a", "f4"), ("b", "i2")])), "they must be numbers"),
    "a type of many fields": (npy(npy_header("f4,f4", (4,)), X.tobytes()), "type 'f4,f4'; they must be numbers"),
    "a type that is none": (npy(npy_header("{'x': 1}", (4,)), b""), "they must be numbers"),
    "a type without bytes": (npy(npy_header("<U0", (4,)), b""), "they must be numbers"),
    "an order that is a number": (npy(npy_header("<f4", (4, 6), 1), X.tobytes()), "its fortran_order is 1"),
    "no literal": (npy("print('x')", b""), "its header is no literal of Python"),
    "nested 5,000 deep": (npy("[" * 5000, b""), "its header is no literal of Python"),
    "9,000 minus signs": (npy("-" * 9000 + "1", b""), "its header is no literal of Python"),
    "a key that is a list": (npy("{[]: 1}", b""), "its header is no literal of Python"),
    "a field more": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6), 'a': 1}", b""), "other fields than descr"),
    "a header of 10 MB": (npy(npy_header("<f4", (4, 6)) + " " * 10**7, X.tobytes(), 2), "characters; allowed: 10,000"),
    "a header of 4 GB": (npy(npy_header("<f4", (4, 6)), b"", 2, 2**32 - 1), "has 4,294,967,295 characters; allowed: 10,000"),
    "an end within the header": (npy(npy_header("<f4", (4, 6)), b"")[:50], "it ends within its header"),
    "version 9": (npy(npy_header("<f4", (4, 6)), X.tobytes(), 9), "version 9.0 of the format is unknown"),
    "version 1.4": (b"\x93NUMPY\x01\x04" + npy_of(X)[8:], "version 1.4 of the format is unknown"),
    "no .npy file": (b"not an array", "it does not begin as an .npy file does"),
    "nothing": (b"", "it does not begin as an .npy file does"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays(tmp_path: Path, name: str) -> None:
    """Alone, and in an archive with and without compression, without the memory that they claim."""
    content, text = HOSTILE[name]
    (tmp_path / "x.npy").write_bytes(content)
    for number, compression in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)):
        (tmp_path / f"{number}.npz").write_bytes(npz([("x.npy", content)], compression))
    tracemalloc.start()
    try:
        for path in ("x.npy", "0.npz", "1.npz"):
            assert text in refused(tmp_path / path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def _claiming(content: bytes, unpacked: int) -> bytes:
    """An archive of one member that says in both its headers to be of another size."""
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(signature) + offset
        content = content[:at] + struct.pack("<I", unpacked) + content[at + 4 :]
    return content


def test_archives_that_claim_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are those of the directory before anything is unpacked: 2 MB of zeros are 2 kB, 2 GB would be 2 MB."""
    path = tmp_path / "x.npz"
    zeros = npy_of(np.zeros((2**16, 6), np.float32))
    path.write_bytes(npz([("x.npy", zeros)], zipfile.ZIP_DEFLATED))
    assert load_data(str(path), SIX).samples == 2**16
    path.write_bytes(npz([("x.npy", zeros)] * 1 + [("y.npy", zeros)], zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(files, "MOST_UNPACKED_BYTES", 2 * len(zeros) - 1)
    assert f"its compressed arrays come to {2 * len(zeros):,} bytes; allowed: {2 * len(zeros) - 1:,}" in refused(path)
    path.write_bytes(npz([("x.npy", zeros), ("z.npy", zeros)]))
    assert "has arrays x, z; the model's inputs are x" in refused(path)  # without compression there is no limit
    monkeypatch.undo()
    path.write_bytes(_claiming(npz([("x.npy", zeros)], zipfile.ZIP_DEFLATED), 2**31))
    assert "its compressed arrays come to 2,147,483,648 bytes; allowed: 1,073,741,824" in refused(path)
    path.write_bytes(
        _claiming(npz([("x.npy", npy(npy_header("<f4", (2**24, 6)), X.tobytes()))], zipfile.ZIP_DEFLATED), 2**29)
    )
    assert "shape (16777216, 6) of float32 takes 402,653,184 bytes, and there are 96" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_of_other_makes(tmp_path: Path) -> None:
    path, content = tmp_path / "x.npz", npy_of(X)
    for members in ([("x.npy", content)] * 2, [("x.npy", content), ("x", content)]):
        path.write_bytes(npz(members))
        assert "it has two arrays 'x'" in refused(path)
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path.write_bytes(npz([("x.npy", content)], compression))
        assert "array 'x.npy' is encrypted, or compressed otherwise than numpy does it" in refused(path)
    good = npz([("x.npy", content)])
    encrypted = bytearray(good)
    encrypted[6] |= 1
    encrypted[good.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    assert "is encrypted" in refused(path)
    damaged = bytearray(good)
    damaged[good.index(X.tobytes()) + 5] ^= 1
    path.write_bytes(damaged)
    assert "Bad CRC-32" in refused(path)
    path.write_bytes(npz([("x.npy", content + b"\0")]))
    assert "it goes on behind its last value" in refused(path)
    path.write_bytes(npz([("x/", b"")]))
    assert "it does not begin as an .npy file does" in refused(path)
    shared = bytearray(npz([("x.npy", content), ("y.npy", content)]))
    first, second = (m for m in range(len(shared)) if shared[m : m + 4] == b"PK\x01\x02")
    shared[second + 20 : second + 24] = struct.pack("<I", len(shared))
    assert first < second
    path.write_bytes(shared)
    assert "its parts are said to take" in refused(path)


def test_only_arrays_that_are_asked_for_are_read(tmp_path: Path) -> None:
    """Names are told before any array is unpacked."""
    path = tmp_path / "x.npz"
    path.write_bytes(npz([("x.npy", npy_of(X)), ("notes.txt", b"hello")]))
    assert "has arrays notes.txt, x; the model's inputs are x" in refused(path)
    path.write_bytes(npz([(f"{i}.npy", b"") for i in range(500)]))
    assert "and 4" in refused(path)  # of 500 names as many as there is room for


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_what_is_no_file(tmp_path: Path, suffix: str) -> None:
    folder, loop, pipe, zero = (tmp_path / f"{name}.{suffix}" for name in ("folder", "loop", "pipe", "zero"))
    folder.mkdir()
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    zero.symlink_to("/dev/zero")
    assert "is a folder; give a file" in refused(folder)
    assert "cannot be read: Too many levels of symbolic links" in refused(loop)
    assert "is a device, pipe or socket; give a file" in refused(pipe)
    assert "is a device, pipe or socket; give a file" in refused(zero)
    assert "cannot be read: Not a directory" in refused(f"/dev/null/x.{suffix}")
    assert "cannot be read: File name too long" in refused(f"{'x' * 10_000}.{suffix}")
    for name in (f"\0.{suffix}", f"\ud800.{suffix}"):
        assert "no file name holds such characters" in refused(name)
    assert "line\\nbreak" in refused(f"line\nbreak.{suffix}")
    assert "\\udcff" in refused(f"\udcff.{suffix}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    for suffix in ("npy", "npz"):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(b"")
        path.chmod(0)
        assert "cannot be read: Permission denied" in refused(path)


@pytest.fixture
def mnist_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of data, with three images."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((3, 28, 28)))))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(3))))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    return folder


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (idx_of([1] * 70, b"\0"), "says that it has 70 axes, of sizes 1, 1, "),
        (idx_of([2**32 - 1] * 3, b""), "4294967295, 4294967295, 4294967295; allowed: 3 axes and 1,073,741,824 bytes"),
        (idx_of([2**32 - 1] * 255, b""), "says that it has 255 axes"),
        (idx_of([2, 3], b"", rank=200), "is truncated, or longer than its header says"),
        (idx_of([2**28], b"\0" * 8), "is truncated, or longer than its header says"),
        (idx_of([3, 30, 28], bytes(3 * 30 * 28)), "are no pairs of a label and an image of 28x28"),
        (idx_of([3, 28, 28], bytes(3 * 784) + bytes(2**24)), "is truncated, or longer than its header says"),
        (idx_of([3, 28, 28], bytes(3 * 784 * 4), kind=13), "is no IDX file of unsigned bytes"),
    ],
)
def test_hostile_images(mnist_folder: Path, content: bytes, text: str) -> None:
    path = mnist_folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    tracemalloc.start()
    try:
        assert text in refused("mnist:test", IMAGES)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # no more is unpacked than the header says
    finally:
        tracemalloc.stop()


def test_folders_that_are_none(mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = mnist_folder / "t10k-images-idx3-ubyte.gz"
    images.unlink()
    os.mkfifo(images)
    assert "is a device, pipe or socket; give a file" in refused("mnist:test", IMAGES)
    images.unlink()
    images.mkdir()
    assert "is a folder; give a file" in refused("mnist:test", IMAGES)
    for value, text in (
        ("x" * 5000, "File name too long"),
        ("/dev/null", "Not a directory"),
        ("a\nb", "does not exist"),
    ):
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
        assert text in refused("mnist:test", IMAGES)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("letters:test:-1", "'-1' samples; allowed: 1 to 640"),
        ("letters:test:99999999999999999999", "'99999999999999999999' samples; allowed: 1 to 640"),
        ("letters:test:999999999999999999", "samples; allowed: 1 to 640"),
        (f"letters:test:{'9' * 5000}", "999... samples; allowed: 1 to 640"),
        ("letters:test:\u0663", "samples; allowed: 1 to 640"),  # an Arabic three, which is no digit here
        ("letters:test:+1", "'+1' samples"),
        ("letters:nonsense", "part 'nonsense' is unknown; allowed: train, test"),
        ("letters:test\n", "part 'test\\n' is unknown"),
        ("x" * 10**6, "unknown data 'xxx"),
        ("\0", "unknown data '\\x00'"),
    ],
)
def test_names_of_data_that_are_none(spec: str, text: str) -> None:
    assert text in refused(spec, (helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16]),))


@pytest.mark.parametrize("spec", [None, 3, ["mnist:test"]])
def test_what_is_no_data(spec: Any) -> None:
    with pytest.raises(DataError, match=r"there are no numbers in it|there are no samples|is not numeric"):
        load_data(spec, SIX)


def test_paths_of_any_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    for path in (tmp_path / "x.npy", str(tmp_path / "x.npy"), os.fsencode(tmp_path / "x.npy")):
        np.testing.assert_array_equal(np.asarray(load_data(path, SIX).inputs["x"]), X)


def test_a_set_is_for_the_input_that_must_be_given() -> None:
    """Of a model with a state before its input, the state may be missing, and the pixels are not taken for it."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16]) for name in ("state", "x")]
    assert list(load_data("letters:test:5", tuple(inputs), optional=["state"]).inputs) == ["x"]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_python_2_wrote_no_version_3(version, tmp_path):
    """Its long integers are read where numpy reads them."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 6L)}".ljust(117) + b"\n"
    path = tmp_path / "x.npy"
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + header + bytes(48))
    if version == 3:
        assert "no literal of Python" in refused(path)
    else:
        assert load_data(str(path), SIX).inputs["x"].shape == (2, 6)
