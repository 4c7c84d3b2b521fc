"""What the compiled step is made of and no Python can say: products of rows with tiles of weights, written in the
compiler's own language so that their sums stay in registers, and how threads look at one another's work.

A tile has the weights of LANES outputs, for each pair of inputs LANES times two numbers. Everything here is pasted into
the functions of `decode_kernel`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from chat_app.tile_shape import AHEAD, LANES

_FEATURES = get_host_cpu_features()
SPAN = 16 if _FEATURES.get("avx512bw") else 8  # Numbers in a vector.
_SUMS = 16 if SPAN == 16 else 8  # Vectors that are added up at a time; there are twice as many registers.
_PAIRS_INSTRUCTION = "llvm.x86.avx512.pmaddw.d.512" if SPAN == 16 else "llvm.x86.avx2.pmadd.wd"
if not _FEATURES.get("avx2"):
    _PAIRS_INSTRUCTION = ""  # The compiler finds a way.
_FLOAT, _BYTE, _SHORT, _INT, _LONG = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, SPAN), ir.VectorType(_INT, SPAN)


def _product_of(rows: int, vectors: int) -> Any:
    """An intrinsic that multiplies rows with a part of a tile.

    Its arguments: an array of the weights' type (int8, or uint16 for bfloat16), the addresses of the part's first
    weight and of the first row, the bytes from row to row, how many pairs of inputs there are, and the address and the
    bytes from row to row of the results, float32.
    """

    @intrinsic
    def product(_context, kind, weights, first, row_bytes, pairs, out, out_bytes):
        size = kind.dtype.bitwidth // 8
        pair = _WholePair if size == 1 else _FloatPair
        signature = types.void(kind, *[types.int64] * 6)

        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            _, weights, first, row_bytes, pairs, out, out_bytes = arguments
            code = pair(builder)
            begin, loop, body = builder.block, builder.append_basic_block(), builder.append_basic_block()
            end = builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(_LONG)
            at.add_incoming(_LONG(0), begin)
            sums = [[builder.phi(code.sum) for _ in range(vectors)] for _ in range(rows)]
            for one in (one for row in sums for one in row):
                one.add_incoming(ir.Constant(code.sum, None), begin)
            builder.cbranch(builder.icmp_signed("<", at, pairs), body, end)

            builder.position_at_end(body)
            here = builder.add(weights, builder.mul(at, _LONG(2 * LANES * size)))
            for line in range(max(vectors * SPAN * 2 * size // 64, 1)):
                code.ask(builder.add(here, _LONG(AHEAD + 64 * line)))
            factors = [code.weights(builder.add(here, _LONG(vector * SPAN * 2 * size))) for vector in range(vectors)]
            for row, old in enumerate(sums):
                offset = builder.add(builder.mul(row_bytes, _LONG(row)), builder.mul(at, _LONG(code.pair_bytes)))
                values = code.inputs(builder.add(first, offset))
                for factor, one in zip(factors, old, strict=True):
                    one.add_incoming(code.added(one, factor, values), body)
            at.add_incoming(builder.add(at, _LONG(1)), body)
            builder.branch(loop)

            builder.position_at_end(end)
            for row, done in enumerate(sums):
                for vector, one in enumerate(done):
                    offset = builder.add(builder.mul(out_bytes, _LONG(row)), _LONG(vector * SPAN * 4))
                    place = builder.inttoptr(builder.add(out, offset), _FLOATS.as_pointer())
                    builder.store(code.result(one), place).align = 4
            return context.get_dummy_value()

        return signature, write

    return product


class _Pair:
    """The code that multiplies a pair of inputs with the weights of SPAN outputs.

    Args:
        builder: writes it.
    """

    def __init__(self, builder: Any):
        self._builder = builder

    def ask(self, address: Any) -> None:
        """Let the memory bring what stands there."""
        signature = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
        place = self._builder.inttoptr(address, _BYTE.as_pointer())
        self._call("llvm.prefetch.p0", signature, place, _INT(0), _INT(3), _INT(1))

    def _call(self, name: str, signature: Any, *arguments: Any) -> Any:
        return self._builder.call(cgutils.get_or_insert_function(self._builder.module, signature, name), arguments)

    def _load(self, address: Any, kind: Any) -> Any:
        value = self._builder.load(self._builder.inttoptr(address, kind.as_pointer()))
        value.align = 4
        return value

    def _halves(self, vector: Any) -> list[Any]:
        """The numbers at even places of a vector, and those at odd ones."""
        undefined = ir.Constant(vector.type, ir.Undefined)
        places = [[2 * at + odd for at in range(SPAN)] for odd in range(2)]
        return [self._builder.shuffle_vector(vector, undefined, ir.Constant(_INTS, one)) for one in places]


class _WholePair(_Pair):
    """Weights of 8 bits, inputs of 16, sums of 32: whole numbers, so nothing is rounded."""

    pair_bytes = 4

    def __init__(self, builder: Any):
        super().__init__(builder)
        self.sum = _INTS
        self._shorts = ir.VectorType(_SHORT, 2 * SPAN)

    def weights(self, address: Any) -> Any:
        """The weights of both inputs, one after the other for each output."""
        return self._builder.sext(self._load(address, ir.VectorType(_BYTE, 2 * SPAN)), self._shorts)

    def inputs(self, address: Any) -> Any:
        """The pair, for each output."""
        return self._builder.bitcast(_spread(self._builder, self._load(address, _INT)), self._shorts)

    def added(self, total: Any, weights: Any, inputs: Any) -> Any:
        """The sum with the pair's products."""
        if _PAIRS_INSTRUCTION:
            signature = ir.FunctionType(_INTS, [self._shorts] * 2)
            return self._builder.add(total, self._call(_PAIRS_INSTRUCTION, signature, weights, inputs))
        for one, other in zip(self._halves(weights), self._halves(inputs), strict=True):
            product = self._builder.mul(*(self._builder.sext(half, _INTS) for half in (one, other)))
            total = self._builder.add(total, product)
        return total

    def result(self, total: Any) -> Any:
        """The sum as float32."""
        return self._builder.sitofp(total, _FLOATS)


