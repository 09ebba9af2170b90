"""The table of operators: all that the compiler knows of each, one entry an operator.

Who adds an operator writes a function (a rewriting, in most cases) and an entry. An operator without an entry runs digitally,
as onnxruntime has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from onnx import NodeProto

from xbcompile.frontend import grids, lowerings, mac_rules
from xbcompile.frontend.registered import registered_rewritings
from xbcompile.frontend.rewriter import Rewriting
from xbcompile.frontend.rewritings import (
    attention,
    contraction,
    conv_transpose,
    linear_models,
    microsoft,
    qonnx,
    qonnx_layers,
    quantized,
    recurrent,
)
from xbcompile.onnx_graph.domains import (
    CHANNELS_LAST,
    MICROSOFT,
    ONNX_ML,
    QONNX_DOMAINS,
    OperatorName,
    operator_name,
)
from xbcompile.onnx_graph.graph import Graph

# Why operators without weights run digitally.
ELEMENT_WISE = "element-wise"
CHANNELS = "scale and shift of channels"
NORMALISATION = "normalisation"
POOLING = "pooling"
MOVES_DATA = "moves data"
REDUCTION = "reduction"
SHAPES = "shapes and indices"
PRODUCT = "a product of activations: it has no weights"


@dataclass(frozen=True)
class Operator:
    """What the compiler knows of an operator.

    Args:
        reason: why its nodes run digitally, as `explain` says it; empty where there is no more to say than "no weights".
        has_matrix: it has weights that an array could hold: each node is recorded, with a matrix or with what hinders it.
        is_product: it multiplies activations: each node is recorded too, with the reason.
        lower: makes a matrix of a node as it stands, or raises StaysDigital.
        rewrite: writes a node in other operators, among which the matrices are, or raises StaysDigital; see `rewriter`.
        standard: writes a node in standard operators before anything else, as onnxruntime does not know it.
        macs: counts the multiply-accumulate operations of a digital node; None: they cannot be counted.
        grid: the grid of the values that a node writes, from the grids of those that it reads; None: it says nothing.
        is_preparation: exporters put it between a weight and its product, once per use: equal results become one.
        is_random: its result is no function of its inputs, so that it is never evaluated when compiling.
    """

    reason: str = ""
    has_matrix: bool = False
    is_product: bool = False
    lower: Callable[[NodeProto, Graph], lowerings.Matrix] | None = None
    rewrite: Rewriting | None = None
    standard: Rewriting | None = None
    macs: mac_rules.MacRule | None = None
    grid: grids.GridRule | None = None
    is_preparation: bool = False
    is_random: bool = False

    @property
    def is_recorded(self) -> bool:
        """Whether there is a record of what became of each node, and `--digital` patterns may name it."""
        return self.has_matrix or self.is_product or self.rewrite is not None


_UNKNOWN = Operator()


def _matrix(
    lower: Callable[[NodeProto, Graph], lowerings.Matrix] | None = None,
    rewrite: Rewriting | None = None,
    macs: mac_rules.MacRule | None = None,
) -> Operator:
    return Operator(has_matrix=True, lower=lower, rewrite=rewrite, macs=macs)


def _of_qonnx(operator: str, standard: Rewriting) -> dict[OperatorName, Operator]:
    """An operator of QONNX under the names of all its domains."""
    return {(domain, operator): Operator(standard=standard) for domain in QONNX_DOMAINS}


def operator_of(node: NodeProto) -> Operator:
    """What is known of a node's operator; nothing where no table has it."""
    return registered_operators().get(operator_name(node), _UNKNOWN)


@cache
def registered_operators() -> Mapping[OperatorName, Operator]:
    """The table of this package with the rewritings of others joined to it: the one place where they come in.

    Raises:
        ExtensionError: two packages rewrite one operator.
    """
    taken = [name for name, each in OPERATORS.items() if each.lower or each.rewrite or each.standard]
    added = {
        name: replace(OPERATORS.get(name, _UNKNOWN), reason="", has_matrix=True, rewrite=rewriting)
        for name, rewriting in registered_rewritings(taken).items()
    }
    return {**OPERATORS, **added}


