"""A backbone with its weights, and an image as it sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ..backbones.pyramid import MIN_SIZE, Pyramid, Stage
from ..checkpoints import load_published, read_checkpoint
from ..deploy.model import Normalisation
from ..running.carried_config import test_dataset
from ..running.image_files import read_pixels
from ..running.loading import load_complete
from ..running.predicting import build_with_own_backbone, classes_and_colours, config_for


@dataclass
class Subject:
    """A backbone, and an image as it sees it.

    Attributes:
        name (str): What pictures call it.
        backbone (Pyramid): In evaluation mode.
        model (Any, optional): The whole model; None where the file holds the backbone alone.
        image (Tensor): (1, C, H, W), normalised.
        picture (np.ndarray): The same for people, RGB (H, W, 3).
        classes (list[str]): Names of the model's classes.
    """

    name: str
    backbone: Pyramid
    model: Any
    image: Tensor
    picture: np.ndarray
    classes: list[str]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[2], self.image.shape[3]


def read_picture(path: str, longest: int) -> np.ndarray:
    """Read an image, and reduce it where its longer side is too long.

    Args:
        path (str): The file.
        longest (int): Pixels of the longer side, at most.

    Returns:
        np.ndarray: BGR (H, W, 3).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image, or too small.
    """
    pixels = read_pixels(path)
    scale = min(1.0, longest / max(pixels.shape[:2]))
    height, width = (round(side * scale) for side in pixels.shape[:2])
    if min(height, width) < MIN_SIZE:
        raise ValueError(
            f'{path}: {width} x {height} pixels at --size {longest}; backbones take at least '
            f'{MIN_SIZE} x {MIN_SIZE}'
        )
    if scale == 1:
        return pixels
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def read_subject(
    path: str,
    config: str | None,
    pixels: np.ndarray,
    cfg_options: Mapping[str, Any] | None = None,
) -> Subject:
    """Build a model, and load its weights, or those of its backbone alone.

    Args:
        path (str): The checkpoint, of a training or as published.
        config (str, optional): The config; None: that in the checkpoint.
        pixels (np.ndarray): The image, BGR (H, W, 3).
        cfg_options (Mapping[str, Any], optional): Settings that override the config.

    Returns:
        Subject: Ready to be looked at.

    Raises:
        ValueError: If the checkpoint does not fit, or the backbone is none of this package.
    """
    checkpoint = read_checkpoint(path)
    cfg = config_for(checkpoint, path, config, cfg_options)
    model, whole = _filled(cfg, checkpoint, path)
    classes, _ = classes_and_colours(cfg, checkpoint, test_dataset(cfg))
    backbone = model.backbone
    picture = pixels
    if backbone.in_channels == 1:
        picture = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)[..., None]
    elif backbone.in_channels != 3:
        raise ValueError(
            f'{path}: pictures have 3 channels or 1, the backbone takes {backbone.in_channels}'
        )
    tensor = torch.tensor(np.ascontiguousarray(picture), dtype=torch.float32)
    normalise = Normalisation.of(cfg, backbone.in_channels)
    return Subject(
        name=_name(path, config),
        backbone=backbone,
        model=model if whole else None,
        image=normalise(tensor.permute(2, 0, 1)[None]),
        picture=np.broadcast_to(picture[..., ::-1], pixels.shape),
        classes=classes,
    )


def _filled(cfg: Config, checkpoint: Mapping[str, Any], path: str) -> tuple[Any, bool]:
    """The model, and whether all of it has its weights, or its backbone alone."""
    model = build_with_own_backbone(cfg, path)
    for stage in stages_of(model.backbone):
        stage.with_cp = False  # hooks would see each block twice
    try:
        load_complete(model, checkpoint, path)
    except ValueError as whole:
        try:
            load_published(model.backbone, checkpoint, source=path)
        except ValueError:
            raise whole from None
        return model, False
    return model, True


def _name(path: str, config: str | None) -> str:
    """A file of a training is called as its folder, which its config gave the name."""
    stem = os.path.splitext(os.path.basename(path))[0]
    if config is None and stem.startswith(('epoch_', 'iter_', 'best_')):
        return os.path.basename(os.path.dirname(os.path.abspath(path)))
    return stem


def stages_of(backbone: Pyramid) -> list[Stage]:
    """The stages that run: those up to the last that is emitted."""
    return [cast(Stage, stage) for stage in backbone.stages[: backbone.out_indices[-1] + 1]]
