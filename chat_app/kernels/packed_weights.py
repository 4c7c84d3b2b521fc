"""Packed weights: a model's matrices in the layout that the kernels read, products with them, and the decode step.

This module is the door of the package: other packages import from here, and constants from `layout`.

Where many rows are multiplied at once a matrix is unpacked and multiplied by torch, which is the fastest there unless
the processor has AMX. Torch also does all work while there is no compiled kernel. Knows matrices, but no sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chat_app.kernels.arrays import KernelArrayError, checked_address
from chat_app.kernels.buffers import as_buffer, buffer_tensor, buffer_zeros, huge_page_array, huge_page_zeros
from chat_app.kernels.compilation import CompiledKernel, get_kernel
from chat_app.kernels.kernel_args import (
    KV_SLOT,
    MATMUL,
    MATMUL_ARGS,
    MATRIX,
    PACK,
    PACK_ARGS,
    STEP,
    STEP_ARGS,
    UNPACK,
    UNPACK_ARGS,
)
from chat_app.kernels.layout import (
    ACTIVATIONS,
    BLOCK_WEIGHTS,
    CODEBOOK_BYTES,
    CODEBOOK_SIZE,
    PREFETCH_BYTES,
    TILE_K,
    TILE_N,
    packed_size,
    round_up,
)
from chat_app.kernels.mode import kernels_are_on, memory_is_guarded
from chat_app.kernels.quantization import MAX_OUTLIER_SHARE, bf16_bits, common_exponents, quantize_per_channel
from chat_app.kernels.thread_team import ThreadTeam
from chat_app.kernels.workspace import workspace_layout
from chat_app.system.cpu import bfloat16_is_fast, target_processor

__all__ = [
    "KV_SLOT",
    "CompiledKernel",
    "DecodeStep",
    "KernelArrayError",
    "PackedLinear",
    "PackedWeights",
    "checked_address",
    "get_kernel",
    "huge_page_zeros",
    "kernels_are_on",
    "max_kernel_rows",
]

_MAX_KERNEL_ROWS, _MAX_KERNEL_ROWS_WITH_AMX = 96, 4096
_WEIGHTS_PER_OUTLIER = 16  # The room for outliers while a tile is packed.
_OUTPUTS_AT_ONCE = 16 * TILE_N  # That torch packs: what lies between then fits into the processor's cache.
_ARGS = {STEP: STEP_ARGS, MATMUL: MATMUL_ARGS, UNPACK: UNPACK_ARGS, PACK: PACK_ARGS}


class PackedWeights:
    """The packed matrices of a model, in one block of memory.

    Args:
        sizes: outputs and inputs of each matrix; inputs are even.
        eight_bits: int8 with a scale for each output; else bfloat16, compressed to 12 bits where the processor has AMX
            and the weights allow it.
        kernel: where the compiled kernel will be; default `get_kernel`.
    """

    def __init__(
        self, sizes: Sequence[tuple[int, int]], eight_bits: bool, kernel: Future[CompiledKernel] | None = None
    ):
        self._future = kernel or get_kernel(eight_bits)
        self.sizes, self._eight_bits = tuple(sizes), eight_bits
        dtype = np.int8 if eight_bits else np.uint16
        most = sum(packed_size(*size) for size in sizes) + (0 if memory_is_guarded() else 2 * PREFETCH_BYTES)
        self._tiles = huge_page_array(most, dtype)
        self._used = 0  # Weights, from the first on; the memory after them has never been written to.
        self._word = 4 if eight_bits else 2  # Weights in 32 bits.
        self._floats: list[Tensor] = []
        self._n_floats = 0
        self._matrices = buffer_zeros(len(sizes), MATRIX)
        self._tiles_address = checked_address(self._tiles, dtype, most, line=True)
        self._matrices_address = checked_address(self._matrices, MATRIX, len(sizes))
        self._codebooks: dict[int, Any] = {}  # By matrix; the memory that MATRIX.codebook is the address of.
        self._unpacked = torch.empty(0, dtype=torch.bfloat16, device="cpu")
        self._unpacked_for_good: dict[int, Tensor] = {}
        self._team = ThreadTeam()

    @property
    def kernel(self) -> CompiledKernel | None:
        """The compiled kernel, or None while there is none."""
        return self._future.result() if self._future.done() and self._future.exception() is None else None

    @property
    def memory_bytes(self) -> int:
        """Bytes of the tiles, codebooks, scales, biases and norms."""
        codebooks = sum(one.nbytes for one in self._codebooks.values())
        return (self._used + 2 * PREFETCH_BYTES) * int(self._tiles.itemsize) + int(codebooks) + 4 * self._n_floats

    @property
    def are_finite(self) -> bool:
        """Whether all scales, biases and norms are finite. int8 cannot hold a NaN, but its scale does."""
        return bool(torch.isfinite(self._all_floats).all())

    def pack(self, number: int, weight: Tensor, bias: Tensor | None) -> None:
        """Pack matrix `number`, [in, out]; each once."""
        (n_out, n_in), kernel = self.sizes[number], self.kernel
        scales = buffer_tensor(n_out, dtype=torch.float32)
        self._matrices[number] = (self._used, n_in, n_out, 0, 0)
        if kernel is not None:
            source = as_buffer(weight.detach().float())
            args = buffer_zeros(1, PACK_ARGS)
            args["matrix"] = number
            args["source"] = checked_address(source, torch.float32, n_in, n_out, strided=True)
            args["row_stride"], args["column_stride"] = source.stride()
            args["scales"] = checked_address(scales, torch.float32, n_out)
            if self._eight_bits or not self._pack_compressed(kernel, args, source):
                self.run(kernel, PACK, args, workspace_layout(0, n_in))
        else:
            self._pack_by_torch(number, weight.detach(), scales)
        size = packed_size(n_out, n_in)
        self._used += size * 3 // 4 if number in self._codebooks else size
        bias = torch.zeros_like(scales) if bias is None else bias
        self._matrices["scales"][number] = self.add_floats(scales, bias)

    def _pack_compressed(self, kernel: CompiledKernel, args: Any, source: Tensor) -> bool:
        """Pack a matrix as compressed bfloat16, if the processor and the weights allow it; says whether they did."""
        if not target_processor().has_amx or (exponents := common_exponents(source)) is None:
            return False
        number = int(args["matrix"][0])
        n_out, n_in = self.sizes[number]
        tiles, blocks = round_up(n_out, TILE_N) // TILE_N, TILE_N * round_up(n_in, TILE_K) // BLOCK_WEIGHTS
        # 1) Compress with a codebook that has no outliers yet; the kernel counts and lists them.
        table = as_buffer(np.tile(exponents, CODEBOOK_BYTES // CODEBOOK_SIZE))
        most = blocks * BLOCK_WEIGHTS // _WEIGHTS_PER_OUTLIER
        counts = as_buffer(np.empty((tiles, blocks), np.int32))
        outliers = as_buffer(np.empty((tiles, most), np.uint32))
        args["outlier_counts"] = checked_address(counts, np.int32, tiles, blocks)
        args["outliers"], args["max_outliers"] = checked_address(outliers, np.uint32, tiles, most), most
        self._matrices["codebook"][number] = checked_address(table, np.uint8, CODEBOOK_BYTES)
        self.run(kernel, PACK, args, workspace_layout(0, n_in))
        self._matrices["codebook"][number] = 0
        # 2) Give up if there are too many of them, or more in a tile than were listed.
        if counts.sum() > MAX_OUTLIER_SHARE * counts.size * BLOCK_WEIGHTS or counts.sum(1).max() > most:
            return False
        # 3) The complete codebook, as `gemm.compressed_tile` reads it.
        before = np.concatenate([[0], counts.ravel().cumsum()]).astype(np.int32)
        listed = [outliers[tile, :count] for tile, count in enumerate(counts.sum(1))]
        codebook = as_buffer(np.concatenate([table, *(one.view(np.uint8) for one in (before, *listed))]))
        self._codebooks[number] = codebook
        size = CODEBOOK_BYTES + before.nbytes + 4 * int(before[-1])
        self._matrices["codebook"][number] = checked_address(codebook, np.uint8, size)
        return True

    def _pack_by_torch(self, number: int, weight: Tensor, scales: Tensor) -> None:
        """Pack a matrix, and fill its scales."""
        n_out, n_in = self.sizes[number]
        bits, word = 32 // self._word, self._word
        target = self._tiles_of(number).view(torch.int32).view(-1, round_up(n_in, TILE_K) // word, TILE_N)
        for left in range(0, n_out, _OUTPUTS_AT_ONCE):
            part = weight[:, left : left + _OUTPUTS_AT_ONCE]
            integers, part_scales = quantize_per_channel(part) if self._eight_bits else bf16_bits(part)
            scales[left : left + _OUTPUTS_AT_ONCE] = part_scales
            integers = functional.pad(integers, (0, -integers.shape[1] % TILE_N, 0, -n_in % TILE_K)).int()
            words = integers[::word] & (2**bits - 1)
            for at in range(1, word):
                words |= (integers[at::word] & (2**bits - 1)) << bits * at
            tiles = words.view(len(words), -1, TILE_N).transpose(0, 1)
            target[left // TILE_N :][: len(tiles)].copy_(tiles)

    def add_floats(self, *numbers: Tensor) -> int:
        """Keep float32 numbers beside the tiles, one tensor after the other; gives the place of the first number."""
        first = self._n_floats
        self._floats += [one.detach().float().flatten() for one in numbers]
        self._n_floats += sum(one.numel() for one in numbers)
        return first

    @property
    def _all_floats(self) -> Tensor:
        if len(self._floats) != 1:
            empty = torch.empty(0, dtype=torch.float32, device="cpu")
            self._floats = [as_buffer(torch.cat(self._floats) if self._floats else empty)]
        return self._floats[0]

    def run(self, kernel: CompiledKernel, task: int, task_args: Any, layout: Any) -> None:
        """Run a task with these weights.

        Args:
            task_args: the structure of the task. layout: of its workspace.
        """
        address = checked_address(task_args, _ARGS[task], 1)
        # Floats are joined when they are read: while matrices are packed, each would copy those of all before.
        floats = 0 if task == PACK else checked_address(self._all_floats, torch.float32, self._n_floats)
        tiles, matrices = (self._tiles_address, len(self._tiles)), (self._matrices_address, len(self._matrices))
        self._team.run(kernel, task, address, (*tiles, *matrices, floats), layout)

    def multiply(self, number: int, rows: Tensor) -> Tensor:
        """Rows, [n, in], times matrix `number`, plus its bias: float32 [n, out]."""
        kernel = self.kernel
        n_out, n_in = self.sizes[number]
        if kernel is not None and len(rows) <= max_kernel_rows():
            source = as_buffer(rows.float().contiguous())
            result = buffer_tensor(len(rows), n_out, dtype=torch.float32)
            args = buffer_zeros(1, MATMUL_ARGS)
            args["matrix"], args["rows"] = number, len(rows)
            args["source"] = checked_address(source, torch.float32, len(rows), n_in)
            args["target"] = checked_address(result, torch.float32, len(rows), n_out)
            self.run(kernel, MATMUL, args, workspace_layout(len(rows), n_in))
            return result
        fast = torch.bfloat16 if bfloat16_is_fast() else torch.float32
        product = rows.to(fast) @ self.unpack(number).to(fast)
        scales, bias = self._all_floats[self._matrices["scales"][number] :][: 2 * n_out].view(2, n_out)
        return torch.addcmul(bias, product[:, :n_out], scales)

    def unpack(self, number: int) -> Tensor:
        """A matrix without its scales: bfloat16 [in, out rounded up to TILE_N]. It is valid until the next call."""
        (n_out, n_in), kernel = self.sizes[number], self.kernel
        if kernel is None:
            return self._unpack_by_torch(number)
        columns = round_up(n_out, TILE_N)
        if len(self._unpacked) < n_in * columns or memory_is_guarded():  # What is guarded ends at the last column.
            self._unpacked = buffer_tensor(n_in * columns, dtype=torch.bfloat16)
        target = self._unpacked[: n_in * columns].view(n_in, columns)
        args = buffer_zeros(1, UNPACK_ARGS)
        args["matrix"], args["target"] = number, checked_address(target, torch.bfloat16, n_in, columns)
        self.run(kernel, UNPACK, args, workspace_layout(0, n_in))
        return target

    def _unpack_by_torch(self, number: int) -> Tensor:
        if (known := self._unpacked_for_good.get(number)) is not None:
            return known
        n_in = self.sizes[number][1]
        depth = round_up(n_in, TILE_K)
        numbers = self._tiles_of(number) if self._eight_bits else self._tiles_of(number).view(torch.bfloat16)
        tiles = numbers.view(-1, depth // self._word, TILE_N, self._word)
        unpacked = tiles.permute(1, 3, 0, 2).to(torch.bfloat16).reshape(depth, -1)[:n_in]
        if self._future.done():  # There will never be a kernel: memory is spent so that replies do not crawl.
            self._unpacked_for_good[number] = unpacked
        return unpacked

    def _tiles_of(self, number: int) -> Tensor:
        """The tiles of a matrix as signed integers [packed_size]; not for compressed ones."""
        span = self._tiles[self._matrices["offset"][number] :][: packed_size(*self.sizes[number])]
        return torch.from_numpy(span.view(f"i{span.itemsize}"))


def max_kernel_rows() -> int:
    """Up to how many rows the kernel is faster than unpacking a matrix for torch."""
    return _MAX_KERNEL_ROWS_WITH_AMX if target_processor().has_amx else _MAX_KERNEL_ROWS


class PackedLinear:
    """One of the matrices as a linear layer."""

    memory_bytes = 0  # PackedWeights counts it.

    def __init__(self, weights: PackedWeights, number: int):
        self._weights, self._number = weights, number

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in float32."""
        return self._weights.multiply(self._number, rows)


