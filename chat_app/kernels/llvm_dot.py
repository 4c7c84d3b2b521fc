"""Dot products of activations with packed weights by vector instructions, and atomics: intrinsics written in LLVM IR.

Python has no words for these: the accumulators must stay in vector registers, and threads must see each other's writes
in order. numba inlines each intrinsic into the kernel that calls it.

A tile is a table of 32-bit words, [inputs / inputs a word, TILE_N]. A word holds the weights of one output for a few
neighbouring inputs: four of int8, or two of bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from chat_app.kernels.layout import CACHE_LINE, TILE_N
from chat_app.kernels.numba_internals import cgutils
from chat_app.system.cpu import target_processor

_FEATURES = target_processor().features
VECTOR_WIDTH = 16 if "avx512bw" in _FEATURES else 8  # 32-bit lanes of a vector register.
_ACCUMULATORS = 16 if VECTOR_WIDTH == 16 else 8  # Half of the vector registers; the others hold what is multiplied.
_PMADDWD = "llvm.x86.avx512.pmaddw.d.512" if VECTOR_WIDTH == 16 else "llvm.x86.avx2.pmadd.wd"
if "avx2" not in _FEATURES:
    _PMADDWD = ""  # LLVM chooses instructions for the plain multiplication.
# The same and the addition in one instruction, which newer processors have.
_VPDPWSSD = f"llvm.x86.avx512.vpdpwssd.{32 * VECTOR_WIDTH}"
if ("avx512vnni" if VECTOR_WIDTH == 16 else "avxvnni") not in _FEATURES:
    _VPDPWSSD = ""
FLOAT, BYTE, SHORT, INT, LONG = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(FLOAT, VECTOR_WIDTH), ir.VectorType(INT, VECTOR_WIDTH)
TILE_ROW_BYTES = 4 * TILE_N  # A row of a tile, which is one word of each output; or the results of one row.


class IRWriter:
    """Appends instructions to a function.

    Args:
        builder: of LLVM.
    """

    def __init__(self, builder: Any):
        self._builder = builder

    def prefetch(self, address: Any) -> None:
        """Bring the cache line at an address into the first-level cache."""
        self.call("llvm.prefetch.p0", ir.VoidType(), self.pointer(address), INT(0), INT(3), INT(1))

    def pointer(self, address: Any, pointee: Any = BYTE) -> Any:
        """An address as a pointer."""
        return self._builder.inttoptr(address, pointee.as_pointer())

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call an intrinsic of LLVM, such as an instruction of the processor."""
        signature = ir.FunctionType(result, [one.type for one in arguments])
        return self._builder.call(cgutils.get_or_insert_function(self._builder.module, signature, name), arguments)

    def load(self, address: Any, value_type: Any) -> Any:
        """The value at an address that is aligned to 4 bytes."""
        value = self._builder.load(self.pointer(address, value_type))
        value.align = 4
        return value

    def store(self, value: Any, address: Any) -> None:
        """Write a value to an address that is aligned to 4 bytes."""
        self._builder.store(value, self.pointer(address, value.type)).align = 4

    def broadcast(self, value: Any, count: int = VECTOR_WIDTH) -> Any:
        """A vector with the value in every lane."""
        undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
        single = self._builder.insert_element(undefined, value, INT(0))
        return self._builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(INT, count), [0] * count))

    def deinterleave(self, one: Any, other: Any = None) -> list[Any]:
        """The even lanes of a vector, or of two after each other, and the odd lanes."""
        count = one.type.count if other is not None else one.type.count // 2
        second = ir.Constant(one.type, ir.Undefined) if other is None else other
        masks = [ir.Constant(ir.VectorType(INT, count), [2 * lane + odd for lane in range(count)]) for odd in range(2)]
        return [self._builder.shuffle_vector(one, second, mask) for mask in masks]


