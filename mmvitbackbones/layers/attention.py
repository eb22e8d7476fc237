"""The one attention call that every backbone goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .windows import Neighbourhood

# Scores computed at a time on a CPU: small enough to stay in the cache.
_BLOCK_BYTES = 16 * 2**20
# The same where they are not left to a fused kernel, or their bias is large.
_CHUNK_BYTES = 16 * 2**20
# Tokens at a time on a CPU where nothing is kept for a backward pass: fresh memory for the
# projections of a whole map costs as much time as computing them.
_GROUP = 2**14


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    valid: Tensor | None = None,
    dropout_p: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Softmax attention, ``softmax(q k^T / sqrt(d) + bias) v``, by torch's own fused kernels.

    Args:
        q (Tensor): Queries, (B, heads, N, d); B counts the windows of all the samples.
        k (Tensor): Keys, (B, heads, K, d).
        v (Tensor): Values, (B, heads, K, d).
        bias (Tensor, optional): Added to the scores of every window, (heads, N, K).
        valid (Tensor, optional): Boolean, (windows, K), True where a key may be attended to;
            ``windows`` divides B, and the windows of a sample follow each other. Every window
            needs a valid key.
        dropout_p (float): Probability of dropping an attention weight. Defaults to 0.
        weight (Tensor, optional): Multiplies the attention weights, (heads, N, K); without
            ``bias``, ``valid`` and dropout, and without a fused kernel.

    Returns:
        Tensor: (B, heads, N, d).
    """
    if weight is not None:
        scores = q * q.shape[-1] ** -0.5 @ k.mT
        return (scores.softmax(-1, dtype=weight.dtype) * weight).to(v.dtype) @ v
    mask = None
    if bias is not None:
        # On a CPU half types take a bias in float32, elsewhere it has to be rounded.
        half = q.dtype.itemsize == 2 and bias.dtype == torch.float32
        exact = half and q.device.type == 'cpu' and _half_takes_float()
        mask = bias[None] if exact else bias[None].to(q.dtype)
    if valid is not None:
        valid = valid.repeat(q.shape[0] // valid.shape[0], 1)[:, None, None]
        mask = valid if mask is None else mask.masked_fill(~valid, float('-inf'))
    with torch.autocast('cpu', enabled=False):  # would round the bias
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)


@lru_cache(maxsize=1)
def _half_takes_float() -> bool:
    """Whether this torch attends in half types with a mask in float32; old ones refuse."""
    q = torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16, device='cpu')
    try:
        F.scaled_dot_product_attention(q, q, q, attn_mask=torch.zeros(1, 1, device='cpu'))
    except RuntimeError:
        return False
    return True


@torch.compiler.disable  # a part is differentiated while the whole is
def attention_in_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunks: Sequence[tuple[tuple[slice, ...], tuple[slice, ...]]],
    attend: Callable[..., Tensor],
    learned: Sequence[Tensor] = (),
) -> Tensor:
    """Attention a part at a time, computed again in the backward pass.

    What a part makes on its way, such as a bias of its pairs of queries and keys, is never there
    for all of them.

    Args:
        q (Tensor): Queries, (B, heads, N, d).
        k (Tensor): Keys, (B, heads, K, d).
        v (Tensor): Values, (B, heads, K, d).
        chunks (Sequence[tuple]): Indices of each part's queries, and of its keys and values.
        attend (Callable): Attention of one part. It takes the indices of the part's queries, a
            dict in which it may keep memory for the next parts, the part of ``q``, ``k`` and
            ``v``, and what is ``learned``. What else it uses gets no gradient.
        learned (Sequence[Tensor]): What biases are made of.

    Returns:
        Tensor: (B, heads, N, d).
    """
    return _ChunkedAttention.apply(attend, chunks, q, k, v, *learned)


