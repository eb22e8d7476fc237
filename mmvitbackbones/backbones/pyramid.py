"""What all backbones share: a stem and stages in, feature maps out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit, update_init_info
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints.family import Family
from ..ops.backend import recomputed
from .options import check_choice, check_flags

MIN_SIZE = 32


class Pyramid(BaseModule):
    """A hierarchical backbone: a stem, and stages that each halve the resolution.

    The stem and the stages hand each other a tuple whose first item is the map of local tokens,
    (B, H, W, C); what else a family carries along follows it.

    Args:
        stem (nn.Module): From an image (B, in_channels, H, W) to the tuple the first stage takes.
        stages (Sequence[nn.Module]): Each takes and returns such a tuple.
        dims (Sequence[int]): Channels of the stages' local tokens.
        strides (Sequence[int]): Pixels of the image between the stages' emitted tokens.
        out_indices (Sequence[int], optional): Stages whose maps are the output; None: all. Stages
            after the last of them are not run, and not trained.
        out_norm (str, optional): 'output': a LayerNorm on each map that leaves the backbone;
            'inline': one after each stage, whose result the next stage also receives; None.
        frozen_stages (int): -1: nothing is frozen; 0: the stem; k: the stem and the first k
            stages with their norms.
        norm_eval (bool): Keep batch normalisation, if there is any, in evaluation mode.
        emitted (int): Which item of a stage's tuple is its output: 0, the local tokens, or another
            one, (B, ..., C), that the family carries along.
        in_channels (int): Channels of the images. Defaults to 3.
        init_cfg (dict | list[dict], optional): As in mmengine; of ``type='Pretrained'``, published
            weights are taken as they are, see
            :func:`mmvitbackbones.checkpoints.load_published`.

    Attributes:
        channels (tuple[int, ...]): Channels of each map that is emitted.
        strides (tuple[int, ...]): Pixels of the image between neighbouring tokens of each.
        stage_strides (tuple[int, ...]): The same of all stages, also those that are not emitted.
        maps (nn.ModuleList): For hooks: what the i-th puts out is the map of stage i.
        family (Family): Of the class: which published files fit, and how they are read.

    Raises:
        ValueError: For an option's value that is not allowed.
    """

    family: Family

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        dims: Sequence[int],
        strides: Sequence[int],
        out_indices: Sequence[int] | None = None,
        out_norm: str | None = 'output',
        frozen_stages: int = -1,
        norm_eval: bool = False,
        emitted: int = 0,
        in_channels: int = 3,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        if init_cfg is not None and not isinstance(init_cfg, (Mapping, list)):
            raise ValueError(
                "init_cfg must be a dict, such as dict(type='Pretrained', checkpoint=...), or a "
                f'list of them, got {init_cfg!r}'
            )
        super().__init__(init_cfg)
        count = len(stages)
        out_indices = range(count) if out_indices is None else out_indices
        if (
            not isinstance(out_indices, Sequence)
            or not out_indices
            or any(type(i) is not int or not 0 <= i < count for i in out_indices)
            or sorted(set(out_indices)) != list(out_indices)
        ):
            raise ValueError(
                f'out_indices must be rising integers in 0..{count - 1}, got {out_indices!r}'
            )
        out_indices = tuple(out_indices)
        check_choice('out_norm', out_norm, ('inline', 'output', None))
        if type(frozen_stages) is not int or not -1 <= frozen_stages <= count:
            raise ValueError(
                f'frozen_stages must be an integer in -1..{count}, got {frozen_stages!r}'
            )
        check_flags(norm_eval=norm_eval)
        self.out_indices = out_indices
        self.channels = tuple(dims[i] for i in out_indices)
        self.strides = tuple(strides[i] for i in out_indices)
        self.stage_strides = tuple(strides)
        self.out_norm = out_norm
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.emitted = emitted
        self.in_channels = in_channels
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        normed = {'inline': range(count), 'output': out_indices, None: ()}[out_norm]
        self.out_norms = nn.ModuleList(
            nn.LayerNorm(dims[i]) if i in normed else nn.Identity() for i in range(count)
        )
        self.maps = nn.ModuleList(ChannelsFirst() for _ in range(count))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self._freeze()

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; published weights go through ``load_published``."""
        cfgs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg]
        pretrained = [c for c in cfgs if c and c['type'] in ('Pretrained', PretrainedInit)]
        if not pretrained:
            super().init_weights()
            return
        from ..checkpoints import load_published

        if len(cfgs) > 1 or set(pretrained[0]) != {'type', 'checkpoint'}:
            raise ValueError(
                "init_cfg of type 'Pretrained' takes 'checkpoint' and stands alone, as published "
                f'weights fill the whole backbone; got {self.init_cfg}'
            )
        path = pretrained[0]['checkpoint']
        load_published(self, path)
        if hasattr(self, '_params_init_info'):
            update_init_info(self, init_info=f'load_published from {path}')
        self._is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of a batch of images.

        Args:
            x (Tensor): Images, (B, in_channels, H, W), H and W at least 32.

        Returns:
            tuple[Tensor, ...]: Maps of the stages in ``out_indices``, (B, C_i, ceil(H / s_i),
            ceil(W / s_i)) with stage i's stride s_i; or of other tokens, channels first too.

        Raises:
            ValueError: If the image has another shape.
        """
        state, maps = self.begin(x), []
        for i in range(self.out_indices[-1] + 1):
            state = self.advance(i, state)
            if i in self.out_indices:
                maps.append(self.emit(i, state[self.emitted]))
        return tuple(maps)

    def begin(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the first stage takes of a batch of images; raises as :meth:`forward`."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} takes images of shape (B, {self.in_channels}, H, W), got '
                f'{tuple(x.shape)}: in_channels is {self.in_channels}'
            )
        if any(side < MIN_SIZE for side in x.shape[2:]):
            raise ValueError(
                f'{type(self).__name__} takes images of at least {MIN_SIZE} x {MIN_SIZE} pixels, '
                f'got {x.shape[2]} x {x.shape[3]}'
            )
        return self.stem(x)

    def advance(self, i: int, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run stage i, with the norm that the next stage receives if ``out_norm`` is 'inline'."""
        state = self.stages[i](*state)
        if self.out_norm == 'inline':
            state = (self.out_norms[i](state[0]), *state[1:])
        return state

    def emit(self, i: int, tokens: Tensor) -> Tensor:
        """The map that leaves the backbone, channels first, of what stage i made, (B, ..., C)."""
        if self.out_norm == 'output':
            tokens = self.out_norms[i](tokens)
        return self.maps[i](tokens)

    def train(self, mode: bool = True) -> Pyramid:
        """Switch to training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        first = max(self.frozen_stages, 0)
        stem = [] if self.frozen_stages < 0 else [self.stem]
        return [*stem, *self.stages[:first], *self.out_norms[:first]]

    def _freeze(self) -> None:
        unused = self.out_indices[-1] + 1
        past_the_last_output = [*self.stages[unused:], *self.out_norms[unused:]]
        for module in [*self._frozen(), *past_the_last_output]:
            module.requires_grad_(False)


class ChannelsFirst(nn.Module):
    """Makes a map of tokens: where tools that know modules alone find what leaves a stage."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn (B, ..., C) into (B, C, ...)."""
        # mmcv's operations read the memory as it lies: RoIAlign would take a channels-last map for
        # another image.
        return tokens.movedim(-1, 1).contiguous()


class Stage(nn.Module):
    """Blocks that are run one after the other, or again in the backward pass to save memory.

    Args:
        blocks (Sequence[nn.Module]): The blocks.
        with_cp (bool): Keep only each block's input, and compute the rest again in the backward
            pass. Defaults to False.
        downsample (nn.Module, optional): What comes before the first block.
        peg (nn.Module, optional): What comes after the first block.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        with_cp: bool = False,
        downsample: nn.Module | None = None,
        peg: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = nn.Identity() if downsample is None else downsample
        self.peg = peg
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Run the stage on a map of tokens, (B, H, W, C)."""
        x = self.downsample(x)
        for i, block in enumerate(self.blocks):
            x = self.run(block, x)
            if i == 0 and self.peg is not None:
                x = self.peg(x)
        return (x,)

    def run(self, block: nn.Module, *args: Tensor | tuple[int, int] | None) -> Any:
        """Run one block, checkpointed where ``with_cp`` says so."""
        if self.with_cp and torch.is_grad_enabled():
            return recomputed(block, *args)
        return block(*args)