class _Int8Dot(IRWriter):
    """int8 weights, int16 activations, int32 accumulators: nothing is rounded.

    A vector of accumulators has two lanes for each output: one for the first two inputs of each word, and one for the
    last two, as pmaddwd adds up pairs.
    """

    accumulator = INTS
    outputs = VECTOR_WIDTH // 2  # Of a vector of accumulators.
    min_vectors = 2  # Two of them are needed for one vector of results.
    _shorts = ir.VectorType(SHORT, 2 * VECTOR_WIDTH)

    def load_weights(self, address: Any) -> Any:
        """Of one word of each output, as int16."""
        return self._builder.sext(self.load(address, ir.VectorType(BYTE, 2 * VECTOR_WIDTH)), self._shorts)

    def load_activations(self, address: Any) -> Any:
        """The four of one word, for every output."""
        return self._builder.bitcast(self.broadcast(self.load(address, LONG), VECTOR_WIDTH // 2), self._shorts)

    def multiply_add(self, total: Any, weights: Any, activations: Any) -> Any:
        """total + weights * activations."""
        if _VPDPWSSD:
            words = [self._builder.bitcast(one, INTS) for one in (weights, activations)]
            return self.call(_VPDPWSSD, INTS, total, *words)
        if _PMADDWD:
            return self._builder.add(total, self.call(_PMADDWD, INTS, weights, activations))
        for one, other in zip(self.deinterleave(weights), self.deinterleave(activations), strict=True):
            product = self._builder.mul(*(self._builder.sext(half, INTS) for half in (one, other)))
            total = self._builder.add(total, product)
        return total

    def start(self, before: Callable[[int], Any]) -> Callable[[int], Any]:
        """The accumulators begin with 0, as registers for what came before would be missing in the loop."""
        return lambda _vector: ir.Constant(INTS, None)

    def results(self, totals: list[Any], before: Callable[[int], Any], is_last: Any) -> list[Any]:
        """One lane an output: int32 while more is to come, and float32 after the last."""
        results = []
        for index, pair in enumerate(zip(totals[::2], totals[1::2], strict=True)):
            whole = self._builder.add(*self.deinterleave(*pair))
            whole = self._builder.add(whole, self._builder.bitcast(before(index), INTS))
            as_floats = self._builder.sitofp(whole, FLOATS)
            results.append(self._builder.select(is_last, as_floats, self._builder.bitcast(whole, FLOATS)))
        return results


class _Bf16Dot(IRWriter):
    """bfloat16 weights, float32 activations and accumulators. A bfloat16 is the upper half of a float32."""

    accumulator = FLOATS
    outputs = VECTOR_WIDTH
    min_vectors = 1

    def load_weights(self, address: Any) -> Any:
        """The first of one word of each output as float32, and the second."""
        words = self.load(address, INTS)
        upper = self._builder.and_(words, ir.Constant(INTS, [-65536] * VECTOR_WIDTH))
        lower = self._builder.shl(words, ir.Constant(INTS, [16] * VECTOR_WIDTH))
        return [self._builder.bitcast(half, FLOATS) for half in (lower, upper)]

    def load_activations(self, address: Any) -> Any:
        """The first of one word for every output, and the second."""
        addresses = (address, self._builder.add(address, LONG(4)))
        return [self.broadcast(self.load(one, FLOAT)) for one in addresses]

    def multiply_add(self, total: Any, weights: Any, activations: Any) -> Any:
        """total + weights * activations."""
        for weight, activation in zip(weights, activations, strict=True):
            total = self.call(f"llvm.fma.v{VECTOR_WIDTH}f32", FLOATS, weight, activation, total)
        return total

    def start(self, before: Callable[[int], Any]) -> Callable[[int], Any]:
        """The accumulators begin with what came before, so that sums are rounded in the order of the inputs."""
        return before

    def results(self, totals: list[Any], before: Callable[[int], Any], is_last: Any) -> list[Any]:
        """The accumulators as they are."""
        return totals


def _dot_of(rows: int) -> Any:
    """An intrinsic: `rows` rows of activations times some words of one tile, float32 [rows, TILE_N].

    Its arguments:
        weights_like: an array of the weights' type, int8 or uint16 for bfloat16.
        tile, first: addresses of these words in the tile, and of the activations for them in the first row, which is
            int16 for int8 weights, else float32.
        row_bytes: from a row to the next. words: how many, of each output.
        ahead: bytes from a weight to what is prefetched with it.
        out, out_bytes: address of the results, and the bytes from a row of them to the next.
        is_first, is_last: whether these are the first words of the tile, and the last ones. If they are not the first,
            the results of those before are in `out`. Results that are not the last are for the next call only.
    """

    @intrinsic
    def dot(_context, weights_like, tile, first, row_bytes, words, ahead, out, out_bytes, is_first, is_last):
        writer = _Int8Dot if weights_like.dtype.bitwidth == 8 else _Bf16Dot
        signature = types.void(weights_like, *[types.int64] * 7, types.boolean, types.boolean)

        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            _, tile, first, row_bytes, words, ahead, out, out_bytes, is_first, is_last = arguments
            ir_writer = writer(builder)
            # 1) As many outputs as the accumulators hold for these rows; the loop goes over all TILE_N in such strips.
            vectors = max(min(_ACCUMULATORS // rows, TILE_N // ir_writer.outputs), ir_writer.min_vectors)
            strip_bytes = vectors * ir_writer.outputs * 4
            with cgutils.for_range(builder, LONG(TILE_ROW_BYTES // strip_bytes)) as strip:
                left = builder.mul(strip.index, LONG(strip_bytes))
                targets = [
                    builder.add(builder.add(out, left), builder.mul(out_bytes, LONG(row))) for row in range(rows)
                ]
                before = [partial(_load_unless, builder, ir_writer, is_first, target) for target in targets]
                # 2) Accumulate over all words of the strip.
                starts = [ir_writer.start(one) for one in before]
                here = builder.add(tile, left)
                totals = _accumulate(builder, ir_writer, starts, vectors, here, first, row_bytes, words, ahead)
                # 3) Write the results of each row.
                for row, row_totals in enumerate(totals):
                    for index, vector in enumerate(ir_writer.results(row_totals, before[row], is_last)):
                        ir_writer.store(vector, builder.add(targets[row], LONG(index * VECTOR_WIDTH * 4)))
            return context.get_dummy_value()

        return signature, write

    return dot


def _load_unless(builder: Any, writer: IRWriter, is_first: Any, address: Any, index: int) -> Any:
    """Vector `index` of the results at an address; 0 if they are the first."""
    vector = writer.load(builder.add(address, LONG(index * VECTOR_WIDTH * 4)), FLOATS)
    return builder.select(is_first, ir.Constant(FLOATS, None), vector)


def _accumulate(
    builder: Any,
    writer: Any,
    starts: list[Callable[[int], Any]],
    vectors: int,
    tile: Any,
    first: Any,
    row_bytes: Any,
    words: Any,
    ahead: Any,
) -> Any:
    """Write the loop over the words of a strip of a tile; gives the accumulators, [rows][vectors], in registers.

    Args:
        starts: for each row, what gives the value that an accumulator has at first.
    """
    starting = [[start(vector) for vector in range(vectors)] for start in starts]
    begin, loop, body = builder.block, builder.append_basic_block(), builder.append_basic_block()
    end = builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    word = builder.phi(LONG)
    word.add_incoming(LONG(0), begin)
    totals = [[builder.phi(writer.accumulator) for _ in range(vectors)] for _ in starting]
    for row_totals, row_start in zip(totals, starting, strict=True):
        for total, start in zip(row_totals, row_start, strict=True):
            total.add_incoming(start, begin)
    builder.cbranch(builder.icmp_signed("<", word, words), body, end)

    builder.position_at_end(body)
    here = builder.add(tile, builder.mul(word, LONG(TILE_ROW_BYTES)))
    vector_bytes = writer.outputs * 4
    for line in range(max(vectors * vector_bytes // CACHE_LINE, 1)):
        writer.prefetch(builder.add(builder.add(here, ahead), LONG(CACHE_LINE * line)))
    # The weights of a word are loaded once for all rows.
    weights = [writer.load_weights(builder.add(here, LONG(vector * vector_bytes))) for vector in range(vectors)]
    for row, row_totals in enumerate(totals):
        offset = builder.add(builder.mul(row_bytes, LONG(row)), builder.mul(word, LONG(8)))
        activations = writer.load_activations(builder.add(first, offset))
        for weight, total in zip(weights, row_totals, strict=True):
            total.add_incoming(writer.multiply_add(total, weight, activations), body)
    word.add_incoming(builder.add(word, LONG(1)), body)
    builder.branch(loop)
    builder.position_at_end(end)
    return totals


dot_1, dot_2, dot_4, dot_8 = (_dot_of(rows) for rows in (1, 2, 4, 8))


def _unary(result: Any, argument: Any, write: Callable[[Any, Any], Any]) -> Any:
    """An intrinsic of one argument."""

    @intrinsic
    def instruction(_context, _value):
        return result(argument), lambda _context, builder, _signature, arguments: write(builder, arguments[0])

    return instruction


def _sqrt(builder: Any, number: Any) -> Any:
    return IRWriter(builder).call("llvm.sqrt.f32", FLOAT, number)


def _fetch_add(builder: Any, address: Any) -> Any:
    return builder.atomic_rmw("add", builder.inttoptr(address, LONG.as_pointer()), LONG(1), "acq_rel")


def _load_acquire(builder: Any, address: Any) -> Any:
    return builder.load_atomic(builder.inttoptr(address, LONG.as_pointer()), "acquire", 8)


pointer = _unary(types.voidptr, types.int64, lambda builder, address: builder.inttoptr(address, BYTE.as_pointer()))
"""An address as a pointer."""
as_float = _unary(types.float32, types.int32, lambda builder, bits: builder.bitcast(bits, FLOAT))
"""The float32 that has these 32 bits."""
as_bits = _unary(types.int32, types.float32, lambda builder, number: builder.bitcast(number, INT))
"""The 32 bits of a float32."""
sqrt = _unary(types.float32, types.float32, _sqrt)
"""The square root of a number above 0."""
atomic_fetch_add = _unary(types.int64, types.int64, _fetch_add)
"""Add 1 to the int64 at an address and give its old value; what this thread wrote before is visible to those that load
it afterwards (acquire and release)."""
atomic_load_acquire = _unary(types.int64, types.int64, _load_acquire)
"""The int64 at an address; what its writer wrote before is visible to this thread afterwards."""
