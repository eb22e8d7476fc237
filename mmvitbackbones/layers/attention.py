"""Multi-head self-attention: the projections round the attention itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..ops.attention import attend, attend_sequences
from ..ops.chunked import in_groups
from ..ops.windows import Neighbourhood


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
            bias (Tensor, optional): Added to the scores, (heads, N, N).
            valid (Tensor, optional): Boolean, (windows, N), True where a token may be attended to;
                ``windows`` divides B.

        Returns:
            Tensor: (B, N, C).
        """

        def among(x: Tensor, valid: Tensor | None) -> Tensor:
            return self.output(attend_sequences(self.project(x), bias, valid, self.dropout_p))

        return in_groups(among, x, valid, self.qkv, self.proj, self.proj_drop)

    def attend(
        self,
        maps: Sequence[Tensor],
        seen: Sequence[Neighbourhood],
        bias: Tensor | None = None,
    ) -> Tensor:
        """Project maps, and attend to what each window sees on them.

        Args:
            maps (Sequence[Tensor]): (B, H, W, C) each; the queries are those of the first.
            seen (Sequence[Neighbourhood]): See :func:`mmvitbackbones.ops.attention.attend`.
            bias (Tensor, optional): See there.

        Returns:
            Tensor: (B, H, W, C), of the first map's size.
        """
        qkv = [self.project(x) for x in maps]
        return self.output(attend(qkv, seen, bias, dropout_p=self.dropout_p))

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
