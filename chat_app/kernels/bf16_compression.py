"""Weights of 16 bits kept in 12, without loss: reading a fourth less from the memory makes a step that much shorter.

A bfloat16 number's upper byte has its sign and most of its exponent. Nearly all weights of a matrix have one of eight
that follow one another, or of the same with the other sign, so 4 bits tell which: a table turns them back; the rest,
the strays, are named one by one. The lower bytes are kept as they are. Source of the idea: Zhang et al. 2025, "70%
Size, 100% Accuracy" (DFloat11).

A block is WORDS rows of a tile: each has LANES outputs' words of two weights, in four lines of the memory. In 12 bits a
row has three lines: the lower bytes of the weights in the first two, of those in the other two, and the numbers of
both, as lower and upper halves of bytes. Within a line of lower bytes, places 16 * k to 16 * k + 7 belong to the
weights 8 * k to 8 * k + 7 of the one line, the next eight to those of the other: so two instructions put them together.

A stray is an uint32: its place in the block times 65536, plus the whole weight.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from chat_app.kernels.layout import BLOCK, LINE, SHORT_BLOCK, UPPERS, WORDS
from chat_app.kernels.llvm_dot import BYTE, INT, LONG, SHORT, Code
from chat_app.kernels.numba_internals import cgutils

_BYTES = ir.VectorType(BYTE, LINE)
_SHORTS = ir.VectorType(SHORT, LINE // 2)
_LANE = 16  # Bytes that an instruction keeps together.
_CHOICE = ir.VectorType(INT, LINE)
_PLACES = [[lane + half + at for lane in range(0, LINE, _LANE) for at in range(8)] for half in (0, 8)]  # Of a pair.
PAIRS, LINES_OF_A_PAIR = 2, 2  # Of lines, in a row of a tile.


class Key:
    """What turns a tile's weights back, while code is written that does so.

    Args:
        code: writes instructions.
        table: the address of the upper bytes. before: that of the count of strays before the tile's first block.
        strays: that of the matrix's first stray.
    """

    def __init__(self, code: Code, builder: Any, table: Any, before: Any, strays: Any):
        self._code, self._builder = code, builder
        self._table = code.load(table, _BYTES)
        self._before, self._strays = before, strays

    def open(self, tile: Any, number: Any, ahead: Any, target: Any) -> None:
        """Write what turns block `number` of a tile back; the memory is asked for what stands `ahead` bytes later."""
        code, builder = self._code, self._builder
        here = builder.add(tile, builder.mul(number, LONG(SHORT_BLOCK)))
        for row in range(WORDS):
            line = builder.add(here, LONG(row * (PAIRS + 1) * LINE))
            numbers = builder.add(line, LONG(PAIRS * LINE))
            code.ask(builder.add(numbers, ahead))
            both = code.load(numbers, _BYTES)
            for pair in range(PAIRS):
                lower = builder.add(line, LONG(pair * LINE))
                code.ask(builder.add(lower, ahead))
                wholes = self._wholes(code.load(lower, _BYTES), self._uppers(both, pair))
                for at, whole in enumerate(wholes):
                    code.store(whole, builder.add(target, LONG(((row * PAIRS + pair) * LINES_OF_A_PAIR + at) * LINE)))
        self._put_strays(number, target)

    def _uppers(self, numbers: Any, pair: int) -> Any:
        if pair:
            fours = ir.Constant(_SHORTS, [4] * _SHORTS.count)
            numbers = self._builder.bitcast(self._builder.lshr(self._builder.bitcast(numbers, _SHORTS), fours), _BYTES)
        numbers = self._builder.and_(numbers, _all(UPPERS - 1))
        return self._code.call("llvm.x86.avx512.pshuf.b.512", _BYTES, self._table, numbers)

    def _wholes(self, lower: Any, upper: Any) -> list[Any]:
        """Bytes put together, of one line and of the other."""
        masks = [[place + LINE * odd for place in places for odd in range(2)] for places in _PLACES]
        return [self._builder.shuffle_vector(lower, upper, ir.Constant(_CHOICE, mask)) for mask in masks]

    def _put_strays(self, number: Any, target: Any) -> None:
        code, builder = self._code, self._builder
        before = builder.add(self._before, builder.mul(number, LONG(4)))
        begin, end = (builder.zext(code.load(builder.add(before, LONG(4 * at)), INT), LONG) for at in range(2))
        with cgutils.for_range(builder, builder.sub(end, begin)) as stray:
            address = builder.add(self._strays, builder.mul(builder.add(begin, stray.index), LONG(4)))
            both = code.load(address, INT)
            place = builder.zext(builder.lshr(both, INT(16)), LONG)
            where = code.place(builder.add(target, builder.mul(place, LONG(2))), SHORT)
            builder.store(builder.trunc(both, SHORT), where).align = 2


@intrinsic
def open_tile(_context, tile, blocks, table, before, strays, ahead, target):
    """Turn all blocks of a tile back, into a tile of 16 bits.

    Its arguments: addresses of the tile and how many blocks it has, what `Key` takes, how many bytes later is what the
    memory shall bring meanwhile, and where the tile goes.
    """

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        tile, blocks, table, before, strays, ahead, target = arguments
        key = Key(Code(builder), builder, table, before, strays)
        with cgutils.for_range(builder, blocks) as block:
            key.open(tile, block.index, ahead, builder.add(target, builder.mul(block.index, LONG(2 * BLOCK))))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), write


@intrinsic
def close_row(_context, source, target, least):
    """Keep a row of a tile of 16 bits in 12; whether it has strays, which become any others.

    Its arguments: the addresses of both, and the first of the upper bytes without a sign that have numbers: the next
    ones are the others', and as many follow for those with a sign.
    """

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, target, least = arguments
        code = Code(builder)
        of_all = code.spread(builder.trunc(least, BYTE), LINE)
        numbers, strays = [], []
        for pair in range(PAIRS):
            first = pair * LINES_OF_A_PAIR
            lines = [code.load(builder.add(source, LONG((first + at) * LINE)), _SHORTS) for at in range(2)]
            code.store(_joined(builder, lines), builder.add(target, LONG(pair * LINE)))
            eights = ir.Constant(_SHORTS, [8] * _SHORTS.count)
            upper = _joined(builder, [builder.lshr(line, eights) for line in lines])
            number = builder.sub(builder.and_(upper, _all(127)), of_all)
            strays.append(builder.icmp_unsigned(">=", number, _all(UPPERS // 2)))
            sign = builder.shl(builder.lshr(upper, _all(7)), _all(3))
            numbers.append(builder.or_(builder.and_(number, _all(UPPERS // 2 - 1)), sign))
        both = builder.or_(numbers[0], builder.shl(numbers[1], _all(4)))
        code.store(both, builder.add(target, LONG(PAIRS * LINE)))
        any_stray = builder.bitcast(builder.or_(*strays), LONG)
        return builder.icmp_unsigned("!=", any_stray, LONG(0))

    return types.boolean(types.int64, types.int64, types.int64), write


def _joined(builder: Any, lines: list[Any]) -> Any:
    """The lower bytes of two lines, as they lie in one."""
    bytes_of = [builder.trunc(line, ir.VectorType(BYTE, LINE // 2)) for line in lines]
    sources = {place: at + LINE // 2 * line for line, places in enumerate(_PLACES) for at, place in enumerate(places)}
    return builder.shuffle_vector(*bytes_of, ir.Constant(_CHOICE, [sources[place] for place in range(LINE)]))


def _all(number: int) -> Any:
    return ir.Constant(_BYTES, [number] * LINE)
