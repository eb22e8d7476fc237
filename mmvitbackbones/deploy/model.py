"""What of a model is exported: images in, named tensors out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..checkpoints import is_classifier
from ..checkpoints.family import family_of

# Outputs of a dense head, by their place in what it returns.
_OUTPUTS = ('cls_score', 'bbox_pred', 'centerness')


@dataclass(frozen=True)
class Normalisation:
    """What a config does to pixels before the model.

    Args:
        mean (Sequence[float]): Taken off each channel, in the order of the model's channels.
        std (Sequence[float]): Divides each channel.
        channels (str): 'RGB' or 'BGR', the model's order.
    """

    mean: Sequence[float]
    std: Sequence[float]
    channels: str

    @classmethod
    def of(cls, cfg: Config, in_channels: int = 3) -> Normalisation:
        """The one of a config, whose reader gives BGR.

        Raises:
            ValueError: If it is for images of other channels.
        """
        model = cfg.model.get('data_preprocessor') or {}
        found = {**(cfg.get('data_preprocessor') or {}), **model}
        turned = any(found.get(key) for key in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'))
        for key in ('mean', 'std'):
            if len(found.get(key) or [0] * in_channels) != in_channels:
                raise ValueError(
                    f'data_preprocessor.{key} has {len(found[key])} values, the backbone has '
                    f'in_channels={in_channels}'
                )
        return cls(
            mean=list(found.get('mean') or [0.0] * in_channels),
            std=list(found.get('std') or [1.0] * in_channels),
            channels='RGB' if turned else 'BGR',
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise pixels of 0 to 255, (B, C, H, W), BGR."""
        if self.channels == 'RGB':
            pixels = pixels.flip(1)
        mean, std = (pixels.new_tensor(x).view(1, -1, 1, 1) for x in (self.mean, self.std))
        return (pixels - mean) / std


class OutputModel(nn.Module):
    """A model whose outputs are tensors with names, for exporters.

    Of a classifier and a segmenter the logits, a segmenter's resized to the image; of a detector
    with regions the neck's maps and the raw outputs of its RPN; of other detectors the raw outputs
    of the dense head.

    Args:
        model (nn.Module): A classifier, segmenter or detector of an OpenMMLab toolbox, or anything
            else that returns maps, such as a backbone.
        normalisation (Normalisation, optional): Takes pixels of 0 to 255, BGR, instead of
            normalised images.
        dtype (torch.dtype): In which the model computes; images and outputs stay in float32.
            Defaults to float32.
    """

    def __init__(
        self,
        model: nn.Module,
        normalisation: Normalisation | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model = (model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)).eval()
        self.normalisation = normalisation
        self.dtype = dtype

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, float32, of images (B, C, H, W), float32."""
        return tuple(self.named(images).values())

    def named(self, images: Tensor) -> dict[str, Tensor]:
        """As :meth:`forward`, with the names of the outputs."""
        if self.normalisation is not None:
            images = self.normalisation(images)
        outputs = raw_outputs(self.model, images.to(self.dtype))
        return {name: output.float() for name, output in outputs.items()}


def raw_outputs(model: Any, images: Tensor) -> dict[str, Tensor]:
    """The outputs of a model that an exporter can follow, by name."""
    if hasattr(model, 'encode_decode'):
        size = dict(img_shape=tuple(images.shape[2:]))
        return dict(logits=model.encode_decode(images, [size]))
    if is_classifier(model):
        return dict(logits=model(images, mode='tensor'))
    if family_of(model) is not None:
        return _maps(model(images))
    if hasattr(model, 'bbox_head'):
        return _of_dense_head(model.bbox_head, model.extract_feat(images))
    if hasattr(model, 'rpn_head'):
        maps = model.extract_feat(images)
        return {**_maps(maps), **_of_rpn(model.rpn_head, maps)}
    raise ValueError(
        f'{type(model).__name__} is no classifier, segmenter or detector of boxes: export its '
        'backbone by mmvitbackbones.deploy'
    )


def drop_unused(model: nn.Module) -> None:
    """Remove the parts of a model that :func:`raw_outputs` does not run."""
    for name in ('roi_head', 'auxiliary_head'):
        if hasattr(model, name):
            delattr(model, name)


def _maps(maps: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f'map_{level}': each for level, each in enumerate(maps)}


def _of_rpn(rpn_head: Any, maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """Nothing of Sparse R-CNN, whose proposals are learned."""
    if type(rpn_head).__name__ == 'EmbeddingRPNHead':
        return {}
    outputs = _of_dense_head(rpn_head, maps)
    return {f'rpn_{name}': output for name, output in outputs.items()}


def _of_dense_head(head: Any, maps: Sequence[Tensor]) -> dict[str, Tensor]:
    outputs = head(maps)
    has_centerness = any('centerness' in name for name, _ in head.named_children())
    names = _OUTPUTS if has_centerness else _OUTPUTS[:2]
    if len(outputs) != len(names) or not all(isinstance(each, (list, tuple)) for each in outputs):
        raise ValueError(
            f'{type(head).__name__} cannot be exported: it gives something else than '
            f'{", ".join(names)} of each level'
        )
    return {
        f'{name}_{level}': each
        for name, levels in zip(names, outputs)
        for level, each in enumerate(levels)
    }
