"""Dot products by AMX, the matrix unit of some Intel processors: intrinsics written in LLVM IR.

An AMX tile register holds AMX_ROWS rows of 64 bytes. One instruction multiplies a register of activations (rows) with a
register of weights (words of 16 outputs) and adds the products to a register of accumulators. Packed weights are read
as they are.

To keep the precision of activations each is split into hi + lo: two int8 for int8 weights (16 bits), or two bfloat16
for bfloat16 weights (16 bits of mantissa). For int8 each half has accumulators of its own, which are joined at the end.
For bfloat16 both go into the same accumulators, block after block in a fixed order, so a row's result does not depend
on the rows beside it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from chat_app.kernels.bf16_compression import Codebook
from chat_app.kernels.layout import AMX_ROWS, BLOCK_WEIGHTS, CACHE_LINE, MICRO_M, TILE_N
from chat_app.kernels.llvm_dot import (
    BYTE,
    FLOATS,
    INT,
    INTS,
    LONG,
    SHORT,
    TILE_ROW_BYTES,
    VECTOR_WIDTH,
    IRWriter,
)
from chat_app.kernels.numba_internals import cgutils
from chat_app.system.cpu import target_processor

HAS_AMX = target_processor().has_amx
_PARTS = TILE_ROW_BYTES // CACHE_LINE  # A tile's outputs in registers of 16: four.
# Tile registers 0 to 3 accumulate.
_WEIGHTS = (4, 5)  # In turn, so that loading one overlaps with multiplying by the other.
_LO, _HI = 6, 7  # Activations.


def _amx_dot_int8(groups: int) -> Any:
    """An intrinsic: one or two groups of MICRO_M rows times a tile of int8. AMX must be configured for AMX_ROWS rows.

    A block of a group is one cache line of hi halves for each row, and then one of lo halves for each row. A register
    takes both, so the accumulators of the hi halves are in its first MICRO_M rows and those of the lo halves below.

    Its arguments:
        tile, first: addresses of the tile and of the first group. group_bytes: from a group to the next.
        blocks: of a group.
        ahead: bytes from a line of the tile to what is prefetched with it.
        out: address of the results, for each group float32 [2 * MICRO_M, TILE_N], of which MICRO_M rows count.
    """

    @intrinsic
    def dot(_context, tile, first, group_bytes, blocks, ahead, out):
        parts_at_once = _PARTS // groups

        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            tile, first, group_bytes, blocks, ahead, out = arguments
            amx = AmxBuilder(builder)
            # 1) Accumulate all blocks, for as many parts of the outputs as there are registers for all groups.
            for begin in range(0, _PARTS, parts_at_once):
                parts = range(begin, begin + parts_at_once)
                amx.zero_accumulators()
                with cgutils.for_range(builder, blocks) as block:
                    here = builder.add(tile, builder.mul(block.index, LONG(AMX_ROWS * TILE_ROW_BYTES)))
                    amx.prefetch_block(builder.add(here, ahead), parts)
                    rows = builder.add(first, builder.mul(block.index, LONG(AMX_ROWS * CACHE_LINE)))
                    for group in range(groups):
                        amx.load_register(
                            _HI - group, builder.add(rows, builder.mul(group_bytes, LONG(group))), CACHE_LINE
                        )
                    for index, part in enumerate(parts):
                        weights = _WEIGHTS[index % 2]
                        amx.load_register(weights, builder.add(here, LONG(part * CACHE_LINE)), TILE_ROW_BYTES)
                        for group in range(groups):
                            amx.emit("tdpbssd", group * parts_at_once + index, _HI - group, weights)
                for register in range(_PARTS):
                    group, index = divmod(register, parts_at_once)
                    offset = group * AMX_ROWS * TILE_ROW_BYTES + parts[index] * CACHE_LINE
                    amx.store_register(register, builder.add(out, LONG(offset)), LONG(TILE_ROW_BYTES))
            # 2) Join the hi and lo results.
            for group in range(groups):
                with cgutils.for_range(builder, LONG(MICRO_M * TILE_N // VECTOR_WIDTH)) as vector:
                    address = builder.add(out, builder.mul(vector.index, LONG(4 * VECTOR_WIDTH)))
                    amx.join_hi_lo(builder.add(address, LONG(group * AMX_ROWS * TILE_ROW_BYTES)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), write

    return dot


amx_dot_int8, amx_dot_int8_pair = _amx_dot_int8(1), _amx_dot_int8(2)


def _amx_dot_bf16(halves: tuple[int, ...]) -> Any:
    """An intrinsic: as many rows as AMX is configured for times a tile of bfloat16.

    A block of rows is AMX_ROWS cache lines of hi halves, and then, if both halves are used, as many of lo halves.

    Its arguments:
        tile, first: addresses of the tile and of the rows. blocks: of the rows.
        ahead: bytes from a line of the tile to what is prefetched with it.
        out, out_bytes: address of the results, float32 [rows, TILE_N], and the bytes from a row of them to the next.
    """

    @intrinsic
    def dot(_context, tile, first, blocks, ahead, out, out_bytes):
        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            tile, first, blocks, ahead, out, out_bytes = arguments
            amx = AmxBuilder(builder)
            amx.zero_accumulators()
            with cgutils.for_range(builder, blocks) as block:
                here = builder.add(tile, builder.mul(block.index, LONG(AMX_ROWS * TILE_ROW_BYTES)))
                amx.prefetch_block(builder.add(here, ahead), range(_PARTS))
                amx.multiply_add_bf16(first, block.index, here, halves)
            amx.store_accumulators(out, out_bytes)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), write

    return dot


amx_dot_bf16, amx_dot_bf16_rounded = _amx_dot_bf16((_HI, _LO)), _amx_dot_bf16((_HI,))


@intrinsic
def amx_dot_compressed(_context, tile, first, blocks, ahead, out, exponents, outliers_before, outliers, scratch):
    """The same for a tile of compressed bfloat16, with results of TILE_ROW_BYTES from row to row.

    Its further arguments: what `Codebook` takes, and the address of scratch memory for two decompressed blocks.
    """

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        tile, first, blocks, ahead, out, exponents, outliers_before, outliers, scratch = arguments
        amx = AmxBuilder(builder)
        codebook = Codebook(amx, builder, exponents, outliers_before, outliers)

        def scratch_of(block: Any) -> Any:
            return builder.add(scratch, builder.mul(builder.and_(block, LONG(1)), LONG(2 * BLOCK_WEIGHTS)))

        amx.zero_accumulators()
        codebook.decompress(tile, LONG(0), ahead, scratch_of(LONG(0)))
        with cgutils.for_range(builder, blocks) as block:
            # Decompression is one block ahead: AMX then need not wait until the stores of its block can be read.
            following = builder.add(block.index, LONG(1))
            with builder.if_then(builder.icmp_signed("<", following, blocks), likely=True):
                codebook.decompress(tile, following, ahead, scratch_of(following))
            amx.multiply_add_bf16(first, block.index, scratch_of(block.index), (_HI, _LO))
        amx.store_accumulators(out, LONG(TILE_ROW_BYTES))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), write


class _BFloat(ir.Type):
    """bfloat16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"


