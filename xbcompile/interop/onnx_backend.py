"""ONNX's own backend interface, `onnx.backend.base.Backend`, over the exact target `ideal`.

import xbcompile.interop.onnx_backend

prepared = xbcompile.interop.onnx_backend.prepare(model)
outputs = prepared.run([x])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TypeProto, helper
from onnx.backend.base import Backend, BackendRep

from xbcompile.data.arrays import as_array
from xbcompile.errors import DataError, TargetError, XbcompileError, quoted
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.runs import check_runs
from xbcompile.interop.inference_session import InferenceSession
from xbcompile.onnx_graph import builder, engine
from xbcompile.onnx_graph.domains import ONNX_DOMAINS


class XbcompileBackendRep(BackendRep):
    """A compiled model, ready to run."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run the model.

        Args:
            inputs: values in the order of the model's inputs, or by name, or the one input's value itself.
            **kwargs: not used.

        Returns:
            the outputs, in the model's order.

        Raises:
            DataError: there are more inputs than the model has, or they do not fit it.
        """
        names = [value.name for value in self.session.get_inputs()]
        if isinstance(inputs, Mapping):
            return tuple(self.session.run(None, inputs))
        values = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        if len(values) > len(names):
            raise DataError(
                f"{len(values)} inputs were given; the model has {len(names)}: {', '.join(names) or 'none'}"
            )
        return tuple(self.session.run(None, dict(zip(names, values, strict=False))))


class XbcompileBackend(Backend):
    """Compiles models for the exact target and runs them."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be compiled, on a device that there is."""
        if not cls.supports_device(device):
            return False
        try:
            check_runs(import_network(load_model(model)))
        except XbcompileError:
            return False
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> XbcompileBackendRep:
        """Compile a model.

        Args:
            model: the model.
            device: "CPU", which simulates the arrays.
            **kwargs: options of `xbcompile.compile`.

        Raises:
            XbcompileError: the model cannot be compiled, or the device is another.
        """
        if not cls.supports_device(device):
            raise TargetError(f"device {device!r} is not supported; the only one is 'CPU', which simulates the arrays")
        return XbcompileBackendRep(InferenceSession(model, **kwargs))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Compile a model and run it once; see `prepare` and `XbcompileBackendRep.run`."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node as a model of its own.

        Args:
            node: the node; its inputs with a name are the model's.
            inputs: their values, in order.
            device: see `prepare`.
            outputs_info: element type and shape of each output; where it is missing they are inferred.
            **kwargs: `opset_version`, of the node's domain (default: the newest), and options of `xbcompile.compile`.
        """
        opset = kwargs.pop("opset_version", None)
        return cls.prepare(_model_of(node, inputs, outputs_info, opset), device, **kwargs).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether models can run on the device: only the processor simulates arrays."""
        return device.partition(":")[0] == "CPU"


def _model_of(
    node: NodeProto,
    inputs: Any,
    outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None,
    opset: int | None,
) -> ModelProto:
    """A model of one node whose inputs have the types of these values."""
    names = list(dict.fromkeys(filter(None, node.input)))
    values = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    if len(values) != len(names):
        raise DataError(f"{len(values)} inputs were given; the node reads {len(names)}: {', '.join(names) or 'none'}")
    outputs = [builder.value(name) for name in node.output if name]
    for value, (dtype, shape) in zip(outputs, outputs_info or (), strict=False):
        element_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        value.type.CopyFrom(helper.make_tensor_type_proto(element_type, shape))
    graph = builder.make_graph(
        node.op_type,
        [node],
        [helper.make_value_info(name, _type_of(value)) for name, value in zip(names, values, strict=True)],
        outputs,
    )
    newest = opset or (engine.newest_opset() if node.domain in ONNX_DOMAINS else 1)
    opsets = {"": engine.newest_opset()} if node.domain not in ONNX_DOMAINS else {}
    return builder.make_model(graph, {node.domain: newest, **opsets}.items(), engine.newest_ir_version())


def _type_of(value: Any) -> TypeProto:
    if isinstance(value, list):
        if not value:
            raise DataError("an empty list has no element type; run the node as a model, whose inputs have types")
        return helper.make_sequence_type_proto(_type_of(value[0]))
    array = as_array(value, "an input of the node")
    try:
        text = array.dtype.kind in "OU"
        element_type = onnx.TensorProto.STRING if text else helper.np_dtype_to_tensor_dtype(array.dtype)
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"an input of the node has type {quoted(str(array.dtype))}, which no tensor of ONNX has"
        ) from None
    return helper.make_tensor_type_proto(element_type, array.shape)


is_compatible = XbcompileBackend.is_compatible
prepare = XbcompileBackend.prepare
run_model = XbcompileBackend.run_model
run = XbcompileBackend.run_model
run_node = XbcompileBackend.run_node
supports_device = XbcompileBackend.supports_device
