"""Products with tiles by the matrix unit that some processors have (Intel's AMX).

It multiplies up to 16 rows of 64 bytes with 16 words of 16 outputs at once, and reads tiles as they are.

A row is split in two halves: its numbers' upper ones and their lower ones, 8 bits each for weights of 8 bits, 16 for
bfloat16. So nothing is lost that counts. Whole numbers' halves have sums of their own, which are joined at the end;
those of floating point are added to the same sum, block after block, and so it is the same in any company.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from chat_app.kernels.bf16_compression import Key
from chat_app.kernels.layout import BLOCK, LANES, LINE, MOST_ROWS, WORDS
from chat_app.kernels.llvm_dot import BYTE, FLOATS, INT, INTS, LONG, ROW, SHORT, SPAN, Code
from chat_app.kernels.numba_internals import cgutils
from chat_app.system.cpu import compiled_for

HAS_MATRIX_UNIT = compiled_for().has_matrix_unit
_PARTS = ROW // LINE  # Registers that have as many words of all outputs of a tile as a row has inputs.
# Registers: the first four have sums.
_WEIGHTS = (4, 5)
_LOWER, _UPPER = 6, 7


def _product_of_wholes(groups: int) -> Any:
    """An intrinsic that multiplies one or two groups of MOST_ROWS rows of whole numbers with a tile of 8 bits. The unit
    must be open, with all lines.

    Its arguments: the addresses of the tile and of the first group, the bytes from group to group, how many blocks a
    group has, how many bytes after a tile's line is what the memory shall bring meanwhile, and the address of the
    results, float32 [2 * MOST_ROWS, LANES] for each group, of which the first MOST_ROWS rows are filled. A block is a
    line for each row's upper halves, and then one for each row's lower halves.
    """

    @intrinsic
    def product(_context, tile, first, group_bytes, blocks, ahead, out):
        at_once = _PARTS // groups

        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            tile, first, group_bytes, blocks, ahead, out = arguments
            code = _UnitCode(builder)
            for begin in range(0, _PARTS, at_once):
                parts = range(begin, begin + at_once)
                code.clear()
                with cgutils.for_range(builder, blocks) as block:
                    here = builder.add(tile, builder.mul(block.index, LONG(WORDS * ROW)))
                    code.ask_for_block(builder.add(here, ahead), parts)
                    rows = builder.add(first, builder.mul(block.index, LONG(WORDS * LINE)))
                    for group in range(groups):
                        code.bring(_UPPER - group, builder.add(rows, builder.mul(group_bytes, LONG(group))), LINE)
                    for at, part in enumerate(parts):
                        weights = _WEIGHTS[at % 2]
                        code.bring(weights, builder.add(here, LONG(part * LINE)), ROW)
                        for group in range(groups):
                            code.unit("tdpbssd", group * at_once + at, _UPPER - group, weights)
                for register in range(_PARTS):
                    group, at = divmod(register, at_once)
                    code.give(register, builder.add(out, LONG(group * WORDS * ROW + parts[at] * LINE)), LONG(ROW))
            for group in range(groups):
                with cgutils.for_range(builder, LONG(MOST_ROWS * LANES // SPAN)) as vector:
                    place = builder.add(out, builder.mul(vector.index, LONG(4 * SPAN)))
                    code.join(builder.add(place, LONG(group * WORDS * ROW)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), write

    return product


product_of_wholes, product_of_wholes_twice = _product_of_wholes(1), _product_of_wholes(2)


def _product_of_floats(halves: tuple[int, ...]) -> Any:
    """An intrinsic that multiplies as many rows as the unit is open for with a tile of bfloat16.

    Its arguments: the addresses of the tile and of the rows, how many blocks they have, how many bytes after a tile's
    line is what the memory shall bring meanwhile, the address of the results, float32 [rows, LANES], and the bytes from
    row to row of those. A block is WORDS lines for the rows' upper halves, and then, with both, as many for the lower.
    """

    @intrinsic
    def product(_context, tile, first, blocks, ahead, out, out_bytes):
        def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            tile, first, blocks, ahead, out, out_bytes = arguments
            code = _UnitCode(builder)
            code.clear()
            with cgutils.for_range(builder, blocks) as block:
                here = builder.add(tile, builder.mul(block.index, LONG(WORDS * ROW)))
                code.ask_for_block(builder.add(here, ahead), range(_PARTS))
                code.multiply_floats(first, block.index, here, halves)
            code.give_floats(out, out_bytes)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), write

    return product


product_of_halves, product_of_rounded = _product_of_floats((_UPPER, _LOWER)), _product_of_floats((_UPPER,))


@intrinsic
def product_of_shorts(_context, tile, first, blocks, ahead, out, table, before, strays, room):
    """The same with a tile of 16 bits in 12; the results lie together.

    Its further arguments: addresses as `short_weights.Key` takes them, and that of room for two blocks of 16 bits.
    """

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        tile, first, blocks, ahead, out, table, before, strays, room = arguments
        code = _UnitCode(builder)
        key = Key(code, builder, table, before, strays)

        def room_of(block: Any) -> Any:
            return builder.add(room, builder.mul(builder.and_(block, LONG(1)), LONG(2 * BLOCK)))

        code.clear()
        key.open(tile, LONG(0), ahead, room_of(LONG(0)))
        with cgutils.for_range(builder, blocks) as block:
            # One block ahead: the unit does not wait until what was written can be read.
            following = builder.add(block.index, LONG(1))
            with builder.if_then(builder.icmp_signed("<", following, blocks), likely=True):
                key.open(tile, following, ahead, room_of(following))
            code.multiply_floats(first, block.index, room_of(block.index), (_UPPER, _LOWER))
        code.give_floats(out, LONG(ROW))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), write


class _BFloat(ir.Type):
    """bfloat16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"


