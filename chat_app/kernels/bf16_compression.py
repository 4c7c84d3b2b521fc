"""bf16 compression: weights of 16 bits in 12 without loss, so that a step reads a fourth less from memory.

The upper byte of a bfloat16 has its sign and 7 of its 8 exponent bits. In nearly all weights of a matrix those 7 have
one of eight neighbouring values, so 4 bits choose the byte from a codebook of 16. The few others, the outliers, are
listed one by one. Lower bytes are kept. Source of the idea: Zhang et al. 2025, "70% Size, 100% Accuracy" (DFloat11).

A row of a tile is TILE_N words of two weights: w0 ... w127 in four cache lines. After compression it has three, in two
pairs of source lines. A pair of lines has the lower bytes of 64 weights; a 16-byte lane of it takes 8 weights of each:

    source     | line 0: w0 ... w31    | line 1: w32 ... w63   | line 2: w64 ... w95   | line 3: w96 ... w127  |

    pair 0     | w0-w7 | w32-w39 | w8-w15 | w40-w47 | w16-w23 | w48-w55 | w24-w31 | w56-w63 |   lower bytes
                <---- lane 0 ---> <----- lane 1 ---> <----- lane 2 ----> <----- lane 3 ---->
    pair 1     | w64-w71 | w96-w103 | w72-w79 | ...                               | w120-w127 |   lower bytes
    codes      | byte i: bits 0-3 are the code of byte i of pair 0, bits 4-7 of byte i of pair 1 |

    code       | bit 3: sign | bits 2-0: exponent byte - the least exponent byte of the codebook |

In that order an unpack instruction, which works within 16-byte lanes, joins lower and upper bytes of a whole line at
once. A block is AMX_ROWS such rows. An outlier is a uint32: its position in the block times 65536, plus the weight.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from chat_app.kernels.layout import AMX_ROWS, BLOCK_BYTES, BLOCK_WEIGHTS, CACHE_LINE, CODEBOOK_SIZE
from chat_app.kernels.llvm_dot import BYTE, INT, LONG, SHORT, IRWriter
from chat_app.kernels.numba_internals import cgutils

_BYTES = ir.VectorType(BYTE, CACHE_LINE)
_SHORTS = ir.VectorType(SHORT, CACHE_LINE // 2)
_LANE = 16  # Bytes that an unpack instruction keeps together.
_SHUFFLE = ir.VectorType(INT, CACHE_LINE)
# Where the lower bytes of the first line of a pair are after compression, and those of the second.
_POSITIONS = [
    [lane + half + index for lane in range(0, CACHE_LINE, _LANE) for index in range(_LANE // 2)]
    for half in (0, _LANE // 2)
]
PAIRS, LINES_PER_PAIR = 2, 2  # Of cache lines, in a row of a tile.


class Codebook:
    """Writes the instructions that decompress the blocks of a tile.

    Args:
        writer: appends instructions.
        exponents: address of the sign/exponent bytes, CODEBOOK_BYTES.
        outliers_before: address of how many outliers come before each block of the tile, int32, and of one number more.
        outliers: address of the first outlier of the matrix.
    """

    def __init__(self, writer: IRWriter, builder: Any, exponents: Any, outliers_before: Any, outliers: Any):
        self._writer, self._builder = writer, builder
        self._exponents = writer.load(exponents, _BYTES)
        self._outliers_before, self._outliers = outliers_before, outliers

    def decompress(self, tile: Any, block: Any, ahead: Any, target: Any) -> None:
        """Write what decompresses a block; each line that is read prefetches the one `ahead` bytes later."""
        writer, builder = self._writer, self._builder
        here = builder.add(tile, builder.mul(block, LONG(BLOCK_BYTES)))
        for row in range(AMX_ROWS):
            line = builder.add(here, LONG(row * (PAIRS + 1) * CACHE_LINE))
            codes_line = builder.add(line, LONG(PAIRS * CACHE_LINE))
            writer.prefetch(builder.add(codes_line, ahead))
            codes = writer.load(codes_line, _BYTES)
            for pair in range(PAIRS):
                lower_line = builder.add(line, LONG(pair * CACHE_LINE))
                writer.prefetch(builder.add(lower_line, ahead))
                lines = self._join(writer.load(lower_line, _BYTES), self._upper_bytes(codes, pair))
                for index, weights in enumerate(lines):
                    offset = ((row * PAIRS + pair) * LINES_PER_PAIR + index) * CACHE_LINE
                    writer.store(weights, builder.add(target, LONG(offset)))
        self._write_outliers(block, target)

    def _upper_bytes(self, codes: Any, pair: int) -> Any:
        """Look the codes of a pair up in the codebook."""
        if pair:
            fours = ir.Constant(_SHORTS, [4] * _SHORTS.count)
            codes = self._builder.bitcast(self._builder.lshr(self._builder.bitcast(codes, _SHORTS), fours), _BYTES)
        codes = self._builder.and_(codes, _all(CODEBOOK_SIZE - 1))
        return self._writer.call("llvm.x86.avx512.pshuf.b.512", _BYTES, self._exponents, codes)

    def _join(self, lower: Any, upper: Any) -> list[Any]:
        """Lower and upper bytes as weights: the first line of the pair, and the second."""
        masks = [[at + CACHE_LINE * odd for at in positions for odd in range(2)] for positions in _POSITIONS]
        return [self._builder.shuffle_vector(lower, upper, ir.Constant(_SHUFFLE, mask)) for mask in masks]

    def _write_outliers(self, block: Any, target: Any) -> None:
        """Overwrite the weights of a block that no code stands for."""
        writer, builder = self._writer, self._builder
        before = builder.add(self._outliers_before, builder.mul(block, LONG(4)))
        begin, end = (builder.zext(writer.load(builder.add(before, LONG(4 * at)), INT), LONG) for at in range(2))
        with cgutils.for_range(builder, builder.sub(end, begin)) as outlier:
            address = builder.add(self._outliers, builder.mul(builder.add(begin, outlier.index), LONG(4)))
            both = writer.load(address, INT)
            position = builder.zext(builder.lshr(both, INT(16)), LONG)
            weight = writer.pointer(builder.add(target, builder.mul(position, LONG(2))), SHORT)
            builder.store(builder.trunc(both, SHORT), weight).align = 2


@intrinsic
def decompress_tile(_context, tile, blocks, exponents, outliers_before, outliers, ahead, target):
    """Decompress all blocks of a tile.

    Its arguments: the tile's address and number of blocks, what `Codebook` takes, how many bytes ahead to prefetch, and
    the address of the tile of 16 bits that is written.
    """

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        tile, blocks, exponents, outliers_before, outliers, ahead, target = arguments
        codebook = Codebook(IRWriter(builder), builder, exponents, outliers_before, outliers)
        with cgutils.for_range(builder, blocks) as block:
            to = builder.add(target, builder.mul(block.index, LONG(2 * BLOCK_WEIGHTS)))
            codebook.decompress(tile, block.index, ahead, to)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), write


@intrinsic
def compress_row(_context, source, target, least):
    """Compress a row of a tile. Gives whether it has outliers, whose codes mean nothing.

    Its arguments: the addresses of both rows, and the least exponent byte of the codebook.
    """

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, target, least = arguments
        writer = IRWriter(builder)
        least_bytes = writer.broadcast(builder.trunc(least, BYTE), CACHE_LINE)
        codes, outliers = [], []
        for pair in range(PAIRS):
            # 1) The lower bytes of both lines of the pair, in the order of the picture above.
            first = pair * LINES_PER_PAIR
            lines = [writer.load(builder.add(source, LONG((first + at) * CACHE_LINE)), _SHORTS) for at in range(2)]
            writer.store(_interleave_lower_bytes(builder, lines), builder.add(target, LONG(pair * CACHE_LINE)))
            # 2) The codes of their upper bytes, and which bytes have none.
            eights = ir.Constant(_SHORTS, [8] * _SHORTS.count)
            upper = _interleave_lower_bytes(builder, [builder.lshr(line, eights) for line in lines])
            code = builder.sub(builder.and_(upper, _all(127)), least_bytes)
            outliers.append(builder.icmp_unsigned(">=", code, _all(CODEBOOK_SIZE // 2)))
            sign = builder.shl(builder.lshr(upper, _all(7)), _all(3))
            codes.append(builder.or_(builder.and_(code, _all(CODEBOOK_SIZE // 2 - 1)), sign))
        # 3) The codes of both pairs in one line.
        both = builder.or_(codes[0], builder.shl(codes[1], _all(4)))
        writer.store(both, builder.add(target, LONG(PAIRS * CACHE_LINE)))
        any_outlier = builder.bitcast(builder.or_(*outliers), LONG)
        return builder.icmp_unsigned("!=", any_outlier, LONG(0))

    return types.boolean(types.int64, types.int64, types.int64), write


def _interleave_lower_bytes(builder: Any, lines: list[Any]) -> Any:
    """The lower bytes of two lines in one."""
    halves = [builder.trunc(line, ir.VectorType(BYTE, CACHE_LINE // 2)) for line in lines]
    sources = {
        position: index + CACHE_LINE // 2 * line
        for line, positions in enumerate(_POSITIONS)
        for index, position in enumerate(positions)
    }
    return builder.shuffle_vector(*halves, ir.Constant(_SHUFFLE, [sources[at] for at in range(CACHE_LINE)]))


def _all(number: int) -> Any:
    return ir.Constant(_BYTES, [number] * CACHE_LINE)