class _FloatPair(_Pair):
    """Weights in bfloat16, inputs and sums in float32."""

    pair_bytes = 8

    def __init__(self, builder: Any):
        super().__init__(builder)
        self.sum = _FLOATS

    def weights(self, address: Any) -> Any:
        """The weights of the first input, and of the second; both stand in one number of 32 bits for each output."""
        both = self._load(address, _INTS)
        upper = self._builder.and_(both, ir.Constant(_INTS, [-65536] * SPAN))
        lower = self._builder.shl(both, ir.Constant(_INTS, [16] * SPAN))
        return [self._builder.bitcast(one, _FLOATS) for one in (lower, upper)]

    def inputs(self, address: Any) -> Any:
        """The first input for each output, and the second."""
        return [
            _spread(self._builder, self._load(self._builder.add(address, _LONG(place)), _FLOAT)) for place in (0, 4)
        ]

    def added(self, total: Any, weights: Any, inputs: Any) -> Any:
        """The sum with the pair's products."""
        for one, other in zip(weights, inputs, strict=True):
            total = _fused(self._builder, one, other, total)
        return total

    def result(self, total: Any) -> Any:
        """The sum."""
        return total


WIDE_1, WIDE_4, WIDE_8 = (min(_SUMS // rows, 4) * SPAN for rows in (1, 4, 8))  # Lanes.
product_1, product_2 = (_product_of(rows, WIDE_1 // SPAN) for rows in (1, 2))
product_4, product_8 = _product_of(4, WIDE_4 // SPAN), _product_of(8, WIDE_8 // SPAN)


def _upper(builder: Any, address: Any) -> Any:
    """SPAN numbers of bfloat16 at an address, as float32."""
    number = builder.load(builder.inttoptr(address, ir.VectorType(_SHORT, SPAN).as_pointer()))
    number.align = 2
    wide = builder.shl(builder.zext(number, _INTS), ir.Constant(_INTS, [16] * SPAN))
    return builder.bitcast(wide, _FLOATS)


def _spread(builder: Any, value: Any) -> Any:
    """A number at every place of a vector."""
    undefined = ir.Constant(ir.VectorType(value.type, SPAN), ir.Undefined)
    single = builder.insert_element(undefined, value, _INT(0))
    return builder.shuffle_vector(single, undefined, ir.Constant(_INTS, [0] * SPAN))


@intrinsic
def dot(_context: Any, query: Any, key: Any, width: Any) -> Any:
    """The sum of products of two rows of `width` numbers, a multiple of SPAN: float32 and bfloat16, by address."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        query, key, width = arguments
        total = cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, None))
        with cgutils.for_range(builder, builder.udiv(width, _LONG(SPAN))) as loop:
            place = builder.inttoptr(builder.add(query, builder.mul(loop.index, _LONG(4 * SPAN))), _FLOATS.as_pointer())
            one = builder.load(place)
            one.align = 4
            other = _upper(builder, builder.add(key, builder.mul(loop.index, _LONG(2 * SPAN))))
            builder.store(_fused(builder, one, other, builder.load(total)), total)
        signature = ir.FunctionType(_FLOAT, [_FLOAT, _FLOATS])
        summed = cgutils.get_or_insert_function(builder.module, signature, f"llvm.vector.reduce.fadd.v{SPAN}f32")
        return builder.call(summed, [_FLOAT(0), builder.load(total)], fastmath=["reassoc"])

    return types.float32(types.int64, types.int64, types.int64), write


@intrinsic
def mix(_context: Any, shares: Any, values: Any, row_bytes: Any, count: Any, out: Any) -> Any:
    """Sum up SPAN numbers of `count` rows, bfloat16, each times its share, float32; all by address."""

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        shares, values, row_bytes, count, out = arguments
        total = cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, None))
        with cgutils.for_range(builder, count) as loop:
            place = builder.inttoptr(builder.add(shares, builder.mul(loop.index, _LONG(4))), _FLOAT.as_pointer())
            share = _spread(builder, builder.load(place))
            value = _upper(builder, builder.add(values, builder.mul(loop.index, row_bytes)))
            builder.store(_fused(builder, share, value, builder.load(total)), total)
        builder.store(builder.load(total), builder.inttoptr(out, _FLOATS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), write


def _fused(builder: Any, one: Any, other: Any, total: Any) -> Any:
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{SPAN}f32")
    return builder.call(function, [one, other, total])


@intrinsic
def pointer(_context: Any, address: Any) -> Any:
    """An address as a pointer."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _BYTE.as_pointer())

    return types.voidptr(types.int64), write


@intrinsic
def as_float(_context: Any, bits: Any) -> Any:
    """The float32 with these 32 bits."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.int32), write


@intrinsic
def as_bits(_context: Any, number: Any) -> Any:
    """The 32 bits of a float32."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _INT)

    return types.int32(types.float32), write


@intrinsic
def arrive(_context: Any, counter: Any) -> Any:
    """Add one to the number at an address, so that other threads see it and all that was written before."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], _LONG.as_pointer()), _LONG(1), "acq_rel")

    return types.int64(types.int64), write


@intrinsic
def look(_context: Any, counter: Any) -> Any:
    """The number at an address, as other threads left it."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _LONG.as_pointer()), "acquire", 8)

    return types.int64(types.int64), write
