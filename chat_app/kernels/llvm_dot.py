"""What the compiled step is made of and no Python can say: products of rows with tiles of weights, written in the
compiler's own language so that their sums stay in registers, and how threads look at one another's work.

A tile is a table of words of 32 bits with a column for each of LANES outputs. A word has an output's weights of a few
inputs that follow one another: four of 8 bits, or two of bfloat16. Everything here is pasted into the functions of
`tile_kernel`, `laying_kernel`, `attention_kernel` and `decode_kernel`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from chat_app.kernels.layout import LANES, LINE
from chat_app.kernels.numba_internals import cgutils
from chat_app.system.cpu import compiled_for

_FEATURES = compiled_for().features
SPAN = 16 if "avx512bw" in _FEATURES else 8  # Numbers in a vector.
_SUMS = 16 if SPAN == 16 else 8  # Vectors that are added up at a time; there are twice as many registers.
_PAIRS_INSTRUCTION = "llvm.x86.avx512.pmaddw.d.512" if SPAN == 16 else "llvm.x86.avx2.pmadd.wd"
if "avx2" not in _FEATURES:
    _PAIRS_INSTRUCTION = ""  # The compiler finds a way.
FLOAT, BYTE, SHORT, INT, LONG = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(FLOAT, SPAN), ir.VectorType(INT, SPAN)
ROW = 4 * LANES  # Bytes: a row of a tile, or of results.


class Code:
    """Writes instructions into a function.

    Args:
        builder: of LLVM.
    """

    def __init__(self, builder: Any):
        self._builder = builder

    def ask(self, address: Any) -> None:
        """Let the memory bring what stands there."""
        self.call("llvm.prefetch.p0", ir.VoidType(), self.place(address), INT(0), INT(3), INT(1))

    def place(self, address: Any, kind: Any = BYTE) -> Any:
        """An address as a pointer."""
        return self._builder.inttoptr(address, kind.as_pointer())

    def call(self, name: str, kind: Any, *arguments: Any) -> Any:
        """An instruction of the processor, by LLVM's name."""
        signature = ir.FunctionType(kind, [one.type for one in arguments])
        return self._builder.call(cgutils.get_or_insert_function(self._builder.module, signature, name), arguments)

    def load(self, address: Any, kind: Any) -> Any:
        """What stands at an address."""
        value = self._builder.load(self.place(address, kind))
        value.align = 4
        return value

    def store(self, value: Any, address: Any) -> None:
        """Put something at an address."""
        self._builder.store(value, self.place(address, value.type)).align = 4

    def spread(self, value: Any, count: int = SPAN) -> Any:
        """A number at every place of a vector."""
        undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
        single = self._builder.insert_element(undefined, value, INT(0))
        return self._builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(INT, count), [0] * count))

    def halves(self, one: Any, other: Any = None) -> list[Any]:
        """The numbers at even places of a vector or of two, and those at odd ones."""
        count = one.type.count if other is not None else one.type.count // 2
        second = ir.Constant(one.type, ir.Undefined) if other is None else other
        masks = [ir.Constant(ir.VectorType(INT, count), [2 * at + odd for at in range(count)]) for odd in range(2)]
        return [self._builder.shuffle_vector(one, second, mask) for mask in masks]


