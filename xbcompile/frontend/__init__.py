"""The frontend: the only place that reads ONNX models. `load_model` then `import_network`."""

from xbcompile.frontend.load import load_model
from xbcompile.frontend.network import import_network, runnable

__all__ = ["import_network", "load_model", "runnable"]