class _ChunkedAttention(torch.autograd.Function):
    """See :func:`attention_in_chunks`."""

    @staticmethod
    def forward(ctx, attend, chunks, q, k, v, *learned):
        ctx.attend, ctx.chunks = attend, chunks
        ctx.save_for_backward(q, k, v, *learned)
        # A view of what wants a gradient wants one, too: no fused kernel would take it as a bias.
        learned = [x.detach() for x in learned]
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format)
        out = out.transpose(1, 2)
        scratch = {}
        for queries, keys in chunks:
            out[queries] = attend(queries, scratch, q[queries], k[keys], v[keys], *learned)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        inputs = ctx.saved_tensors
        q, k, v, *learned = inputs
        # Half types would round every sum.
        sums = [
            torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in inputs
        ]
        learned = [
            x.detach().requires_grad_(needed)
            for x, needed in zip(learned, ctx.needs_input_grad[5:])
        ]
        scratch = {}
        for queries, keys in ctx.chunks:
            places = (queries, keys, keys, *[...] * len(learned))
            parts = [x.detach().requires_grad_() for x in (q[queries], k[keys], v[keys])]
            parts += learned
            with torch.enable_grad():
                part = ctx.attend(queries, scratch, *parts)
            wanted = [i for i, x in enumerate(parts) if x.requires_grad]
            grads = torch.autograd.grad(
                part, [parts[i] for i in wanted], grad_out[queries], allow_unused=True
            )
            for i, grad in zip(wanted, grads):
                if grad is not None:
                    sums[i][places[i]] += grad
        return None, None, *(total.to(x.dtype) for total, x in zip(sums, inputs))


