from __future__ import annotations

import os
from contextlib import suppress

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from xbcompile.errors import ModelError
from xbcompile.frontend import import_network, load_model
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.tensors import check_sizes, dense


@pytest.fixture
def model(build, rng):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return build(nodes, {"x": ["n", 40]}, ["y"], {"w": rng.uniform(-1, 1, (40, 30))})


def with_external_data(model, **entries):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


def save(model, folder):
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_file_and_memory(model, tmp_path):
    path = save(model, tmp_path)
    assert load_model(path) == load_model(str(path)) == load_model(model) == model


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.onnx: no such file; check the path"):
        load_model(tmp_path / "nothing.onnx")


def test_folder(tmp_path):
    with pytest.raises(ModelError, match=r": not a file; give the path of an \.onnx file"):
        load_model(tmp_path)


def test_unreadable_file(model, tmp_path, monkeypatch):
    path = save(model, tmp_path)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(ModelError, match=r"model\.onnx: cannot be read: Permission denied"):
        load_model(path)


def test_empty_file(tmp_path):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelError, match="the file is empty; export or download the model again"):
        load_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x80\x02}q\x00.", bytes(range(256))])
def test_not_onnx(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated(model, tmp_path, part):
    path = save(model, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ModelError, match="not an ONNX model, or a truncated one"):
        load_model(path)


def test_no_graph():
    with pytest.raises(ModelError, match="the model: no graph in it, so it is not an ONNX model"):
        load_model(onnx.ModelProto(ir_version=8))


@pytest.mark.parametrize("opset", [-1, 0, 1, 99])
def test_opset(model, opset):
    model.opset_import[0].version = opset
    with pytest.raises(ModelError, match=rf"opset {opset} is not supported \(allowed: 7 to {engine.newest_opset()}\)"):
        load_model(model)


@pytest.mark.parametrize("opset", [7, 13, 21, engine.newest_opset()])
def test_supported_opset(model, check, rng, opset):
    model.opset_import[0].version = opset
    check(model, {"x": rng.uniform(-1, 1, (3, 40)).astype("f")})


def test_ir_version_unknown_to_onnx(model):
    model.ir_version = onnx.IR_VERSION + 1
    with pytest.raises(ModelError, match=r"IR version \d+ is newer than onnx \S+ reads \(at most \d+\); upgrade onnx"):
        load_model(model)


def test_ir_version_unknown_to_onnxruntime(model, monkeypatch):
    monkeypatch.setattr(engine, "newest_ir_version", lambda: 8)
    loaded = load_model(model)
    assert (loaded.ir_version, model.ir_version) == (8, 9)
    assert loaded.graph == model.graph
    network = import_network(loaded)
    assert network.ir_version == 8
    assert all(segment.model.ir_version == 8 for segment in network.segments)


@pytest.mark.parametrize("ir_version", [3, 4, 8, 13])
def test_ir_versions(model, check, rng, ir_version):
    model.ir_version = ir_version
    if ir_version == 3:
        model.graph.input.append(helper.make_tensor_value_info("w", 1, [40, 30]))
    network = check(model, {"x": rng.uniform(-1, 1, (3, 40)).astype("f")})
    assert [value.name for value in network.inputs] == ["x"]
    assert network.records[0].lowered


def test_probing_finds_the_limits(monkeypatch):
    monkeypatch.setattr(engine, "_reads", lambda ir_version, opset: ir_version <= 6 and opset <= 9)
    engine.newest_ir_version.cache_clear()
    engine.newest_opset.cache_clear()
    assert (engine.newest_ir_version(), engine.newest_opset()) == (6, 9)
    monkeypatch.undo()
    engine.newest_ir_version.cache_clear()
    engine.newest_opset.cache_clear()
    assert not engine._reads(99, 13)
    assert not engine._reads(8, 999)


def test_external_data(model, tmp_path, check, rng):
    data = model.graph.initializer[0].raw_data
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(bytes(64) + data + bytes(8))
    expected = onnx.ModelProto.FromString(model.SerializeToString())
    path = save(with_external_data(model, location="data/w.bin", offset=64, length=len(data)), tmp_path)
    assert load_model(path) == expected
    check(load_model(path), {"x": rng.uniform(-1, 1, (3, 40)).astype("f")})


def test_external_data_to_the_end_of_the_file(model, tmp_path):
    (tmp_path / "w.bin").write_bytes(model.graph.initializer[0].raw_data)
    path = save(with_external_data(model, location="w.bin"), tmp_path)
    assert len(load_model(path).graph.initializer[0].raw_data) == 4800


def test_external_data_in_a_body_and_an_attribute(tmp_path, model):
    (tmp_path / "w.bin").write_bytes(model.graph.initializer[0].raw_data)
    constant = helper.make_node("Constant", [], ["w"], value=model.graph.initializer[0])
    with_external_data(model, location="w.bin")
    constant.attribute[0].t.CopyFrom(model.graph.initializer[0])
    del model.graph.initializer[:]
    model.graph.node.insert(0, constant)
    assert import_network(load_model(save(model, tmp_path))).records[0].lowered


def test_external_data_missing(model, tmp_path):
    path = save(with_external_data(model, location="w.bin"), tmp_path)
    with pytest.raises(ModelError, match=r'external data "w\.bin" of tensor "w" is missing; put the file beside'):
        load_model(path)


@pytest.mark.parametrize("location", ["../w.bin", "{folder}/w.bin", "link.bin", "inside/../../w.bin"])
def test_external_data_outside(model, tmp_path, location):
    outside = tmp_path / "w.bin"
    outside.write_bytes(model.graph.initializer[0].raw_data)
    folder = tmp_path / "model"
    (folder / "inside").mkdir(parents=True)
    (folder / "link.bin").symlink_to(outside)
    path = save(with_external_data(model, location=location.format(folder=tmp_path)), folder)
    with pytest.raises(ModelError, match=r'of tensor "w" lies outside the model\'s folder'):
        load_model(path)


@pytest.mark.parametrize(("offset", "length"), [(0, 4801), (1, 4800), (-1, 100), (0, -5), (9999, 1)])
def test_external_data_truncated(model, tmp_path, offset, length):
    (tmp_path / "w.bin").write_bytes(model.graph.initializer[0].raw_data)
    path = save(with_external_data(model, location="w.bin", offset=offset, length=length), tmp_path)
    with pytest.raises(ModelError, match=r"are asked for, but the file has 4800; it is truncated"):
        load_model(path)


def test_external_data_malformed(model, tmp_path):
    (tmp_path / "w.bin").touch()
    path = save(with_external_data(model, location="w.bin", offset="many"), tmp_path)
    with pytest.raises(ModelError, match=r'"w" has a malformed offset or length'):
        load_model(path)


def test_external_data_of_a_model_in_memory(model):
    with pytest.raises(ModelError, match=r'tensor "w" is external data, whose folder a model in memory does not tell'):
        load_model(with_external_data(model, location="w.bin"))


def test_data_that_does_not_fit_the_shape(model):
    model.graph.initializer[0].dims[0] = 41
    with pytest.raises(
        ModelError, match=r'"w" holds 4800 bytes, but its shape \[41, 30\] and element type FLOAT need 4920'
    ):
        load_model(model)


def replaced(model, tensor):
    """The model with another tensor as its weights, but of the same name."""
    tensor.name = "w"
    model.graph.initializer[0].CopyFrom(tensor)
    return model


@pytest.mark.parametrize("dims", [[2**40], [2**20, 2**20], [2**62, 2**62, 2**62], [1]])
@pytest.mark.parametrize("element_type", [1, 7, 8, 10, 16, 22])
def test_shapes_without_data(model, dims, element_type):
    """No data for up to 2**186 elements: refused before anything is allocated."""
    with pytest.raises(ModelError, match=r'"w" holds 0 numbers, but its shape \[\d+.*\] and element type \w+ need \d+'):
        load_model(replaced(model, onnx.TensorProto(dims=dims, data_type=element_type)))


@pytest.mark.parametrize(
    "tensor",
    [
        helper.make_tensor("w", 1, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("w", 7, [3], [1, 2, 3]),
        helper.make_tensor("w", 10, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("w", 16, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("w", 17, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("w", 14, [3], [1j, 2.0, 3.0]),  # type: ignore[list-item]
        helper.make_tensor("w", 22, [3], [1, 2, 3]),
        helper.make_tensor("w", 8, [3], [b"a", b"b", b"c"]),  # type: ignore[list-item]
    ],
    ids=lambda tensor: onnx.TensorProto.DataType.Name(tensor.data_type),
)
def test_data_in_typed_fields_is_counted(tensor):
    """As onnx itself writes it; one element more in the shape is refused (packed types have room for it in their last byte)."""
    check_sizes(holding(tensor), "it")
    tensor.dims[0] += 2
    with pytest.raises(ModelError, match=r'it: tensor "w" holds \d numbers, but its shape \[5\]'):
        check_sizes(holding(tensor), "it")


def holding(tensor):
    return onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))


@pytest.mark.parametrize("element_type", [0, -1, 99, 2**31 - 1])
def test_element_types_that_onnx_lacks(model, tmp_path, element_type):
    tensor = model.graph.initializer[0]
    tensor.data_type = element_type
    with pytest.raises(ModelError, match=rf'"w" has element type number {element_type}, which ONNX does not define'):
        load_model(model)
    (tmp_path / "w.bin").write_bytes(bytes(8))
    path = save(with_external_data(model, location="w.bin"), tmp_path)
    with pytest.raises(ModelError, match=f'"w" has element type number {element_type}'):
        load_model(path)


def test_negative_sizes(model):
    model.graph.initializer[0].dims[:] = [-40, -30]
    with pytest.raises(ModelError, match=r'"w" has shape \[-40, -30\]; sizes must not be negative'):
        load_model(model)


def test_initializers_of_one_name(model):
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    with pytest.raises(ModelError, match='2 initializers have the name "w"; names must be unique'):
        load_model(model)


def test_segments_of_tensors(model):
    model.graph.initializer[0].segment.begin = 0
    with pytest.raises(ModelError, match='"w" is stored in segments, which onnxruntime does not read'):
        load_model(model)


@pytest.mark.parametrize(
    ("dims", "indices", "message"),
    [
        ([2**40, 2**40], [0, 1], r"would take \d+ bytes when dense \(allowed: 2147483648\)"),
        ([-4, 3], [0, 1], r"has shape \[-4, 3\]; sizes must not be negative"),
        ([4, 3], [0, 12], r"has indices outside its shape \[4, 3\]"),
        ([4, 3], [-1, 2], r"has indices outside its shape \[4, 3\]"),
        ([4, 3], [[0, 1], [4, 0]], r"has indices outside its shape \[4, 3\]"),
        ([4, 3], [0, 1, 2], r"has indices of shape \[3\] \(allowed: int64, \[2\] or \[2, 2\]\)"),
        ([4, 3], [[0], [1]], r"has indices of shape \[2, 1\]"),
    ],
)
def test_sparse_tensors_that_cannot_be(model, dims, indices, message):
    values = numpy_helper.from_array(np.array([1.0, 2.0], "f"), "s")
    sparse = onnx.SparseTensorProto(
        values=values, indices=numpy_helper.from_array(np.array(indices, np.int64), "i"), dims=dims
    )
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match=rf'sparse tensor "s" {message}'):
        load_model(model)


@pytest.mark.parametrize("location", ["a\0b", "x" * 5000, ""])
def test_external_data_under_impossible_names(model, tmp_path, location):
    path = save(with_external_data(model, location=location), tmp_path)
    with pytest.raises(ModelError, match=r'of tensor "w" (has no name that a file can have|is missing)'):
        load_model(path)


def test_external_data_in_a_ring_of_links(model, tmp_path):
    (tmp_path / "w.bin").symlink_to(tmp_path / "v.bin")
    (tmp_path / "v.bin").symlink_to(tmp_path / "w.bin")
    path = save(with_external_data(model, location="w.bin"), tmp_path)
    with pytest.raises(ModelError, match=r'of tensor "w" (has no name that a file can have|is missing)'):
        load_model(path)


def test_external_data_without_length_in_a_shared_file(model, tmp_path):
    """What follows in the file belongs to another tensor."""
    data = model.graph.initializer[0].raw_data
    (tmp_path / "w.bin").write_bytes(bytes(8) + data + bytes(100))
    path = save(with_external_data(model, location="w.bin", offset=8), tmp_path)
    assert load_model(path).graph.initializer[0].raw_data == data


def test_nodes_that_alone_are_too_large(model, monkeypatch):
    monkeypatch.setattr("xbcompile.frontend.load.LARGEST_MESSAGE", 100)
    with pytest.raises(ModelError, match="its nodes and their bodies alone take 2 GiB or more"):
        load_model(model)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_or_imported(model, tmp_path, seed):
    """Flipped bits and lost bytes: a clear error, or a model that is one; nothing else may happen."""
    content, generator = model.SerializeToString(), np.random.default_rng(seed)
    path = tmp_path / "model.onnx"
    for _ in range(50):
        damaged = bytearray(content)
        position = int(generator.integers(len(damaged)) if generator.random() < 0.3 else generator.integers(200))
        if generator.random() < 0.5:
            damaged[position] ^= 1 << int(generator.integers(8))
        else:
            del damaged[position : position + int(generator.integers(1, 9))]
        path.write_bytes(damaged)
        with suppress(ModelError):
            import_network(load_model(path))


def test_external_data_shorter_than_the_shape(model, tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(4))
    path = save(with_external_data(model, location="w.bin"), tmp_path)
    with pytest.raises(ModelError, match=r'"w" holds 4 bytes, but its shape \[40, 30\]'):
        load_model(path)


def test_invalid_model(model):
    model.graph.node[1].op_type = "Nonsense"
    with pytest.raises(ModelError, match=r"^the model: not a valid ONNX model: .*Nonsense") as caught:
        load_model(model)
    assert "\n" not in str(caught.value)


def test_cycle(model):
    model.graph.node[0].input[0] = "y"
    with pytest.raises(ModelError, match=r"not a valid ONNX model: .*sorted"):
        load_model(model)


def test_unsorted_nodes_are_sorted(model, check, rng):
    model.graph.node.reverse()
    check(model, {"x": rng.uniform(-1, 1, (3, 40)).astype("f")})


def test_sparse_initializers(build, check, rng):
    values, flat = np.array([1.0, -2.0, 3.0], "f"), np.array([1, 4, 11])
    expected = np.zeros(12, "f")
    expected[flat] = values
    for indices in (flat, np.stack(np.unravel_index(flat, (4, 3)), 1)):
        sparse = helper.make_sparse_tensor(
            numpy_helper.from_array(values, "w"), numpy_helper.from_array(indices, "i"), [4, 3]
        )
        assert np.array_equal(numpy_helper.to_array(dense(sparse)).ravel(), expected)
        model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [2, 4]}, ["y"])
        model.graph.sparse_initializer.append(sparse)
        (layer,) = check(model, {"x": rng.uniform(-1, 1, (2, 4)).astype("f")}).nodes
        assert np.array_equal(layer.weights[0].ravel(), expected)


