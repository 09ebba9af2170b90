"""The rewritings of single operators, one file per family."""

from __future__ import annotations

from xbcompile.frontend.rewriter import Rewritings
from xbcompile.frontend.rewritings import (
    attention,
    contraction,
    conv_transpose,
    linear_models,
    microsoft,
    quantized,
    recurrent,
)

REWRITINGS = Rewritings(
    {
        ("", "ConvTranspose"): conv_transpose.rewrite_conv_transpose,
        ("", "GRU"): recurrent.rewrite_recurrent,
        ("", "LSTM"): recurrent.rewrite_recurrent,
        ("", "RNN"): recurrent.rewrite_recurrent,
        ("", "Einsum"): contraction.rewrite_einsum,
        ("", "MatMul"): contraction.rewrite_matmul,
        ("ai.onnx.ml", "LinearClassifier"): linear_models.rewrite_linear,
        ("ai.onnx.ml", "LinearRegressor"): linear_models.rewrite_linear,
        ("", "ConvInteger"): quantized.rewrite_conv_integer,
        ("", "MatMulInteger"): quantized.rewrite_matmul_integer,
        ("", "QLinearConv"): quantized.rewrite_qlinear_conv,
        ("", "QLinearMatMul"): quantized.rewrite_qlinear_matmul,
        ("com.microsoft", "DynamicQuantizeMatMul"): quantized.rewrite_dynamic_quantize_matmul,
        ("com.microsoft", "MatMulIntegerToFloat"): quantized.rewrite_matmul_integer_to_float,
        ("com.microsoft", "QGemm"): quantized.rewrite_qgemm,
        ("com.microsoft", "QLinearConv"): quantized.rewrite_qlinear_conv,
        ("com.microsoft", "ConvTransposeWithDynamicPads"): microsoft.rewrite_conv_transpose_with_dynamic_pads,
        ("com.microsoft", "FusedConv"): microsoft.rewrite_fused_conv,
        ("com.microsoft", "FusedGemm"): microsoft.rewrite_fused_gemm,
        ("com.microsoft", "FusedMatMul"): microsoft.rewrite_fused_matmul,
        ("com.microsoft", "MatMulBnb4"): microsoft.rewrite_matmul_bnb4,
        ("com.microsoft", "MatMulNBits"): microsoft.rewrite_matmul_n_bits,
        ("com.microsoft", "TransposeMatMul"): microsoft.rewrite_fused_matmul,
        ("com.microsoft", "Attention"): attention.rewrite_attention,
        ("", "Attention"): attention.stay_digital,
        ("com.microsoft", "DecoderMaskedMultiHeadAttention"): attention.stay_digital,
        ("com.microsoft", "GroupQueryAttention"): attention.stay_digital,
        ("com.microsoft", "MultiHeadAttention"): attention.stay_digital,
    }
)