def at_a_time(scores: int, like: Tensor) -> int:
    """How many of what has a number of scores each make a chunk."""
    # What a GPU does at a time should be more than a CPU's cache holds.
    memory = _CHUNK_BYTES * (1 if like.device.type == 'cpu' else 8)
    return max(1, memory // (scores * like.element_size()))


def token_chunks(height: int, width: int, count: int) -> Iterator[slice]:
    """Cut a map's tokens into rows of together up to ``count`` tokens, or into parts of rows."""
    rows = min(height, count // width)
    if rows:
        for row in range(0, height, rows):
            yield slice(row * width, min(row + rows, height) * width)
        return
    for row in range(height):
        for column in range(0, width, count):
            yield slice(row * width + column, row * width + min(column + count, width))


def window_attention(
    maps: Sequence[Tensor],
    neighbourhoods: Sequence[Neighbourhood],
    bias: Tensor | None = None,
    valid: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """:func:`attention` of each window's tokens to what the window sees on one or more maps.

    On a CPU, biases and masks go through :class:`_CPUAttention`.

    Args:
        maps (Sequence[Tensor]): Projections to queries, keys and values, (B, H, W, 3, heads, d)
            each. All have as many windows; the queries are those of the first map.
        neighbourhoods (Sequence[Neighbourhood]): What a window sees on each of the maps.
        bias (Tensor, optional): (heads, N, K), with the N tokens of a window and its K keys: map
            after map, each map's in row-major order.
        valid (Tensor, optional): Boolean, (windows, K), as in :func:`attention`.
        dropout_p (float): Probability of dropping an attention weight. Defaults to 0.

    Returns:
        Tensor: (B, H, W, heads * d), with H and W of the first map.
    """
    x = maps[0]
    if x.device.type == 'cpu' and dropout_p == 0.0 and not (bias is None and valid is None):
        return _in_blocks(tuple(neighbourhoods), bias, valid, *maps).flatten(3)
    own = Neighbourhood(neighbourhoods[0].window)
    q = _sequences([own.view(x[:, :, :, 0])])
    gather = _keys if all(n.is_window for n in neighbourhoods) else _overlapping_keys
    k, v = gather(maps, neighbourhoods)
    out = attention(q, k, v, bias, valid, dropout_p).transpose(1, 2)
    out = out.unflatten(1, own.window).unflatten(0, (len(x), *own.grid(x)))
    return out.transpose(2, 3).flatten(3, 4).flatten(1, 2).flatten(3)


def _keys(maps: Sequence[Tensor], neighbourhoods: Sequence[Neighbourhood]) -> tuple[Tensor, Tensor]:
    """Keys and values of all windows, (windows, heads, K, d)."""
    padded = [n.pad(x[:, :, :, 1:]) for x, n in zip(maps, neighbourhoods)]
    k, v = (
        _sequences([n.view(x[:, :, :, part]) for x, n in zip(padded, neighbourhoods)])
        for part in (0, 1)
    )
    return k, v


# Inductor miscompiles views of windows that overlap.
_overlapping_keys = torch.compiler.disable(_keys)


def _sequences(views: Sequence[Tensor]) -> Tensor:
    """Join views (B, rows, columns, h, w, heads, d) to (windows, heads, sum of all h * w, d)."""
    tokens = [view.flatten(0, 2).flatten(1, 2) for view in views]
    return (torch.cat(tokens, dim=1) if len(tokens) > 1 else tokens[0]).transpose(1, 2)


class _CPUAttention(torch.autograd.Function):
    """Attention a few windows at a time, with a gradient for the bias.

    Neither scores nor gathered keys are kept: the backward pass gathers and computes them again.
    All blocks use the same memory, as fresh memory costs about as much time as filling it.
    """

    @staticmethod
    @torch.autocast('cpu', enabled=False)  # scores stay in float32
    def forward(ctx, neighbourhoods, bias, valid, *maps):
        ctx.neighbourhoods = neighbourhoods
        ctx.save_for_backward(bias, valid, *maps)
        blocks = _Blocks(maps, neighbourhoods, bias, valid)
        out = torch.empty_like(maps[0][:, :, :, :1], memory_format=torch.contiguous_format)
        out_windows = blocks.own.view(out)
        for block in blocks:
            q, k, v = blocks.read(block)
            torch.bmm(blocks.weights(block, q, k), v, out=q)
            out_windows[block] = blocks.tokens(q[None])
        return out.squeeze(3)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        bias, valid, *maps = ctx.saved_tensors
        blocks = _Blocks(maps, ctx.neighbourhoods, bias, valid)
        grads = [torch.empty_like(x) for x in maps]
        for x, neighbourhood in zip(grads, ctx.neighbourhoods):
            if x is not grads[0]:
                x[:, :, :, 0] = 0  # queries are those of the first map
            if not neighbourhood.is_window:
                x[:, :, :, 1:] = 0  # margins overlap: gradients are added up
        grad_q = blocks.own.view(grads[0][:, :, :, :1])
        grad_out = blocks.own.view(grad_out.unsqueeze(3))
        grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_bias = torch.zeros_like(bias, dtype=blocks.dtype)
        for block in blocks:
            q, k, v = blocks.read(block)
            weights = blocks.weights(block, q, k)
            (grad,) = blocks.gather('grad', [grad_out[block]])
            grad_scores = torch.bmm(grad, v.mT, out=blocks.buffer('grad_scores', weights.shape))
            torch.bmm(weights.mT, grad, out=v)  # from here on v is its gradient
            torch.ops.aten._softmax_backward_data.out(
                grad_scores, weights, -1, blocks.dtype, grad_input=grad_scores
            )
            if grad_bias is not None:
                grad_bias += grad_scores.unflatten(0, (-1, len(bias))).sum(0)
            torch.bmm(grad_scores, k, out=grad)
            grad_q[block] = blocks.tokens(grad[None].mul_(blocks.scale))
            torch.bmm(grad_scores.mT, q, out=k)  # the scale is in q; k is its gradient
            blocks.add(block, grads)
        return None, None if grad_bias is None else grad_bias.to(bias.dtype), None, *grads


@torch.compiler.disable  # inductor fails on the blocks
def _in_blocks(*args) -> Tensor:
    return _CPUAttention.apply(*args)


class _Blocks:
    """Blocks of a few windows beside each other, and the memory that they share.

    Args:
        maps (Sequence[Tensor]): See :func:`window_attention`.
        neighbourhoods (Sequence[Neighbourhood]): See :func:`window_attention`.
        bias (Tensor, optional): See :func:`window_attention`.
        valid (Tensor, optional): See :func:`window_attention`.
    """

    def __init__(
        self,
        maps: Sequence[Tensor],
        neighbourhoods: Sequence[Neighbourhood],
        bias: Tensor | None,
        valid: Tensor | None,
    ) -> None:
        x = maps[0]
        self.maps, self.neighbourhoods = maps, neighbourhoods
        self.bias, self.valid = bias, valid
        self.own = Neighbourhood(neighbourhoods[0].window)
        self.queries = self.own.view(x[:, :, :, :1])
        self.heads = x.shape[4]
        self.scale = x.shape[-1] ** -0.5
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self.lengths = [n.size[0] * n.size[1] for n in neighbourhoods]
        self._buffers: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[tuple[int, int, slice]]:
        """Sample, row and columns of each block, of about ``_BLOCK_BYTES`` of scores."""
        samples, rows, columns, height, width = self.queries.shape[:5]
        scores = self.heads * height * width * sum(self.lengths)
        most = max(1, _BLOCK_BYTES // (scores * self.dtype.itemsize))
        step = -(-columns // -(-columns // most))  # of about the same size each
        for sample in range(samples):
            for row in range(rows):
                for first in range(0, columns, step):
                    yield sample, row, slice(first, min(first + step, columns))

    def buffer(self, name: str, shape: Sequence[int]) -> Tensor:
        """Memory of a name, with whatever an earlier block left in it."""
        size = torch.Size(shape).numel()
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = self.maps[0].new_empty(size, dtype=self.dtype)
        return self._buffers[name][:size].view(shape)

    def gather(self, name: str, views: Sequence[Tensor]) -> Tensor:
        """Copy views (windows, h, w, P, heads, d) to one (P, windows * heads, sum of h * w, d)."""
        windows, _, _, parts, heads, dims = views[0].shape
        lengths = [view.shape[1] * view.shape[2] for view in views]
        out = self.buffer(name, (parts, windows, heads, sum(lengths), dims))
        for tokens, view in zip(out.split(lengths, dim=3), views):
            tokens.unflatten(3, view.shape[1:3]).copy_(view.permute(3, 0, 4, 1, 2, 5))
        return out.flatten(1, 2)

    def tokens(self, x: Tensor, neighbourhood: Neighbourhood | None = None) -> Tensor:
        """Undo :meth:`gather` for one view, by default that of a window's own tokens."""
        x = x.unflatten(2, (neighbourhood or self.own).size).unflatten(1, (-1, self.heads))
        return x.permute(1, 3, 4, 0, 2, 5)

    def read(self, block: tuple[int, int, slice]) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values of a block, (windows * heads, tokens, d)."""
        (q,) = self.gather('q', [self.queries[block]]).mul_(self.scale)
        seen = []
        for i, (x, neighbourhood) in enumerate(zip(self.maps, self.neighbourhoods)):
            strip = self._strip(i, x[:, :, :, 1:], neighbourhood, block)
            seen.append(neighbourhood.view(strip[None])[0, 0, block[2]])
        self._keys = self.gather('keys', seen)
        return q, *self._keys

    def weights(self, block: tuple[int, int, slice], q: Tensor, k: Tensor) -> Tensor:
        """Attention weights of a block, (windows * heads, N, K)."""
        scores = self.buffer('scores', (len(q), q.shape[1], k.shape[1]))
        torch.bmm(q, k.mT, out=scores)
        each = scores.unflatten(0, (-1, self.heads))
        if self.bias is not None:
            each += self.bias
        if self.valid is not None:
            valid = self.valid[self._numbers(block) % len(self.valid)]
            if not valid.all():
                # Adding is several times as fast as filling in.
                each += torch.where(valid, 0.0, float('-inf')).to(self.dtype)[:, None, None]
        return torch.ops.aten._softmax.out(scores, -1, False, out=scores)

    def _numbers(self, block: tuple[int, int, slice]) -> Tensor:
        """Numbers of a block's windows, counted over all samples."""
        sample, row, columns = block
        before = (sample * self.queries.shape[1] + row) * self.queries.shape[2]
        device = self.queries.device
        return torch.arange(before + columns.start, before + columns.stop, device=device)

    def _strip(
        self, i: int, x: Tensor, neighbourhood: Neighbourhood, block: tuple[int, int, slice]
    ) -> Tensor:
        """What the block's row of windows sees on map ``i``: read when the row begins."""
        sample, row, columns = block
        if neighbourhood.is_window:
            height = neighbourhood.window[0]
            return x[sample, row * height : (row + 1) * height]
        strip = self._strip_buffer(f'strip {i}', neighbourhood.strip_shape(x))
        return neighbourhood.read_strip(x, sample, row, strip) if columns.start == 0 else strip

    def _strip_buffer(self, name: str, shape: Sequence[int]) -> Tensor:
        """Memory of shape (h, W, P, heads, d), in which a row of a window lies in one piece."""
        height, width, parts, heads, dims = shape
        strip = self.buffer(name, (parts, heads, height, width, dims))
        return strip.permute(2, 3, 0, 1, 4)

    def add(self, block: tuple[int, int, slice], grads: Sequence[Tensor]) -> None:
        """Add the gradients that now lie where the block's keys and values were to the maps'."""
        sample, row, columns = block
        parts = self._keys.split(self.lengths, dim=2)
        for i, (x, neighbourhood, part) in enumerate(zip(grads, self.neighbourhoods, parts)):
            x, windows = x[:, :, :, 1:], self.tokens(part, neighbourhood)
            if neighbourhood.is_window:
                neighbourhood.view(x)[block] = windows
                continue
            strip = self._strip_buffer(f'grad strip {i}', neighbourhood.strip_shape(x))
            if columns.start == 0:
                strip.zero_()
            neighbourhood.add_windows(strip, columns.start, windows)
            if columns.stop == self.queries.shape[2]:
                neighbourhood.add_strip(x, sample, row, strip)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one joint projection to queries, keys and values.

    Args:
        dims (int): Channels of the tokens.
        num_heads (int): Number of heads; divides ``dims``.
        attn_drop (float): Dropout of the attention weights. Defaults to 0.
        proj_drop (float): Dropout of the output. Defaults to 0.
    """

    def __init__(
        self, dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, bias: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Attend among the N tokens of each of the B sequences.

        Args:
            x (Tensor): Tokens, (B, N, C).
            bias (Tensor, optional): See :func:`attention`, (heads, N, N).
            valid (Tensor, optional): See :func:`attention`, (windows, N).

        Returns:
            Tensor: (B, N, C).
        """
        size = max(1, _GROUP // x.shape[1])
        if x.device.type != 'cpu' or torch.is_grad_enabled() or len(x) <= size:
            return self._among(x, bias, valid)
        valid = None if valid is None else valid.repeat(len(x) // len(valid), 1)
        return torch.cat(
            [
                self._among(part, bias, None if valid is None else valid[i * size :][: len(part)])
                for i, part in enumerate(x.split(size))
            ]
        )

    def _among(self, x: Tensor, bias: Tensor | None, valid: Tensor | None) -> Tensor:
        # A sequence is a window of one row, on a map of one row.
        sequence = Neighbourhood((1, x.shape[1]))
        row = x.flatten(0, 1)[None, None]
        return self.attend([row], [sequence], bias, valid).view_as(x)

    def attend(
        self,
        maps: Sequence[Tensor],
        neighbourhoods: Sequence[Neighbourhood],
        bias: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Project maps, and attend to what each window sees on them.

        Args:
            maps (Sequence[Tensor]): (B, H, W, C) each; the queries are those of the first.
            neighbourhoods (Sequence[Neighbourhood]): See :func:`window_attention`.
            bias (Tensor, optional): See :func:`window_attention`.
            valid (Tensor, optional): See :func:`window_attention`.

        Returns:
            Tensor: (B, H, W, C), of the first map's size.
        """
        qkv = [self.project(x) for x in maps]
        return self.output(window_attention(qkv, neighbourhoods, bias, valid, self.dropout_p))

    @property
    def dropout_p(self) -> float:
        """Probability of dropping an attention weight now."""
        return self.attn_drop if self.training else 0.0

    def project(self, x: Tensor) -> Tensor:
        """Project tokens (..., C) to queries, keys and values, (..., 3, heads, d)."""
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1))

    def output(self, y: Tensor) -> Tensor:
        """Project what the heads give, (..., C) in and out."""
        return self.proj_drop(self.proj(y))
