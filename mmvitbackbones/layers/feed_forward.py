"""The feed-forward network of a transformer block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Tokens at a time on a CPU: their hidden values stay in the cache.
_BLOCK = 1024
# Up to this width the hidden values are computed again in the backward pass: there are many of
# them, each is cheap, and fresh memory for them costs about as much time.
_NARROW = 128


class FeedForward(nn.Module):
    """Two linears with a GELU between them.

    Args:
        dims (int): Channels of the tokens.
        hidden_dims (int): Channels between the linears.
        drop (float): Dropout after each linear. Defaults to 0.
    """

    def __init__(self, dims: int, hidden_dims: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims, hidden_dims)
        self.fc2 = nn.Linear(hidden_dims, dims)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token; (..., C) in and out."""
        drops = self.drop.p > 0 and self.training
        if x.device.type == 'cpu' and not drops and not _autocasts():
            parameters = (self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
            keep = torch.is_grad_enabled() and x.shape[-1] > _NARROW
            return _CPUFeedForward.apply(x.flatten(0, -2), *parameters, keep).view_as(x)
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class _CPUFeedForward(torch.autograd.Function):
    """A feed-forward network a block of tokens at a time.

    The hidden values, four times as many as the input's, are the largest tensors of a transformer
    block. Here those after the GELU never leave the cache, in narrow networks those before it
    neither, and the backward pass computes them again.
    """

    @staticmethod
    def forward(ctx, x, weight1, bias1, weight2, bias2, keep):
        hidden = x.new_empty(len(x), len(weight1)) if keep and any(ctx.needs_input_grad) else None
        out = torch.empty_like(x)
        for block in _blocks(x):
            kept = None if hidden is None else hidden[block]
            before = torch.addmm(bias1, x[block], weight1.t(), out=kept)
            torch.addmm(bias2, F.gelu(before), weight2.t(), out=out[block])
        ctx.save_for_backward(x, weight1, bias1, weight2, hidden)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        x, weight1, bias1, weight2, hidden = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad_weight1, grad_weight2 = torch.zeros_like(weight1), torch.zeros_like(weight2)
        grad_bias1 = torch.zeros_like(bias1)
        grad_out = grad_out.contiguous()
        for block in _blocks(x):
            if hidden is None:
                before = torch.addmm(bias1, x[block], weight1.t())
            else:
                before = hidden[block]
            grad = grad_out[block]
            grad_weight2.addmm_(grad.t(), F.gelu(before))
            grad_before = torch.ops.aten.gelu_backward(grad @ weight2, before)
            grad_weight1.addmm_(grad_before.t(), x[block])
            grad_bias1 += grad_before.sum(0)
            torch.mm(grad_before, weight1, out=grad_x[block])
        return grad_x, grad_weight1, grad_bias1, grad_weight2, grad_out.sum(0), None


def _autocasts() -> bool:
    try:
        return torch.is_autocast_enabled('cpu')
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


def _blocks(x: Tensor) -> Iterator[slice]:
    return (slice(i, min(i + _BLOCK, len(x))) for i in range(0, len(x), _BLOCK))
