"""A backbone with its paper's classifier, as timm asks of a model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from timm.layers import ClassifierHead
from timm.models._features import FeatureGetterNet, feature_take_indices
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from ..backbones.options import check_choice
from ..backbones.pyramid import Pyramid
from ..checkpoints import load_published, read_checkpoint
from ..checkpoints.conversion import in_classifier
from ..checkpoints.published import tensors_of

_UNDECAYED = re.compile(r'\.table$|\.position\.|\.global_(tokens|position)$|\.global_bias\.')


class Head(ClassifierHead):
    """timm's, which also says for how many classes it is."""

    @property
    def num_classes(self) -> int:
        """Classes; 0: the last layer is left out."""
        return getattr(self.fc, 'out_features', 0)


# The name is that of mmpretrain's, whose parts this one has under the same names: both are filled
# by load_published.
class ImageClassifier(nn.Module):
    """A classifier, or a source of feature maps, with timm's methods.

    Its parts have the names of mmpretrain's ``ImageClassifier`` in this package's configs, so the
    files of each fit the other.

    Args:
        backbone (Pyramid): The backbone, which emits all stages.
        neck (nn.Module): What the paper does with each token before the mean: ``NormAndPool`` or
            ``ProjectAndPool``.
        classified (int): Which item of what a stage hands on is classified, such as RegionViT's
            regional tokens; (B, H, W, C) or (B, N, C).
        num_features (int): Channels C' after the neck.
        num_classes (int): Classes; 0: no last layer.
        global_pool (str): One of timm's, or '': no pooling. Defaults to 'avg', the papers'.
        drop_rate (float): Dropout before the last layer. Defaults to 0.

    Attributes:
        feature_info (list[dict]): Channels and stride of each stage's map.
    """

    backbone: Pyramid
    neck: Any
    head: Any

    def __init__(
        self,
        backbone: Pyramid,
        neck: nn.Module,
        classified: int,
        num_features: int,
        num_classes: int = 1000,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.classified = classified
        self.num_classes = num_classes
        self.num_features = num_features
        self.head = Head(num_features, num_classes, global_pool, drop_rate)
        self._start_classifier()
        self.feature_info = [
            dict(num_chs=channels, reduction=stride, module=f'backbone.stages.{i}')
            for i, (channels, stride) in enumerate(zip(backbone.channels, backbone.strides))
        ]

    @property
    def head_hidden_size(self) -> int:
        """Channels of what the last layer takes."""
        return self.head.num_features

    def forward(self, x: Tensor) -> Tensor:
        """Classify images, (B, in_chans, H, W): logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """What is pooled, of images (B, in_chans, H, W): a map (B, C', H', W').

        Its tokens are those that the paper classifies; RegionViT's are the regional ones.
        """
        state = self.backbone.begin(x)
        for i in range(len(self.backbone.stages)):
            state = self.backbone.advance(i, state)
        return self._to_pool(state)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify what :meth:`forward_features` gives; ``pre_logits``: only pool."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute the stages' maps.

        Args:
            x (Tensor): Images, (B, in_chans, H, W).
            indices (int | list[int], optional): Stages; an integer: the last ones; None: all.
            norm (bool): Whether each map is normalised, as ``out_norm`` of the model says; it then
                is in any case. Defaults to False.
            stop_early (bool): Not to run the stages after the last of ``indices``, which needs
                ``intermediates_only``. Defaults to False.
            output_fmt (str): 'NCHW'.
            intermediates_only (bool): Return the maps alone; stages after the last of them are then
                not run. Defaults to False.

        Returns:
            list[Tensor] | tuple[Tensor, list[Tensor]]: Maps of local tokens, (B, C_i, H_i, W_i),
            as the backbone emits them; before them what :meth:`forward_features` gives.

        Raises:
            ValueError: For options that do not fit.
        """
        check_choice('output_fmt', output_fmt, ('NCHW',))
        if norm and self.backbone.out_norm is None:
            raise ValueError(
                "norm=True needs norms on the maps: create the model with out_norm='output'"
            )
        if stop_early and not intermediates_only:
            raise ValueError('stop_early=True needs intermediates_only=True: no stage is left out')
        stages = self.backbone.stages
        take, last = feature_take_indices(len(stages), indices)
        state, maps = self.backbone.begin(x), []
        for i in range(last + 1 if intermediates_only else len(stages)):
            state = self.backbone.advance(i, state)
            if i in take:
                maps.append(self.backbone.emit(i, state[0]))
        return maps if intermediates_only else (self._to_pool(state), maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Prepare for these stages' maps alone.

        Stages after the last of them stay, for published files have them, but are not trained; so
        does ``out_norm``, which is the model's option.

        Args:
            indices (int | list[int]): As in :meth:`forward_intermediates`.
            prune_norm (bool): Of no effect.
            prune_head (bool): Whether neck and head are left out. Defaults to True.

        Returns:
            list[int]: The stages.
        """
        stages, norms = self.backbone.stages, self.backbone.out_norms
        take, last = feature_take_indices(len(stages), indices)
        for module in (*stages[last + 1 :], *norms[last + 1 :]):
            module.requires_grad_(False)
        if self.backbone.out_norm == 'output':
            for i in set(range(len(stages))) - set(take):
                norms[i] = nn.Identity()
        if prune_head:
            self.neck, self.head = nn.Identity(), nn.Identity()
        return take

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer, for ``num_classes``, and perhaps another pooling."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        self._start_classifier()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory by computing each block again in the backward pass."""
        stage: Any
        for stage in self.backbone.stages:
            stage.with_cp = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of the parameters' names that timm's layer-wise learning rates go by."""
        blocks: Any = r'^backbone\.stages\.(\d+)'
        if not coarse:
            # What a stage has besides its blocks counts as of the first.
            blocks = [
                (r'^backbone\.stages\.(\d+)\.blocks\.(\d+)', None),
                (r'^backbone\.stages\.(\d+)\.', (0,)),
                (r'^(?:backbone\.out_norms|neck)\.', MATCH_PREV_GROUP),
            ]
        return dict(stem=r'^backbone\.stem\.', blocks=blocks)

    def no_weight_decay(self) -> set[str]:
        """Learned positions and global tokens, as in our recipes; timm adds norms and biases."""
        return {name for name, _ in self.named_parameters() if _UNDECAYED.search(name)}

    def load_pretrained(self, checkpoint_path: str | os.PathLike[str], prefix: str = '') -> None:
        """Load a file: a published one, or one of ours.

        Raises:
            ValueError: As :func:`~mmvitbackbones.checkpoints.load_published`.
        """
        if prefix:
            raise ValueError(
                f'prefix must be empty, got {prefix!r}: files are known by their names'
            )
        _fill(self, read_checkpoint(checkpoint_path), str(checkpoint_path))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state dict of its own, as any module, or of a published file."""
        return _load(self, self, state_dict, strict=strict, assign=assign)

    def _to_pool(self, state: tuple[Tensor, ...]) -> Tensor:
        x = state[self.classified]
        height, width = x.shape[1:3] if x.dim() == 4 else (x.shape[1], 1)
        tokens = self.neck.tokens(x.movedim(-1, 1))
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def _start_classifier(self) -> None:
        if isinstance(self.head.fc, nn.Linear):
            nn.init.trunc_normal_(self.head.fc.weight, std=0.02)
            nn.init.zeros_(self.head.fc.bias)


class FeatureMaps(FeatureGetterNet):
    """timm's wrapper for ``features_only=True``, which also takes published files."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state dict of its own, as any module, or of a published file."""
        model: Any = self.model
        return _load(self, model, state_dict, strict=strict, assign=assign)


def _load(
    module: nn.Module,
    model: ImageClassifier,
    state: Mapping[str, Any],
    **options: bool,
) -> Any:
    if not state or module.state_dict().keys() & state.keys():
        return nn.Module.load_state_dict(module, state, **options)
    _fill(model, state)
    return _IncompatibleKeys([], [])


def _fill(model: ImageClassifier, weights: Mapping[str, Any], source: str = 'the file') -> None:
    """Load weights under published names, or ours, into what the model has."""
    if isinstance(model.head, nn.Identity):
        load_published(model.backbone, weights, source)
        return
    if model.num_classes == 0:
        tensors = tensors_of(weights, source)
        weights = {
            name: tensor
            for name, tensor in tensors.items()
            if not in_classifier(name).startswith('head.fc.')
        }
    load_published(model, weights, source)
