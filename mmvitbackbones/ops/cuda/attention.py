"""Attention of windows to what they see, without copies of keys and without masks of windows.

Beside its output the operator keeps one number a query, the logarithm of the sum of its weights.
:mod:`.kernels` needs Triton, and is imported when it computes for the first time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..registration import Context, gradient, operator
from ..windows import Neighbourhood, as_numbers, from_numbers, grid

_LOG2_E = math.log2(math.e)
_PROGRAMS = 1024  # for gradients of biases: enough for any GPU


def attend_in_place(
    maps: Sequence[Tensor],
    seen: Sequence[Neighbourhood],
    bias: Tensor | None = None,
    valid: Tensor | None = None,
    decay: Tensor | None = None,
) -> Tensor:
    """Compute as :func:`mmvitbackbones.ops.attention.attend`, or with a decay by the distance.

    Args:
        maps (Sequence[Tensor]): See there; or queries, keys and values of one map,
            (B, H, W, heads, d) each, in any order in memory but that of the channels.
        seen (Sequence[Neighbourhood]): See there.
        bias (Tensor, optional): See there.
        valid (Tensor, optional): Boolean, (windows, K), True where a key may be attended to.
        decay (Tensor, optional): (heads,), float32, added to scores for each token of Manhattan
            distance on the map.

    Returns:
        Tensor: (B, H, W, heads * d), with H and W of the first map.
    """
    return _forward(list(maps), as_numbers(seen), bias, valid, decay)[0].flatten(3)


def _parts(maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Queries, and the keys and values of each map, (B, H, W, heads, d) each."""
    if maps[0].dim() == 5:
        return maps[0], [maps[1]], [maps[2]]
    return maps[0].select(3, 0), [x.select(3, 1) for x in maps], [x.select(3, 2) for x in maps]


def _like(x: Tensor) -> Tensor:
    """Empty memory in the order of ``x``, but that kernels read a token's channels in one piece."""
    if x.stride(-1) == 1:
        return torch.empty_like(x)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _readable(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _empty(
    maps: Sequence[Tensor],
    seen: Sequence[int],
    bias: Tensor | None,
    valid: Tensor | None,
    decay: Tensor | None,
) -> tuple[Tensor, Tensor]:
    q, _, _ = _parts(maps)
    samples, height, width, heads, _ = q.shape
    return _like(q), q.new_empty(samples, heads, height, width, dtype=torch.float32)


@operator(
    'map_attention(Tensor[] maps, SymInt[] seen, Tensor? bias, Tensor? valid, Tensor? decay)'
    ' -> (Tensor, Tensor)',
    _empty,
    key='CompositeExplicitAutograd',
)
def _forward(
    maps: Sequence[Tensor],
    seen: Sequence[int],
    bias: Tensor | None,
    valid: Tensor | None,
    decay: Tensor | None,
) -> tuple[Tensor, Tensor]:
    out, lse = _empty(maps, seen, bias, valid, decay)
    _Launch(maps, seen, bias, valid, decay).attend(out, lse)
    return out, lse


def _empty_gradients(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    maps: Sequence[Tensor],
    seen: Sequence[int],
    bias: Tensor | None,
    valid: Tensor | None,
    decay: Tensor | None,
    of_bias: bool,
) -> list[Tensor]:
    grads = [_like(x) for x in maps]
    if bias is not None and of_bias:
        grads.append(torch.empty_like(bias, memory_format=torch.contiguous_format))
    return grads


@operator(
    'map_attention_backward(Tensor grad, Tensor out, Tensor lse, Tensor[] maps, SymInt[] seen, '
    'Tensor? bias, Tensor? valid, Tensor? decay, bool of_bias) -> Tensor[]',
    _empty_gradients,
    key='CompositeExplicitAutograd',
)
def _backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    maps: Sequence[Tensor],
    seen: Sequence[int],
    bias: Tensor | None,
    valid: Tensor | None,
    decay: Tensor | None,
    of_bias: bool,
) -> list[Tensor]:
    """Gradients of the maps, and behind them that of the bias if it is wanted."""
    grads = [_like(x) for x in maps]
    of_q, of_k, of_v = _parts(grads)
    if maps[0].dim() == 6:
        for x in grads[1:]:
            x.select(3, 0).zero_()  # queries are those of the first map
    launch, delta = _Launch(maps, seen, bias, valid, decay), torch.empty_like(lse)
    passed = _readable(grad), lse, delta
    launch.of_queries(out, *passed, of_q)  # which fills in delta
    launch.of_keys(*passed, of_k, of_v)
    if bias is not None and of_bias:
        grads.append(launch.of_bias(*passed).to(bias.dtype))
    return grads


