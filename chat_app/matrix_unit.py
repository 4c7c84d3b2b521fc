"""Products with tiles by the matrix unit that some processors have (Intel's AMX).

It multiplies 16 rows of 64 bytes with 16 words of 16 outputs at once, and reads tiles as they are.

A row takes two of the unit's: its numbers' upper halves and their lower ones, 8 bits each for weights of 8 bits, 16 for
bfloat16. So nothing is lost that counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from chat_app.processor import compiled_for
from chat_app.short_weights import LINES_OF_A_PAIR, Key
from chat_app.tile_products import BYTE, FLOATS, INTS, LONG, ROW, SHORT, SPAN, Code
from chat_app.tile_shape import BLOCK, LANES, LINE, MOST_ROWS

HAS_MATRIX_UNIT = compiled_for().has_matrix_unit
_LINES = 2 * MOST_ROWS  # Of a register.
_PARTS = ROW // LINE  # Registers that have as many words of all outputs of a tile as a row has inputs.


def _product_of(groups: int) -> Any:
    """An intrinsic that multiplies one or two groups of MOST_ROWS rows with a tile. The unit must be open.

    Its arguments: an array of the weights' type, the addresses of the tile and of the first group, the bytes from group
    to group, how many blocks a group has, how many bytes after a tile's line is what the memory shall bring meanwhile,
    and the address of the results, float32 [2 * MOST_ROWS, LANES] for each group, of which the first MOST_ROWS rows are
    filled. A block is a line for each row's upper halves, and then one for each row's lower halves.
    """

    @intrinsic
    def product(_context, kind, tile, first, group_bytes, blocks, ahead, out):
        is_whole = kind.dtype.bitwidth == 8

        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            _, tile, first, group_bytes, blocks, ahead, out = arguments
            code = _UnitCode(builder)
            rows = _Rows(groups, first, group_bytes, is_whole)
            for parts in rows.turns:
                code.clear()
                with cgutils.for_range(builder, blocks) as block:
                    here = builder.add(tile, builder.mul(block.index, LONG(_LINES * ROW)))
                    later = builder.add(here, ahead)
                    for line in range(0, _LINES * _PARTS, _PARTS):
                        for part in parts:
                            code.ask(builder.add(later, LONG(LINE * (line + part))))
                    code.multiply(rows, block.index, here, parts)
                code.give(rows, parts, out)
            code.join_all(rows, out)
            return context.get_dummy_value()

        return types.void(kind, *[types.int64] * 6), write

    return product


def _short_product_of(groups: int) -> Any:
    """The same for weights of 16 bits in 12.

    Its arguments: the addresses of the tile and of the first group, the bytes from group to group, how many blocks a
    group has, how many bytes after a tile's line is what the memory shall bring meanwhile, the address of the results,
    addresses as `short_weights.Key` takes them, and that of room for two blocks of 16 bits.
    """

    @intrinsic
    def product(_context, tile, first, group_bytes, blocks, ahead, out, table, before, strays, room):
        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            tile, first, group_bytes, blocks, ahead, out, table, before, strays, room = arguments
            code = _UnitCode(builder)
            key = Key(code, builder, table, before, strays)
            rows = _Rows(groups, first, group_bytes, False)

            def room_of(block: Any) -> Any:
                return builder.add(room, builder.mul(builder.and_(block, LONG(1)), LONG(2 * BLOCK)))

            for parts in rows.turns:
                pairs = range(parts.start // LINES_OF_A_PAIR, parts.stop // LINES_OF_A_PAIR)
                code.clear()
                key.open(tile, LONG(0), ahead, room_of(LONG(0)), pairs)
                with cgutils.for_range(builder, blocks) as block:
                    # One block ahead: the unit does not wait until what was written can be read.
                    following = builder.add(block.index, LONG(1))
                    with builder.if_then(builder.icmp_signed("<", following, blocks), likely=True):
                        key.open(tile, following, ahead, room_of(following), pairs)
                    code.multiply(rows, block.index, room_of(block.index), parts)
                code.give(rows, parts, out)
            code.join_all(rows, out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), write

    return product


class _Rows(NamedTuple):
    """What is multiplied with a tile.

    Attributes:
        groups: one or two of MOST_ROWS rows.
        first: the address of the first. step: bytes from one to the next.
        is_whole: whether they are whole numbers.
    """

    groups: int
    first: Any
    step: Any
    is_whole: bool

    @property
    def turns(self) -> list[range]:
        """The parts of a tile that are multiplied at once: their sums are in the first four registers."""
        at_once = _PARTS // self.groups
        return [range(begin, begin + at_once) for begin in range(0, _PARTS, at_once)]


class _UnitCode(Code):
    """Writes instructions of the unit."""

    def unit(self, name: str, *arguments: Any) -> None:
        """One of them; registers are numbers."""
        self.call(f"llvm.x86.{name}", ir.VoidType(), *(BYTE(one) if isinstance(one, int) else one for one in arguments))

    def clear(self) -> None:
        """All sums are 0."""
        for register in range(_PARTS):
            self.unit("tilezero", register)

    def multiply(self, rows: _Rows, block: Any, weights: Any, parts: range) -> None:
        """Add what rows and parts of a block of weights give."""
        builder = self._builder
        first = builder.add(rows.first, builder.mul(block, LONG(_LINES * LINE)))
        for group in range(rows.groups):
            place = builder.add(first, builder.mul(rows.step, LONG(group)))
            self.unit("tileloadd64", 7 - group, self.place(place), LONG(LINE))
        for at, part in enumerate(parts):
            register = _PARTS + at % (4 - rows.groups)
            self.unit("tileloadd64", register, self.place(builder.add(weights, LONG(part * LINE))), LONG(ROW))
            for group in range(rows.groups):
                name = "tdpbssd" if rows.is_whole else "tdpbf16ps"
                self.unit(name, group * len(parts) + at, 7 - group, register)

    def give(self, rows: _Rows, parts: range, out: Any) -> None:
        """Put the sums where the results go."""
        for register in range(_PARTS):
            group, at = divmod(register, len(parts))
            place = self._builder.add(out, LONG(group * _LINES * ROW + parts[at] * LINE))
            self.unit("tilestored64", register, self.place(place), LONG(ROW))

    def join_all(self, rows: _Rows, out: Any) -> None:
        """Add up the halves of all results."""
        for group in range(rows.groups):
            with cgutils.for_range(self._builder, LONG(MOST_ROWS * LANES // SPAN)) as vector:
                place = self._builder.add(out, self._builder.mul(vector.index, LONG(4 * SPAN)))
                self.join(self._builder.add(place, LONG(group * _LINES * ROW)), rows.is_whole)

    def join(self, upper: Any, is_whole: bool) -> None:
        """Add up what the two halves of numbers gave, as float32."""
        lower, builder = self._builder.add(upper, LONG(MOST_ROWS * ROW)), self._builder
        if is_whole:
            shifted = builder.shl(self.load(upper, INTS), _all(INTS, 8))
            total = builder.sitofp(builder.add(shifted, self.load(lower, INTS)), FLOATS)
        else:
            total = builder.fadd(self.load(upper, FLOATS), self.load(lower, FLOATS))
        self.store(total, upper)

    def rounded(self, number: Any) -> Any:
        """float32 as bfloat16: INTS of which the lower halves count, and the float32 they stand for."""
        builder, sixteen = self._builder, _all(INTS, 16)
        bits = builder.bitcast(number, INTS)
        odd = builder.and_(builder.lshr(bits, sixteen), _all(INTS, 1))
        upper = builder.lshr(builder.add(builder.add(bits, _all(INTS, 0x7FFF)), odd), sixteen)
        return upper, builder.bitcast(builder.shl(upper, sixteen), FLOATS)


product_in_blocks, product_in_blocks_twice = _product_of(1), _product_of(2)
short_product_in_blocks, short_product_in_blocks_twice = _short_product_of(1), _short_product_of(2)


@intrinsic
def split(_context, kind, source, factor, upper, lower):
    """A row's part of a block: the halves of numbers, times a factor and rounded where they have to be whole.

    Its arguments: an array of the weights' type, the address of float32 numbers, the factor, and the addresses of the
    lines for both halves.
    """
    is_whole = kind.dtype.bitwidth == 8

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        _, source, factor, upper, lower = arguments
        code = _UnitCode(builder)
        half, size = (BYTE, 1) if is_whole else (SHORT, 2)
        for at in range(0, LINE // size, SPAN):
            number = code.load(builder.add(source, LONG(4 * at)), FLOATS)
            if is_whole:
                number = code.call("llvm.rint.v16f32", FLOATS, builder.fmul(number, code.spread(factor)))
                whole = builder.fptosi(number, INTS)
                high = builder.ashr(builder.add(whole, _all(INTS, 128)), _all(INTS, 8))
                low = builder.sub(whole, builder.shl(high, _all(INTS, 8)))
            else:
                high, rough = code.rounded(number)
                low, _ = code.rounded(builder.fsub(number, rough))
            for value, line in ((high, upper), (low, lower)):
                code.store(builder.trunc(value, ir.VectorType(half, SPAN)), builder.add(line, LONG(size * at)))
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.float32, types.int64, types.int64), write


def _all(kind: Any, number: int) -> Any:
    return ir.Constant(kind, [number] * SPAN)


@intrinsic
def open_matrix_unit(_context: Any) -> Any:
    """Give this thread the matrix unit, if there is one, with all registers at their full size."""

    def write(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        if HAS_MATRIX_UNIT:
            # Source: Intel's manual, volume 1, 18.2: the palette; from byte 16 on the bytes of a register's lines (16
            # bits each); from byte 48 on how many lines it has.
            shape = bytearray([1, *[0] * 15, *[LINE, 0] * 8, *[0] * 16, *[_LINES] * 8, *[0] * 8])
            stored = cgutils.alloca_once_value(builder, ir.Constant(ir.ArrayType(BYTE, len(shape)), shape))
            _UnitCode(builder).unit("ldtilecfg", builder.bitcast(stored, BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(), write


@intrinsic
def close_matrix_unit(_context: Any) -> Any:
    """Give it back."""

    def write(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        if HAS_MATRIX_UNIT:
            _UnitCode(builder).unit("tilerelease")
        return context.get_dummy_value()

    return types.void(), write