class DecodeStep:
    """The compiled decode step of a GPT-2 with packed weights.

    Args:
        weights: the matrices of each layer (qkv_proj, out_proj, fc_in, fc_out), and then the head.
        norms: weight and bias of each layer norm: two a layer, and then the final one.
        attention_scales: for each layer, the factor of attention scores.
        epsilon: of the layer norms.
        activation: a name in ACTIVATIONS.
        head_width: of an attention head.
        window: the most tokens of a sequence.
    """

    def __init__(
        self,
        weights: PackedWeights,
        norms: Sequence[tuple[Tensor, Tensor]],
        attention_scales: Sequence[float],
        epsilon: float,
        activation: str,
        head_width: int,
        window: int,
    ):
        self._weights, self._window = weights, window
        self._norms = as_buffer(np.array([weights.add_floats(*norm) for norm in norms], np.int64))
        self._attention_scales = as_buffer(np.array(attention_scales, np.float32))
        layers = len(attention_scales)
        self._vocabulary, self._width = weights.sizes[-1]
        self._mlp_width = weights.sizes[2][0]
        self._max_inputs = max(n_in for _, n_in in weights.sizes)
        self._args = buffer_zeros(1, STEP_ARGS)  # Kept: each step sets only what changes.
        self._args["norms"] = checked_address(self._norms, np.int64, 2 * layers + 1)
        self._args["attention_scales"] = checked_address(self._attention_scales, np.float32, layers)
        self._args["width"], self._args["layers"], self._args["head_width"] = self._width, layers, head_width
        self._args["activation"], self._args["epsilon"] = ACTIVATIONS[activation], epsilon

    def __call__(self, kernel: CompiledKernel, hidden: Tensor, slots: Any, wanted: Any) -> Tensor:
        """Compute all layers for some tokens, and append their keys and values to the KV caches.

        Args:
            hidden: float32 [tokens, width], the embeddings; it is overwritten.
            slots: KV_SLOT [tokens]. The tokens of a sequence are neighbours, in their order.
            wanted: int64 [wanted], the rows whose logits are computed.

        Returns:
            Logits of the next token after each of them, float32 [wanted, vocabulary].
        """
        rows = len(slots)
        logits = buffer_tensor(len(wanted), self._vocabulary, dtype=torch.float32)
        hidden, slots, wanted = as_buffer(hidden), as_buffer(slots), as_buffer(wanted)
        args = self._args
        args["hidden"] = checked_address(hidden, torch.float32, rows, self._width)
        args["logits"] = checked_address(logits, torch.float32, len(wanted), self._vocabulary)
        args["kv_slots"] = checked_address(slots, KV_SLOT, rows)
        args["wanted"] = checked_address(wanted, np.int64, len(wanted))
        args["rows"], args["n_wanted"] = rows, len(wanted)
        layout = workspace_layout(rows, self._max_inputs, self._width, self._mlp_width, self._window)
        self._weights.run(kernel, STEP, args, layout)
        return logits
