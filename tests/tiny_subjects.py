"""Tiny backbones that look at a small picture, for tests."""

import numpy as np
import torch
from tiny_backbones import build

from mmvitbackbones.seeing.subject import Subject


def subject(family, size=(64, 96), name=None, **options):
    """A backbone in float32, and a picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    image = torch.tensor(pixels).permute(2, 0, 1)[None] / 255
    backbone = build(family, dtype=torch.float32, **options).eval()
    return Subject(name or family, backbone, None, image, pixels, [])
