"""Names of the domains of operators."""

ONNX_DOMAINS = ("", "ai.onnx")  # two names of one domain
ONNX_ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"  # what onnxruntime adds
XBCOMPILE = "xbcompile"  # one function for each matrix layer of a host graph