@pytest.mark.parametrize("length", [4801, 10**6])
def test_external_data_longer_than_the_shape(model, tmp_path, length):
    (tmp_path / "w.bin").write_bytes(bytes(10**6))
    path = save(with_external_data(model, location="w.bin", length=length), tmp_path)
    with pytest.raises(
        ModelError,
        match=rf'of tensor "w" holds {length} bytes, but its shape \[40, 30\] and element type FLOAT need 4800',
    ):
        load_model(path)


@pytest.mark.parametrize("what", ["device", "fifo", "folder", "link to a device", "link out", "link to a folder out"])
def test_external_data_that_is_no_file_beside_the_model(model, tmp_path, what):
    """Nothing of it is opened: /dev/zero would never end, and a pipe would wait for a writer."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4800))
    location = {"device": "/dev/zero", "link to a folder out": "w/secret.bin"}.get(what, "w")
    if what == "fifo":
        os.mkfifo(inside / "w")
    elif what == "folder":
        (inside / "w").mkdir()
    elif what.startswith("link"):
        targets = {
            "link to a device": "/dev/zero",
            "link out": tmp_path / "secret.bin",
            "link to a folder out": tmp_path,
        }
        (inside / "w").symlink_to(targets[what])
    path = save(with_external_data(model, location=location), inside)
    with pytest.raises(ModelError, match=r'of tensor "w" (lies outside the model|is no ordinary file)'):
        load_model(path)


def test_tensors_that_share_a_file_may_overlap_so_far(model, tmp_path, monkeypatch):
    """20 tensors of all 4800 bytes of one file: 19 times more than it has."""
    (tmp_path / "w.bin").write_bytes(model.graph.initializer[0].raw_data)
    with_external_data(model, location="w.bin")
    for i in range(19):
        copy = model.graph.initializer.add()
        copy.CopyFrom(model.graph.initializer[0])
        copy.name = f"w{i}"
    path = save(model, tmp_path)
    monkeypatch.setattr("xbcompile.frontend.external_data.MOST_READ_AGAIN", 19 * 4800)
    load_model(path)
    monkeypatch.setattr("xbcompile.frontend.external_data.MOST_READ_AGAIN", 19 * 4800 - 1)
    with pytest.raises(ModelError, match=r"in this file, of 4,800 bytes, overlap and take 96,000 bytes so far"):
        load_model(path)


@pytest.mark.parametrize("what", ["a fifo", "/dev/zero", "/dev/null", "a folder", "x" * 300, "a\0b"])
def test_models_that_are_no_files(tmp_path, what):
    if what == "a fifo":
        os.mkfifo(tmp_path / what)
    elif what == "a folder":
        (tmp_path / what).mkdir()
    with pytest.raises(ModelError, match=r"not a file|cannot be read|no such file"):
        load_model(tmp_path / what)


def test_a_file_that_no_message_can_be(tmp_path):
    """3 GiB of nothing, of which not a byte is read."""
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(ModelError, match="it has 3,221,225,472 bytes, and an ONNX file at most 2,147,483,647"):
        load_model(tmp_path / "model.onnx")