class _WholeWord(Code):
    """Weights of 8 bits, inputs of 16, sums of 32: whole numbers, so nothing is rounded. A vector has two sums for each
    output, of the first two inputs of its words and of the others."""

    sum = INTS
    lanes = SPAN // 2
    fewest = 2  # Vectors; two of them give one of results.
    _shorts = ir.VectorType(SHORT, 2 * SPAN)

    def weights(self, address: Any) -> Any:
        """Those of `lanes` words."""
        return self._builder.sext(self.load(address, ir.VectorType(BYTE, 2 * SPAN)), self._shorts)

    def inputs(self, address: Any) -> Any:
        """A word's, for each output."""
        return self._builder.bitcast(self.spread(self.load(address, LONG), SPAN // 2), self._shorts)

    def added(self, total: Any, weights: Any, inputs: Any) -> Any:
        """The sums with the products."""
        if _PAIRS_INSTRUCTION:
            return self._builder.add(total, self.call(_PAIRS_INSTRUCTION, INTS, weights, inputs))
        for one, other in zip(self.halves(weights), self.halves(inputs), strict=True):
            product = self._builder.mul(*(self._builder.sext(half, INTS) for half in (one, other)))
            total = self._builder.add(total, product)
        return total

    def results(self, sums: list[Any]) -> list[Any]:
        """The outputs as float32."""
        pairs = zip(sums[::2], sums[1::2], strict=True)
        return [self._builder.sitofp(self._builder.add(*self.halves(*pair)), FLOATS) for pair in pairs]


class _FloatWord(Code):
    """Weights in bfloat16, inputs and sums in float32."""

    sum = FLOATS
    lanes = SPAN
    fewest = 1

    def weights(self, address: Any) -> Any:
        """The first ones of `lanes` words, and the second ones."""
        both = self.load(address, INTS)
        upper = self._builder.and_(both, ir.Constant(INTS, [-65536] * SPAN))
        lower = self._builder.shl(both, ir.Constant(INTS, [16] * SPAN))
        return [self._builder.bitcast(one, FLOATS) for one in (lower, upper)]

    def inputs(self, address: Any) -> Any:
        """The first of a word for each output, and the second."""
        places = (address, self._builder.add(address, LONG(4)))
        return [self.spread(self.load(place, FLOAT)) for place in places]

    def added(self, total: Any, weights: Any, inputs: Any) -> Any:
        """The sums with the products."""
        for one, other in zip(weights, inputs, strict=True):
            total = _fused(self._builder, one, other, total)
        return total

    def results(self, sums: list[Any]) -> list[Any]:
        """The outputs."""
        return sums


def _product_of(rows: int) -> Any:
    """An intrinsic that multiplies rows with a tile.

    Its arguments: an array of the weights' type (int8, or uint16 for bfloat16), the addresses of the tile and of the
    first row, the bytes from row to row, how many words an output has, how many bytes after a weight is what the memory
    shall bring meanwhile, the address of the results, float32 [rows, LANES], and the bytes from row to row of those.
    """

    @intrinsic
    def product(_context, kind, tile, first, row_bytes, words, ahead, out, out_bytes):
        word = _WholeWord if kind.dtype.bitwidth == 8 else _FloatWord
        signature = types.void(kind, *[types.int64] * 7)

        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            _, tile, first, row_bytes, words, ahead, out, out_bytes = arguments
            code = word(builder)
            vectors = max(min(_SUMS // rows, LANES // code.lanes), code.fewest)
            wide = vectors * code.lanes * 4
            with cgutils.for_range(builder, LONG(ROW // wide)) as part:
                left = builder.mul(part.index, LONG(wide))
                sums = _summed(builder, code, (rows, vectors), builder.add(tile, left), first, row_bytes, words, ahead)
                for row, done in enumerate(sums):
                    target = builder.add(builder.add(out, left), builder.mul(out_bytes, LONG(row)))
                    for at, one in enumerate(code.results(done)):
                        code.store(one, builder.add(target, LONG(at * SPAN * 4)))
            return context.get_dummy_value()

        return signature, write

    return product


def _summed(
    builder: Any, code: Any, shape: tuple[int, int], tile: Any, first: Any, row_bytes: Any, words: Any, ahead: Any
) -> Any:
    """The sums of some rows times some vectors of a tile, in registers."""
    rows, vectors = shape
    begin, loop, body = builder.block, builder.append_basic_block(), builder.append_basic_block()
    end = builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(LONG)
    at.add_incoming(LONG(0), begin)
    sums = [[builder.phi(code.sum) for _ in range(vectors)] for _ in range(rows)]
    for one in (one for row in sums for one in row):
        one.add_incoming(ir.Constant(code.sum, None), begin)
    builder.cbranch(builder.icmp_signed("<", at, words), body, end)

    builder.position_at_end(body)
    here = builder.add(tile, builder.mul(at, LONG(ROW)))
    wide = code.lanes * 4
    for line in range(max(vectors * wide // LINE, 1)):
        code.ask(builder.add(builder.add(here, ahead), LONG(LINE * line)))
    factors = [code.weights(builder.add(here, LONG(vector * wide))) for vector in range(vectors)]
    for row, old in enumerate(sums):
        offset = builder.add(builder.mul(row_bytes, LONG(row)), builder.mul(at, LONG(8)))
        values = code.inputs(builder.add(first, offset))
        for factor, one in zip(factors, old, strict=True):
            one.add_incoming(code.added(one, factor, values), body)
    at.add_incoming(builder.add(at, LONG(1)), body)
    builder.branch(loop)
    builder.position_at_end(end)
    return sums


product_1, product_2, product_4, product_8 = (_product_of(rows) for rows in (1, 2, 4, 8))


def _fused(builder: Any, one: Any, other: Any, total: Any) -> Any:
    signature = ir.FunctionType(FLOATS, [FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{SPAN}f32")
    return builder.call(function, [one, other, total])


def _of_one(result: Any, argument: Any, code: Callable[[Any, Any], Any]) -> Any:
    """An intrinsic of one argument."""

    @intrinsic
    def instruction(_context, _value):
        return result(argument), lambda _context, builder, _signature, arguments: code(builder, arguments[0])

    return instruction


def _root(builder: Any, number: Any) -> Any:
    return Code(builder).call("llvm.sqrt.f32", FLOAT, number)


def _arrive(builder: Any, counter: Any) -> Any:
    return builder.atomic_rmw("add", builder.inttoptr(counter, LONG.as_pointer()), LONG(1), "acq_rel")


def _look(builder: Any, counter: Any) -> Any:
    return builder.load_atomic(builder.inttoptr(counter, LONG.as_pointer()), "acquire", 8)


pointer = _of_one(types.voidptr, types.int64, lambda builder, address: builder.inttoptr(address, BYTE.as_pointer()))
"""An address as a pointer."""
as_float = _of_one(types.float32, types.int32, lambda builder, bits: builder.bitcast(bits, FLOAT))
"""The float32 with these 32 bits."""
as_bits = _of_one(types.int32, types.float32, lambda builder, number: builder.bitcast(number, INT))
"""The 32 bits of a float32."""
root = _of_one(types.float32, types.float32, _root)
"""The square root of a number above 0."""
arrive = _of_one(types.int64, types.int64, _arrive)
"""Add one to the number at an address, so that other threads see it and all that was written before; gives the number
as it was."""
look = _of_one(types.int64, types.int64, _look)
"""The number at an address, as other threads left it."""