class AmxBuilder(IRWriter):
    """Appends instructions of AMX. Registers are tile registers, by number."""

    def emit(self, name: str, *arguments: Any) -> None:
        """Append one of them, by LLVM's name."""
        operands = (BYTE(one) if isinstance(one, int) else one for one in arguments)
        self.call(f"llvm.x86.{name}", ir.VoidType(), *operands)

    def load_register(self, register: int, address: Any, stride: int) -> None:
        """Load a register; its rows are `stride` bytes apart."""
        self.emit("tileloadd64", register, self.pointer(address), LONG(stride))

    def store_register(self, register: int, address: Any, stride: Any) -> None:
        """Store a register; its rows go `stride` bytes apart."""
        self.emit("tilestored64", register, self.pointer(address), stride)

    def zero_accumulators(self) -> None:
        """Set all accumulators to 0."""
        for register in range(_PARTS):
            self.emit("tilezero", register)

    def prefetch_block(self, address: Any, parts: range) -> None:
        """Prefetch parts of a block of a tile."""
        for line in range(0, AMX_ROWS * _PARTS, _PARTS):
            for part in parts:
                self.prefetch(self._builder.add(address, LONG(CACHE_LINE * (line + part))))

    def multiply_add_bf16(self, first: Any, block: Any, weights: Any, halves: tuple[int, ...]) -> None:
        """Add the products of halves of activations with a block of weights; `first` is the rows' first block."""
        rows = self._builder.add(first, self._builder.mul(block, LONG(len(halves) * AMX_ROWS * CACHE_LINE)))
        for index, half in enumerate(halves):
            self.load_register(half, self._builder.add(rows, LONG(index * AMX_ROWS * CACHE_LINE)), CACHE_LINE)
        for part in range(_PARTS):
            register = _WEIGHTS[part % 2]
            self.load_register(register, self._builder.add(weights, LONG(part * CACHE_LINE)), TILE_ROW_BYTES)
            for half in halves:
                self.emit("tdpbf16ps", part, half, register)

    def store_accumulators(self, out: Any, stride: Any) -> None:
        """Store all accumulators as results whose rows go `stride` bytes apart."""
        for part in range(_PARTS):
            self.store_register(part, self._builder.add(out, LONG(part * CACHE_LINE)), stride)

    def join_hi_lo(self, hi: Any) -> None:
        """256 * hi + lo of a vector of int32 results, as float32 in the place of hi."""
        lo, builder = self._builder.add(hi, LONG(MICRO_M * TILE_ROW_BYTES)), self._builder
        shifted = builder.shl(self.load(hi, INTS), _all(INTS, 8))
        self.store(builder.sitofp(builder.add(shifted, self.load(lo, INTS)), FLOATS), hi)

    def round_to_bf16(self, numbers: Any) -> tuple[Any, Any]:
        """float32 as bfloat16: its bits, VECTOR_WIDTH of SHORT, and the float32 that they stand for."""
        builder = self._builder
        rounded = self.call("llvm.x86.avx512bf16.cvtneps2bf16.512", ir.VectorType(_BFloat(), VECTOR_WIDTH), numbers)
        bits = builder.bitcast(rounded, ir.VectorType(SHORT, VECTOR_WIDTH))
        return bits, builder.bitcast(builder.shl(builder.zext(bits, INTS), _all(INTS, 16)), FLOATS)