class _UnitCode(Code):
    """Writes instructions of the unit."""

    def unit(self, name: str, *arguments: Any) -> None:
        """One of them; registers are numbers."""
        self.call(f"llvm.x86.{name}", ir.VoidType(), *(BYTE(one) if isinstance(one, int) else one for one in arguments))

    def bring(self, register: int, address: Any, step: int) -> None:
        """Fill a register; the next line comes so many bytes later."""
        self.unit("tileloadd64", register, self.place(address), LONG(step))

    def give(self, register: int, address: Any, step: Any) -> None:
        """Put sums into a part of the results; the next line goes so many bytes later."""
        self.unit("tilestored64", register, self.place(address), step)

    def clear(self) -> None:
        """All sums are 0."""
        for register in range(_PARTS):
            self.unit("tilezero", register)

    def ask_for_block(self, address: Any, parts: range) -> None:
        """Let the memory bring parts of a block of a tile."""
        for line in range(0, WORDS * _PARTS, _PARTS):
            for part in parts:
                self.ask(self._builder.add(address, LONG(LINE * (line + part))))

    def multiply_floats(self, first: Any, block: Any, weights: Any, halves: tuple[int, ...]) -> None:
        """Add what halves of rows give with a block of weights; `first` is where the rows' first block is."""
        rows = self._builder.add(first, self._builder.mul(block, LONG(len(halves) * WORDS * LINE)))
        for at, half in enumerate(halves):
            self.bring(half, self._builder.add(rows, LONG(at * WORDS * LINE)), LINE)
        for part in range(_PARTS):
            register = _WEIGHTS[part % 2]
            self.bring(register, self._builder.add(weights, LONG(part * LINE)), ROW)
            for half in halves:
                self.unit("tdpbf16ps", part, half, register)

    def give_floats(self, out: Any, step: Any) -> None:
        """Put all sums where the results go; the next row goes so many bytes later."""
        for part in range(_PARTS):
            self.give(part, self._builder.add(out, LONG(part * LINE)), step)

    def join(self, upper: Any) -> None:
        """Add up what the two halves of whole numbers gave, as float32."""
        lower, builder = self._builder.add(upper, LONG(MOST_ROWS * ROW)), self._builder
        shifted = builder.shl(self.load(upper, INTS), _all(INTS, 8))
        self.store(builder.sitofp(builder.add(shifted, self.load(lower, INTS)), FLOATS), upper)

    def rounded(self, number: Any) -> tuple[Any, Any]:
        """float32 as bfloat16: their bits, SPAN of SHORT, and the float32 they stand for."""
        builder = self._builder
        halves = self.call("llvm.x86.avx512bf16.cvtneps2bf16.512", ir.VectorType(_BFloat(), SPAN), number)
        bits = builder.bitcast(halves, ir.VectorType(SHORT, SPAN))
        return bits, builder.bitcast(builder.shl(builder.zext(bits, INTS), _all(INTS, 16)), FLOATS)


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
        size = 1 if is_whole else 2
        for at in range(0, LINE // size, SPAN):
            number = code.load(builder.add(source, LONG(4 * at)), FLOATS)
            if is_whole:
                number = code.call("llvm.rint.v16f32", FLOATS, builder.fmul(number, code.spread(factor)))
                whole = builder.fptosi(number, INTS)
                high = builder.ashr(builder.add(whole, _all(INTS, 128)), _all(INTS, 8))
                low = builder.sub(whole, builder.shl(high, _all(INTS, 8)))
                high, low = (builder.trunc(half, ir.VectorType(BYTE, SPAN)) for half in (high, low))
            else:
                high, rough = code.rounded(number)
                low, _ = code.rounded(builder.fsub(number, rough))
            for value, line in ((high, upper), (low, lower)):
                code.store(value, builder.add(line, LONG(size * at)))
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.float32, types.int64, types.int64), write


@intrinsic
def rounded_line(_context, source, target):
    """As many numbers as fit a line, as bfloat16. Its arguments: the addresses of float32 numbers and of the line."""

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, target = arguments
        code = _UnitCode(builder)
        for at in range(0, LINE // 2, SPAN):
            bits, _ = code.rounded(code.load(builder.add(source, LONG(4 * at)), FLOATS))
            code.store(bits, builder.add(target, LONG(2 * at)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), write


def _all(kind: Any, number: int) -> Any:
    return ir.Constant(kind, [number] * SPAN)


@intrinsic
def open_matrix_unit(_context: Any, lines: Any) -> Any:
    """Give this thread the matrix unit, if there is one, for so many rows of floating point; with WORDS for whole
    numbers too."""

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if HAS_MATRIX_UNIT:
            # Source: Intel's manual, volume 1, 18.2: the palette; from byte 16 on the bytes of a register's lines (16
            # bits each); from byte 48 on how many lines it has.
            shape = bytearray([1, *[0] * 15, *[LINE, 0] * 8, *[0] * 16, *[WORDS] * 8, *[0] * 8])
            stored = cgutils.alloca_once_value(builder, ir.Constant(ir.ArrayType(BYTE, len(shape)), shape))
            place = builder.bitcast(stored, BYTE.as_pointer())
            for register in (*range(_PARTS), _LOWER, _UPPER):
                line = builder.gep(place, [INT(48 + register)])
                builder.store(builder.trunc(arguments[0], BYTE), line)
            _UnitCode(builder).unit("ldtilecfg", place)
        return context.get_dummy_value()

    return types.void(types.int64), write


@intrinsic
def close_matrix_unit(_context: Any) -> Any:
    """Give it back."""

    def write(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        if HAS_MATRIX_UNIT:
            _UnitCode(builder).unit("tilerelease")
        return context.get_dummy_value()

    return types.void(), write
