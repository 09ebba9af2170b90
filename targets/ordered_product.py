"""Matrix products whose every sum is a chain of fused multiply-adds over rows, in ascending order.

A chain gives the same bits for any number of vectors and columns, on every machine: a fused multiply-add rounds once (IEEE 754,
section 5.4.1), and where a processor has none, the C library's is called. Rows driven with 0 change nothing, so that used rows
alone give what all rows give. Six vectors by 64 bytes of columns are held in registers; how much is held changes no sum.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from xbcompile.deferred import intrinsic, njit

_VECTORS = (
    6  # with 64 bytes of columns each, as many accumulators as fit beside a row of weights in 16 registers of 32 bytes
)
_WIDE_BYTES, _NARROW_BYTES = 64, 32
_BROAD_BYTES = 256  # of one vector


def _block(vectors: int, size: int, masked: bool) -> Any:
    """The code generator of one block: so many vectors by so many bytes of columns, of which the last may be left out."""

    def chains(typing, drives, matrix, sums, vector, column, count):  # type: ignore[no-untyped-def]  # numba gives types
        from numba import types

        signature = types.void(drives, matrix, sums, vector, column, count)
        return signature, partial(_generate, vectors, size, masked)

    return intrinsic(chains)


def _generate(vectors, size, masked, context, builder, signature, args):  # type: ignore[no-untyped-def]  # numba gives types
    """Write chains of vectors from `vector` on by columns from `column` on, `count` of them where masked."""
    from llvmlite import ir
    from numba.core import cgutils
    from numba.np.arrayobj import make_array

    pairs = zip(signature.args[:3], args[:3], strict=True)
    drives, matrix, sums = (make_array(kind)(context, builder, value) for kind, value in pairs)
    vector, column, count = args[3:]
    code = _Code(builder, signature.args[0].dtype.bitwidth // 8, size, count if masked else None)
    places = [builder.add(vector, ir.Constant(ir.IntType(64), i)) for i in range(vectors)]
    totals = [cgutils.alloca_once_value(builder, code.zeros) for _ in places]
    add = code.function(f"llvm.fma.{code.suffix}", code.vector, *[code.vector] * 3)
    for total in totals:  # again, where a loop comes back to this block
        builder.store(code.zeros, total)
    with cgutils.for_range(builder, builder.extract_value(matrix.shape, 0)) as loop:
        row = code.load(code.place(matrix, loop.index, column))
        for place, total in zip(places, totals, strict=True):
            address = builder.bitcast(code.place(drives, place, loop.index), code.number.as_pointer())
            drive = code.spread(builder.load(address), code.vector)
            builder.store(builder.call(add, [drive, row, builder.load(total)]), total)
    for place, total in zip(places, totals, strict=True):
        code.store(builder.load(total), code.place(sums, place, column))
    return context.get_dummy_value()


class _Code:
    """What is written of vectors of so many bytes: LLVM's instructions for them.

    Args:
        builder: writes instructions.
        item: bytes of a number.
        size: bytes of a vector.
        count: lanes below this one are loaded and stored; None: all.
    """

    def __init__(self, builder: Any, item: int, size: int, count: Any) -> None:
        from llvmlite import ir

        self.builder, self.lanes, self.item = builder, size // item, item
        self.number = ir.FloatType() if item == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.number, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * item}"
        self.zeros = ir.Constant(self.vector, [0.0] * self.lanes)
        self.mask = None
        if count is not None:
            numbers = ir.VectorType(ir.IntType(64), self.lanes)
            self.mask = builder.icmp_signed(
                "<", ir.Constant(numbers, list(range(self.lanes))), self.spread(count, numbers)
            )

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """One of LLVM's own functions."""
        from llvmlite import ir
        from numba.core import cgutils

        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def spread(self, value: Any, type_: Any) -> Any:
        """The same number in every lane."""
        from llvmlite import ir

        one = self.builder.insert_element(ir.Constant(type_, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, one, first)

    def place(self, array: Any, row: Any, column: Any) -> Any:
        """Address of an element, whatever the strides."""
        from llvmlite import ir

        builder = self.builder
        strides = (builder.extract_value(array.strides, axis) for axis in (0, 1))
        offset = builder.add(
            *(builder.mul(index, stride) for index, stride in zip((row, column), strides, strict=True))
        )
        return builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [offset])

    def load(self, address: Any) -> Any:
        """The vector at an address, zeros where it is masked."""
        from llvmlite import ir

        pointer = self.vector.as_pointer()
        address = self.builder.bitcast(address, pointer)
        if self.mask is None:
            return self.builder.load(address, align=self.item)
        arguments = pointer, ir.IntType(32), self.mask.type, self.vector
        call = self.function(f"llvm.masked.load.{self.suffix}.p0", self.vector, *arguments)
        return self.builder.call(call, [address, ir.Constant(ir.IntType(32), self.item), self.mask, self.zeros])

    def store(self, value: Any, address: Any) -> None:
        """Write a vector to an address, but where it is masked."""
        from llvmlite import ir

        pointer = self.vector.as_pointer()
        address = self.builder.bitcast(address, pointer)
        if self.mask is None:
            self.builder.store(value, address, align=self.item)
            return
        arguments = self.vector, pointer, ir.IntType(32), self.mask.type
        call = self.function(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), *arguments)
        self.builder.call(call, [value, address, ir.Constant(ir.IntType(32), self.item), self.mask])


_many_wide, _many_partly = _block(_VECTORS, _WIDE_BYTES, False), _block(_VECTORS, _WIDE_BYTES, True)
_many_narrow = _block(_VECTORS, _NARROW_BYTES, True)
_one_broad, _one_partly = _block(1, _BROAD_BYTES, False), _block(1, _WIDE_BYTES, True)


@njit(cache=True, nogil=True, error_model="numpy")
def _few_vectors(drives, matrix, sums):  # type: ignore[no-untyped-def]  # numba infers
    """`ordered_product`, vector by vector."""
    vectors, columns = sums.shape
    broad, wide = _BROAD_BYTES // sums.itemsize, _WIDE_BYTES // sums.itemsize
    for vector in range(vectors):
        if columns >= broad:
            for begin in range(0, columns, broad):
                _one_broad(drives, matrix, sums, vector, min(begin, columns - broad), broad)
        else:
            for begin in range(0, columns, wide):
                _one_partly(drives, matrix, sums, vector, begin, columns - begin)


@njit(cache=True, nogil=True, error_model="numpy")
def ordered_product(drives, matrix, sums):  # type: ignore[no-untyped-def]  # numba infers
    """Fill sums with drives @ matrix, one chain of fused multiply-adds each.

    Args:
        drives: float32 or float64 [vectors, rows], of any strides.
        matrix: of the same type, [rows, columns], whose columns lie side by side.
        sums: of the same type, [vectors, columns], likewise.
    """
    vectors, columns = sums.shape
    wide = _WIDE_BYTES // sums.itemsize
    if vectors < _VECTORS:
        _few_vectors(drives, matrix, sums)
        return
    for begin in range(0, columns, wide):
        count = columns - begin
        column = max(0, min(begin, columns - wide))  # some are computed twice, to the same bits
        for start in range(0, vectors, _VECTORS):
            vector = min(start, vectors - _VECTORS)
            if columns >= wide:
                _many_wide(drives, matrix, sums, vector, column, count)
            elif 2 * count > wide:
                _many_partly(drives, matrix, sums, vector, column, count)
            else:
                _many_narrow(drives, matrix, sums, vector, column, count)