def _keep(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    maps, ctx.seen, bias, valid, decay = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, bias, valid, decay, *maps)


def _gradients(
    ctx: Context, grad: Tensor | None, _: None
) -> tuple[list[Tensor] | None, None, Tensor | None, None, None]:
    if grad is None:
        return None, None, None, None, None
    out, lse, bias, valid, decay, *maps = ctx.saved_tensors
    of_bias = ctx.needs_input_grad[2]
    grads = _backward(grad, out, lse, maps, ctx.seen, bias, valid, decay, of_bias)
    return grads[: len(maps)], None, grads[-1] if of_bias else None, None, None


gradient(_forward, _keep, _gradients, by=_backward)


class _Launch:
    """What all kernels of one attention are told.

    Args:
        maps (Sequence[Tensor]): See :func:`attend_in_place`.
        seen (Sequence[int]): Of :func:`mmvitbackbones.ops.windows.as_numbers`.
        bias (Tensor, optional): See :func:`attend_in_place`.
        valid (Tensor, optional): See there.
        decay (Tensor, optional): See there.
    """

    def __init__(
        self,
        maps: Sequence[Tensor],
        seen: Sequence[int],
        bias: Tensor | None,
        valid: Tensor | None,
        decay: Tensor | None,
    ) -> None:
        self.seen = from_numbers(seen)
        self.q, self.k, self.v = _parts([_readable(x) for x in maps])
        self.samples, height, width, self.heads, self.dims = self.q.shape
        window = self.seen[0].window
        self.shape = (*grid((height, width), window), *window)
        self.tokens = window[0] * window[1]
        self.lengths = [one.size[0] * one.size[1] for one in self.seen]
        self.total = sum(self.lengths)
        self.bias = None if bias is None else _padded(bias.float() * _LOG2_E)
        self.bias_sizes = (self.tokens, 0 if self.bias is None else self.bias.shape[2])
        self.valid = None if valid is None else valid.contiguous().view(torch.uint8)
        self.decay = None if decay is None else decay * _LOG2_E
        self.scale = self.dims**-0.5 * _LOG2_E

    def attend(self, out: Tensor, lse: Tensor) -> None:
        """Fill in the output, and the logarithm of the sum of each query's weights."""
        self._of_query_tiles('attend', out, _strides(out), lse)

    def of_queries(
        self, out: Tensor, grad: Tensor, lse: Tensor, delta: Tensor, of_q: Tensor
    ) -> None:
        """Fill in the gradient of the queries, and ``delta``, which the other gradients take."""
        passed = (grad, _strides(grad), of_q, _strides(of_q), delta)
        self._of_query_tiles('gradient_of_queries', out, _strides(out), lse, *passed)

    def of_keys(
        self,
        grad: Tensor,
        lse: Tensor,
        delta: Tensor,
        of_k: Sequence[Tensor],
        of_v: Sequence[Tensor],
    ) -> None:
        """Fill in the gradients of keys and values of each map."""
        rows, columns, _, _ = self.shape
        for i, one in enumerate(self.seen):
            area = one.window[0] * one.window[1]
            block_m, block_n = self._query_block(), self._key_block(max(area, 16))
            if self.q.dtype == torch.float32:
                block_n = 16  # two sums, of keys and of values
            # A tile of small windows holds several, side by side.
            span = max(1, block_n // area)
            tiles = rows * -(-columns // span) * -(-span * area // block_n)
            reach = (
                *_reach(one.window[0], *one.rows),
                *_reach(one.window[1], *one.columns),
            )
            self._run(
                'gradient_of_keys',
                self.samples * tiles,
                *(self.q, _strides(self.q), *self._map(i)[:4], self._map(i)[4], reach),
                *(self.bias, self.bias_sizes, self.valid, self.total, self._before(i), self.decay),
                *(lse, grad, _strides(grad), delta),
                *(of_k[i], _strides(of_k[i]), of_v[i], _strides(of_v[i])),
                *(self.shape, self.heads, self.scale, span),
                WRAPS=one.wraps,
                BLOCK_M=block_m,
                BLOCK_N=block_n,
            )

    def of_bias(self, grad: Tensor, lse: Tensor, delta: Tensor) -> Tensor:
        """Gradient of the bias, (heads, N, K) in float32, from sums over groups of windows."""
        windows = self.samples * self.shape[0] * self.shape[1]
        tiles = self.heads * -(-self.tokens // self._query_block()) * -(-self.total // 32)
        groups = max(1, min(windows, _PROGRAMS // tiles))
        per_group = -(-windows // groups)
        partial = lse.new_zeros(groups, self.heads, self.tokens, self.total)
        for i, one in enumerate(self.seen):
            block_m, block_n = self._query_block(), self._key_block(self.lengths[i])
            tiles = -(-self.tokens // block_m) * -(-self.lengths[i] // block_n)
            self._run(
                'gradient_of_bias',
                groups * tiles,
                *(self.q, _strides(self.q), *self._map(i)),
                *(self.bias, self.bias_sizes, self.valid, self.total, self._before(i)),
                *(lse, grad, _strides(grad), delta, partial),
                *(self.shape, self.heads, self.scale, windows, per_group),
                WRAPS=one.wraps,
                BLOCK_M=block_m,
                BLOCK_N=block_n,
            )
        return partial.sum(0)

    def _of_query_tiles(self, kernel: str, *results: Any) -> None:
        block = self._query_block()
        tiles = self.shape[0] * self.shape[1] * -(-self.tokens // block)
        self._run(
            kernel,
            self.samples * tiles,
            *(self.q, _strides(self.q), tuple(self._map(i) for i in range(len(self.seen)))),
            *(self.bias, self.bias_sizes, self.valid, self.total, self.decay, *results),
            *(self.shape, self.heads, self.scale),
            WRAPS=tuple(one.wraps for one in self.seen),
            BLOCK_M=block,
            BLOCKS=tuple(self._key_block(length) for length in self.lengths),
        )

    def _run(self, kernel: str, tiles: int, *args: Any, **blocks: Any) -> None:
        """Run a kernel, a program for each head of each tile."""
        from . import kernels

        if not tiles * self.heads:
            return
        with torch.cuda.device_of(self.q):
            getattr(kernels, kernel)[(tiles * self.heads,)](*args, **blocks, **self._constants())

    def _constants(self) -> dict[str, Any]:
        """What is compiled into all kernels."""
        # All of torch's switches set this one; to read an older one beside a newer one is an error.
        in_tf32 = (
            self.q.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == 'tf32'
        )
        return dict(
            DIMS=self.dims,
            BLOCK_D=_power(self.dims),
            PRECISION='tf32' if in_tf32 else 'ieee',
            # Wide heads, and products in float32, fill the registers of 4 warps.
            num_warps=8 if self.dims > 32 or self.q.dtype == torch.float32 else 4,
            num_stages=2,
        )

    def _map(self, i: int) -> tuple[Any, ...]:
        """Keys, values and geometry of a map, as kernels take them."""
        k, v, one = self.k[i], self.v[i], self.seen[i]
        geometry = (*k.shape[1:3], *one.window, one.rows[0], one.columns[0], *one.size)
        return k, _strides(k), v, _strides(v), geometry

    def _before(self, i: int) -> int:
        """Keys of the maps before one."""
        return sum(self.lengths[:i])

    # Larger tiles fill the registers of a GPU, those of biases and their addresses above all.
    # Products in float32 take the most; rows of a wide head whose length is not a multiple of 16
    # bytes are read number by number.

    def _query_block(self) -> int:
        return min(32 if self.q.dtype == torch.float32 else 64, _power(self.tokens))

    def _key_block(self, keys: int) -> int:
        odd = self.q.dtype != torch.float32 and self.dims % 8
        return min(16 if self.dims > 32 and odd else 32, _power(keys))


def _strides(x: Tensor) -> tuple[int, ...]:
    """Of sample, row, column and head."""
    return x.stride()[:4]


def _power(length: int) -> int:
    """The next power of 2, 16 at least, as products on a GPU need."""
    return max(16, 1 << (length - 1).bit_length())


def _padded(bias: Tensor) -> Tensor:
    """Rows of a length that is a multiple of 16, so that they can be read in large pieces."""
    length = -(-bias.shape[2] // 16) * 16
    return torch.nn.functional.pad(bias, (0, length - bias.shape[2])).contiguous()


def _reach(step: int, before: int, after: int) -> tuple[int, int]:
    """How far the first and the last window that see a token of a window are from it.

    Args:
        step (int): Tokens of a window along one axis.
        before (int): Tokens before a window that it sees, too.
        after (int): Tokens after it.
    """
    return -((step - 1 + after) // step), (step - 1 + before) // step