OPERATORS: dict[OperatorName, Operator] = {
    # with weights
    ("", "Conv"): _matrix(lower=lowerings.lower_conv, macs=mac_rules.convolution(1)),
    ("", "ConvInteger"): _matrix(rewrite=quantized.rewrite_conv_integer, macs=mac_rules.convolution(1)),
    ("", "ConvTranspose"): _matrix(
        rewrite=conv_transpose.rewrite_conv_transpose, macs=mac_rules.transposed_convolution
    ),
    ("", "DeformConv"): _matrix(),
    ("", "Einsum"): _matrix(rewrite=contraction.rewrite_einsum, macs=mac_rules.einsum),
    ("", "GRU"): _matrix(rewrite=recurrent.rewrite_recurrent, macs=mac_rules.recurrent),
    ("", "Gemm"): _matrix(lower=lowerings.lower_gemm, macs=mac_rules.product),
    ("", "LSTM"): _matrix(rewrite=recurrent.rewrite_recurrent, macs=mac_rules.recurrent),
    ("", "MatMul"): _matrix(lower=lowerings.lower_matmul, rewrite=contraction.rewrite_matmul, macs=mac_rules.product),
    ("", "MatMulInteger"): _matrix(rewrite=quantized.rewrite_matmul_integer, macs=mac_rules.product),
    ("", "QLinearConv"): _matrix(rewrite=quantized.rewrite_qlinear_conv, macs=mac_rules.convolution(3)),
    ("", "QLinearMatMul"): _matrix(rewrite=quantized.rewrite_qlinear_matmul, macs=mac_rules.product),
    ("", "RNN"): _matrix(rewrite=recurrent.rewrite_recurrent, macs=mac_rules.recurrent),
    (MICROSOFT, "Attention"): _matrix(rewrite=attention.rewrite_attention),
    (MICROSOFT, "ConvTransposeWithDynamicPads"): _matrix(rewrite=microsoft.rewrite_conv_transpose_with_dynamic_pads),
    (MICROSOFT, "DynamicQuantizeLSTM"): _matrix(macs=mac_rules.recurrent),
    (MICROSOFT, "DynamicQuantizeMatMul"): _matrix(
        rewrite=quantized.rewrite_dynamic_quantize_matmul, macs=mac_rules.product
    ),
    (MICROSOFT, "FusedConv"): _matrix(rewrite=microsoft.rewrite_fused_conv, macs=mac_rules.convolution(1)),
    (MICROSOFT, "FusedGemm"): _matrix(rewrite=microsoft.rewrite_fused_gemm, macs=mac_rules.product),
    (MICROSOFT, "FusedMatMul"): _matrix(rewrite=microsoft.rewrite_fused_matmul, macs=mac_rules.product),
    (MICROSOFT, "FusedMatMulActivation"): _matrix(macs=mac_rules.product),
    (MICROSOFT, "GemmFastGelu"): _matrix(macs=mac_rules.product),
    (MICROSOFT, "GemmFloat8"): _matrix(),
    (MICROSOFT, "MatMulBnb4"): _matrix(rewrite=microsoft.rewrite_matmul_bnb4),
    (MICROSOFT, "MatMulFpQ4"): _matrix(),
    (MICROSOFT, "MatMulInteger16"): _matrix(macs=mac_rules.product),
    (MICROSOFT, "MatMulIntegerToFloat"): _matrix(
        rewrite=quantized.rewrite_matmul_integer_to_float, macs=mac_rules.product
    ),
    (MICROSOFT, "MatMulNBits"): _matrix(rewrite=microsoft.rewrite_matmul_n_bits, macs=mac_rules.bit_packed),
    (MICROSOFT, "MoE"): _matrix(),
    (MICROSOFT, "NhwcConv"): _matrix(),
    (MICROSOFT, "NhwcFusedConv"): _matrix(),
    (MICROSOFT, "QAttention"): _matrix(),
    (MICROSOFT, "QGemm"): _matrix(rewrite=quantized.rewrite_qgemm, macs=mac_rules.product),
    (MICROSOFT, "QLinearConv"): _matrix(rewrite=quantized.rewrite_qlinear_conv, macs=mac_rules.convolution(3)),
    (MICROSOFT, "QMoE"): _matrix(),
    (MICROSOFT, "SparseToDenseMatMul"): _matrix(),
    (MICROSOFT, "TransposeMatMul"): _matrix(rewrite=microsoft.rewrite_fused_matmul, macs=mac_rules.product),
    # with weights as attributes
    (ONNX_ML, "LinearClassifier"): Operator(rewrite=linear_models.rewrite_linear),
    (ONNX_ML, "LinearRegressor"): Operator(rewrite=linear_models.rewrite_linear),
    # products of activations, among them those behind the rewriting of Attention
    ("", "Attention"): Operator(PRODUCT, is_product=True),
    (MICROSOFT, "DecoderMaskedMultiHeadAttention"): Operator(PRODUCT, is_product=True),
    (MICROSOFT, "GroupQueryAttention"): Operator(PRODUCT, is_product=True),
    (MICROSOFT, "MultiHeadAttention"): Operator(PRODUCT, is_product=True),
    # QONNX
    (CHANNELS_LAST, "BatchNormalization"): Operator(CHANNELS, standard=qonnx_layers.rewrite_batch_normalization),
    (CHANNELS_LAST, "Conv"): Operator(standard=qonnx_layers.rewrite_channels_last),
    (CHANNELS_LAST, "MaxPool"): Operator(POOLING, standard=qonnx_layers.rewrite_channels_last),
    **_of_qonnx("BipolarQuant", qonnx.rewrite_bipolar_quant),
    **_of_qonnx("DebugMarker", qonnx_layers.rewrite_debug_marker),
    **_of_qonnx("FloatQuant", qonnx.rewrite_float_quant),
    **_of_qonnx("Im2Col", qonnx_layers.rewrite_im2col),
    **_of_qonnx("IntQuant", qonnx.rewrite_quant),
    **_of_qonnx("MaxPoolNHWC", qonnx_layers.rewrite_max_pool_nhwc),
    **_of_qonnx("MultiThreshold", qonnx_layers.rewrite_multi_threshold),
    **_of_qonnx("Quant", qonnx.rewrite_quant),
    **_of_qonnx("QuantAvgPool2d", qonnx_layers.rewrite_quant_average_pool),
    **_of_qonnx("Trunc", qonnx.rewrite_trunc),
    **_of_qonnx("XnorPopcountMatMul", qonnx_layers.rewrite_xnor_popcount),
    # random numbers
    ("", "Bernoulli"): Operator(is_random=True),
    ("", "Multinomial"): Operator(is_random=True),
    ("", "RandomNormal"): Operator(is_random=True),
    ("", "RandomNormalLike"): Operator(is_random=True),
    ("", "RandomUniform"): Operator(is_random=True),
    ("", "RandomUniformLike"): Operator(is_random=True),
    (MICROSOFT, "BiasDropout"): Operator(is_random=True),
    (MICROSOFT, "BitmaskBiasDropout"): Operator(is_random=True),
    (MICROSOFT, "BitmaskDropout"): Operator(is_random=True),
    (MICROSOFT, "Sampling"): Operator(is_random=True),
    # element-wise
    ("", "Abs"): Operator(ELEMENT_WISE),
    ("", "Acos"): Operator(ELEMENT_WISE),
    ("", "Acosh"): Operator(ELEMENT_WISE),
    ("", "Add"): Operator(ELEMENT_WISE, grid=grids.add, is_preparation=True),
    ("", "And"): Operator(ELEMENT_WISE),
    ("", "Asin"): Operator(ELEMENT_WISE),
    ("", "Asinh"): Operator(ELEMENT_WISE),
    ("", "Atan"): Operator(ELEMENT_WISE),
    ("", "Atanh"): Operator(ELEMENT_WISE),
    ("", "BitShift"): Operator(ELEMENT_WISE),
    ("", "BitwiseAnd"): Operator(ELEMENT_WISE),
    ("", "BitwiseNot"): Operator(ELEMENT_WISE),
    ("", "BitwiseOr"): Operator(ELEMENT_WISE),
    ("", "BitwiseXor"): Operator(ELEMENT_WISE),
    ("", "Cast"): Operator(ELEMENT_WISE, grid=grids.cast, is_preparation=True),
    ("", "CastLike"): Operator(ELEMENT_WISE),
    ("", "Ceil"): Operator(ELEMENT_WISE, grid=grids.whole_numbers),
    ("", "Celu"): Operator(ELEMENT_WISE),
    ("", "Clip"): Operator(ELEMENT_WISE, grid=grids.clip),
    ("", "Cos"): Operator(ELEMENT_WISE),
    ("", "Cosh"): Operator(ELEMENT_WISE),
    ("", "DequantizeLinear"): Operator(ELEMENT_WISE, grid=grids.dequantize, is_preparation=True),
    ("", "Div"): Operator(ELEMENT_WISE, is_preparation=True),
    ("", "Dropout"): Operator(ELEMENT_WISE),
    ("", "Elu"): Operator(ELEMENT_WISE),
    ("", "Equal"): Operator(ELEMENT_WISE),
    ("", "Erf"): Operator(ELEMENT_WISE),
    ("", "Exp"): Operator(ELEMENT_WISE),
    ("", "Floor"): Operator(ELEMENT_WISE, grid=grids.whole_numbers),
    ("", "Gelu"): Operator(ELEMENT_WISE),
    ("", "Greater"): Operator(ELEMENT_WISE),
    ("", "GreaterOrEqual"): Operator(ELEMENT_WISE),
    ("", "HardSigmoid"): Operator(ELEMENT_WISE),
    ("", "HardSwish"): Operator(ELEMENT_WISE),
    ("", "IsInf"): Operator(ELEMENT_WISE),
    ("", "IsNaN"): Operator(ELEMENT_WISE),
    ("", "LeakyRelu"): Operator(ELEMENT_WISE),
    ("", "Less"): Operator(ELEMENT_WISE),
    ("", "LessOrEqual"): Operator(ELEMENT_WISE),
    ("", "Log"): Operator(ELEMENT_WISE),
    ("", "Max"): Operator(ELEMENT_WISE),
    ("", "Mean"): Operator(ELEMENT_WISE),
    ("", "Min"): Operator(ELEMENT_WISE),
    ("", "Mish"): Operator(ELEMENT_WISE),
    ("", "Mod"): Operator(ELEMENT_WISE),
    ("", "Mul"): Operator(ELEMENT_WISE, grid=grids.mul, is_preparation=True),
    ("", "Neg"): Operator(ELEMENT_WISE, is_preparation=True),
    ("", "Not"): Operator(ELEMENT_WISE),
    ("", "Or"): Operator(ELEMENT_WISE),
    ("", "PRelu"): Operator(ELEMENT_WISE),
    ("", "Pow"): Operator(ELEMENT_WISE),
    ("", "QuantizeLinear"): Operator(ELEMENT_WISE, is_preparation=True),
    ("", "Reciprocal"): Operator(ELEMENT_WISE),
    ("", "Relu"): Operator(ELEMENT_WISE, grid=grids.relu),
    ("", "Round"): Operator(ELEMENT_WISE, grid=grids.whole_numbers),
    ("", "Selu"): Operator(ELEMENT_WISE),
    ("", "Shrink"): Operator(ELEMENT_WISE),
    ("", "Sigmoid"): Operator(ELEMENT_WISE),
    ("", "Sign"): Operator(ELEMENT_WISE, grid=grids.sign),
    ("", "Sin"): Operator(ELEMENT_WISE),
    ("", "Sinh"): Operator(ELEMENT_WISE),
    ("", "Softplus"): Operator(ELEMENT_WISE),
    ("", "Softsign"): Operator(ELEMENT_WISE),
    ("", "Sqrt"): Operator(ELEMENT_WISE),
    ("", "Sub"): Operator(ELEMENT_WISE, grid=grids.sub, is_preparation=True),
    ("", "Sum"): Operator(ELEMENT_WISE),
    ("", "Swish"): Operator(ELEMENT_WISE),
    ("", "Tan"): Operator(ELEMENT_WISE),
    ("", "Tanh"): Operator(ELEMENT_WISE),
    ("", "ThresholdedRelu"): Operator(ELEMENT_WISE),
    ("", "Where"): Operator(ELEMENT_WISE, grid=grids.where),
    ("", "Xor"): Operator(ELEMENT_WISE),
    # scale and shift of channels
    ("", "BatchNormalization"): Operator(CHANNELS),
    # normalisation
    ("", "GroupNormalization"): Operator(NORMALISATION),
    ("", "Hardmax"): Operator(NORMALISATION),
    ("", "InstanceNormalization"): Operator(NORMALISATION),
    ("", "LRN"): Operator(NORMALISATION),
    ("", "LayerNormalization"): Operator(NORMALISATION),
    ("", "LogSoftmax"): Operator(NORMALISATION),
    ("", "LpNormalization"): Operator(NORMALISATION),
    ("", "MeanVarianceNormalization"): Operator(NORMALISATION),
    ("", "RMSNormalization"): Operator(NORMALISATION),
    ("", "Softmax"): Operator(NORMALISATION),
    # pooling
    ("", "AveragePool"): Operator(POOLING),
    ("", "GlobalAveragePool"): Operator(POOLING),
    ("", "GlobalLpPool"): Operator(POOLING),
    ("", "GlobalMaxPool"): Operator(POOLING, grid=grids.kept),
    ("", "LpPool"): Operator(POOLING),
    ("", "MaxPool"): Operator(POOLING, grid=grids.kept),
    ("", "MaxUnpool"): Operator(POOLING),
    # moves data
    ("", "Compress"): Operator(MOVES_DATA),
    ("", "Concat"): Operator(MOVES_DATA, grid=grids.concat, is_preparation=True),
    ("", "DepthToSpace"): Operator(MOVES_DATA, grid=grids.kept),
    ("", "Expand"): Operator(MOVES_DATA, grid=grids.kept),
    ("", "Flatten"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "Gather"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "GatherElements"): Operator(MOVES_DATA),
    ("", "GatherND"): Operator(MOVES_DATA),
    ("", "Identity"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "Pad"): Operator(MOVES_DATA, grid=grids.kept_by_pad, is_preparation=True),
    ("", "Reshape"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "Resize"): Operator(MOVES_DATA),
    ("", "ReverseSequence"): Operator(MOVES_DATA),
    ("", "Scatter"): Operator(MOVES_DATA),
    ("", "ScatterElements"): Operator(MOVES_DATA),
    ("", "ScatterND"): Operator(MOVES_DATA),
    ("", "Slice"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "SpaceToDepth"): Operator(MOVES_DATA, grid=grids.kept),
    ("", "Split"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "Squeeze"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "Tile"): Operator(MOVES_DATA, grid=grids.kept),
    ("", "Transpose"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "Trilu"): Operator(MOVES_DATA),
    ("", "Unsqueeze"): Operator(MOVES_DATA, grid=grids.kept, is_preparation=True),
    ("", "Upsample"): Operator(MOVES_DATA),
    # reduction
    ("", "ArgMax"): Operator(REDUCTION),
    ("", "ArgMin"): Operator(REDUCTION),
    ("", "CumSum"): Operator(REDUCTION),
    ("", "ReduceL1"): Operator(REDUCTION),
    ("", "ReduceL2"): Operator(REDUCTION),
    ("", "ReduceLogSum"): Operator(REDUCTION),
    ("", "ReduceLogSumExp"): Operator(REDUCTION),
    ("", "ReduceMax"): Operator(REDUCTION, grid=grids.kept),
    ("", "ReduceMean"): Operator(REDUCTION),
    ("", "ReduceMin"): Operator(REDUCTION, grid=grids.kept),
    ("", "ReduceProd"): Operator(REDUCTION),
    ("", "ReduceSum"): Operator(REDUCTION),
    ("", "ReduceSumSquare"): Operator(REDUCTION),
    ("", "TopK"): Operator(REDUCTION),
    # shapes and indices
    ("", "ConstantOfShape"): Operator(SHAPES),
    ("", "EyeLike"): Operator(SHAPES),
    ("", "NonZero"): Operator(SHAPES),
    ("", "Range"): Operator(SHAPES),
    ("", "Shape"): Operator(SHAPES),
    ("", "Size"): Operator(SHAPES),
}
