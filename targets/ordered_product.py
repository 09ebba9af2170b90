"""Matrix products whose every sum is a chain of fused multiply-adds over rows, in ascending order.

A chain gives the same bits for any number of vectors and columns, on every machine: a fused multiply-add rounds once (IEEE 754,
section 5.4.1), and where a processor has none, the C library's is called. Rows driven with 0 change nothing, so that used rows
alone give what all rows give. Six vectors by 64 bytes of columns are held in registers; how much is held changes no sum.
"""

from __future__ import annotations

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
        return signature, lambda *given: _generate(vectors, size, masked, *given)

    return intrinsic(chains)


def _generate(vectors, size, masked, context, builder, signature, args):  # type: ignore[no-untyped-def]
    """Write chains of vectors from `vector` on by columns from `column` on, `count` of them where masked."""
    from llvmlite import ir
    from numba.core import cgutils
    from numba.np.arrayobj import make_array

    arrays = [
        make_array(kind)(context, builder, value) for kind, value in zip(signature.args[:3], args[:3], strict=True)
    ]
    item = signature.args[0].dtype.bitwidth // 8
    lanes, number, bit = size // item, ir.IntType(64), ir.IntType(1)
    kind = context.get_value_type(signature.args[0].dtype)
    vector_type = ir.VectorType(kind, lanes)
    suffix = f"v{lanes}f{8 * item}"

    def whole(value: int) -> Any:
        return ir.Constant(number, value)

    def place(array: Any, row: Any, column: Any) -> Any:
        """Address of an element, whatever the strides."""
        offset = builder.add(
            builder.mul(row, builder.extract_value(array.strides, 0)),
            builder.mul(column, builder.extract_value(array.strides, 1)),
        )
        return builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [offset])

    def function(name: str, result: Any, *arguments: Any) -> Any:
        return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)

    def spread(value: Any, type_: Any) -> Any:
        """The same number in every lane."""
        one = builder.insert_element(ir.Constant(type_, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))

    drives, matrix, sums = arrays
    vector, column, count = args[3:]
    pointer = vector_type.as_pointer()
    mask_type = ir.VectorType(bit, lanes)
    alignment = ir.Constant(ir.IntType(32), item)
    if masked:
        index = ir.Constant(ir.VectorType(number, lanes), list(range(lanes)))
        mask = builder.icmp_signed("<", index, spread(count, ir.VectorType(number, lanes)))

    def load(address: Any) -> Any:
        address = builder.bitcast(address, pointer)
        if not masked:
            return builder.load(address, align=item)
        call = function(f"llvm.masked.load.{suffix}.p0", vector_type, pointer, ir.IntType(32), mask_type, vector_type)
        return builder.call(call, [address, alignment, mask, ir.Constant(vector_type, [0.0] * lanes)])

    def store(value: Any, address: Any) -> None:
        address = builder.bitcast(address, pointer)
        if not masked:
            builder.store(value, address, align=item)
            return
        call = function(
            f"llvm.masked.store.{suffix}.p0", ir.VoidType(), vector_type, pointer, ir.IntType(32), mask_type
        )
        builder.call(call, [value, address, alignment, mask])

    totals = [cgutils.alloca_once_value(builder, ir.Constant(vector_type, [0.0] * lanes)) for _ in range(vectors)]
    add = function(f"llvm.fma.{suffix}", vector_type, vector_type, vector_type, vector_type)
    for total in totals:
        builder.store(ir.Constant(vector_type, [0.0] * lanes), total)
    with cgutils.for_range(builder, builder.extract_value(matrix.shape, 0)) as loop:
        row = load(place(matrix, loop.index, column))
        for i, total in enumerate(totals):
            address = builder.bitcast(place(drives, builder.add(vector, whole(i)), loop.index), kind.as_pointer())
            drive = spread(builder.load(address), vector_type)
            builder.store(builder.call(add, [drive, row, builder.load(total)]), total)
    for i, total in enumerate(totals):
        store(builder.load(total), place(sums, builder.add(vector, whole(i)), column))
    return context.get_dummy_value()


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