@intrinsic
def split_hi_lo(_context, weights_like, source, factor, hi, lo):
    """Split a row's part of a block into its halves; for int8 weights the activations times a factor are rounded first.

    Its arguments: an array of the weights' type, the address of float32 activations, the factor, and the addresses of
    the cache lines of both halves.
    """
    is_int8 = weights_like.dtype.bitwidth == 8

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        _, source, factor, hi_line, lo_line = arguments
        amx = AmxBuilder(builder)
        size = 1 if is_int8 else 2
        for at in range(0, CACHE_LINE // size, VECTOR_WIDTH):
            numbers = amx.load(builder.add(source, LONG(4 * at)), FLOATS)
            if is_int8:
                scaled = builder.fmul(numbers, amx.broadcast(factor))
                whole = builder.fptosi(amx.call("llvm.rint.v16f32", FLOATS, scaled), INTS)
                hi = builder.ashr(builder.add(whole, _all(INTS, 128)), _all(INTS, 8))
                lo = builder.sub(whole, builder.shl(hi, _all(INTS, 8)))
                hi, lo = (builder.trunc(half, ir.VectorType(BYTE, VECTOR_WIDTH)) for half in (hi, lo))
            else:
                hi, rounded = amx.round_to_bf16(numbers)
                lo, _ = amx.round_to_bf16(builder.fsub(numbers, rounded))
            for half, line in ((hi, hi_line), (lo, lo_line)):
                amx.store(half, builder.add(line, LONG(size * at)))
        return context.get_dummy_value()

    return types.void(weights_like, types.int64, types.float32, types.int64, types.int64), write


@intrinsic
def round_line(_context, source, target):
    """Round as many float32 as fill a cache line to bfloat16. Its arguments: the addresses of both."""

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, target = arguments
        amx = AmxBuilder(builder)
        for at in range(0, CACHE_LINE // 2, VECTOR_WIDTH):
            bits, _ = amx.round_to_bf16(amx.load(builder.add(source, LONG(4 * at)), FLOATS))
            amx.store(bits, builder.add(target, LONG(2 * at)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), write


def _all(vector_type: Any, number: int) -> Any:
    return ir.Constant(vector_type, [number] * VECTOR_WIDTH)


@intrinsic
def configure_amx(_context: Any, rows: Any) -> Any:
    """Configure AMX in this thread for so many rows of bfloat16 activations; for AMX_ROWS also for int8. Without AMX
    nothing happens."""

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if HAS_AMX:
            # Source: Intel's manual, volume 1, 18.2. Byte 0 is the palette; from byte 16 on, the bytes of a row of each
            # register (16 bits each); from byte 48 on, the rows of each register.
            config = bytearray([1, *[0] * 15, *[CACHE_LINE, 0] * 8, *[0] * 16, *[AMX_ROWS] * 8, *[0] * 8])
            stored = cgutils.alloca_once_value(builder, ir.Constant(ir.ArrayType(BYTE, len(config)), config))
            address = builder.bitcast(stored, BYTE.as_pointer())
            for register in (*range(_PARTS), _LO, _HI):
                line = builder.gep(address, [INT(48 + register)])
                builder.store(builder.trunc(arguments[0], BYTE), line)
            AmxBuilder(builder).emit("ldtilecfg", address)
        return context.get_dummy_value()

    return types.void(types.int64), write


@intrinsic
def release_amx(_context: Any) -> Any:
    """Give AMX back, so that the system need not save its registers when it switches threads."""

    def write(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        if HAS_AMX:
            AmxBuilder(builder).emit("tilerelease")
        return context.get_dummy_value()

    return types.void(), write
