"""Models of timm, as the tests here make them."""

import timm
import tiny_backbones
import torch

import mmvitbackbones.timm  # noqa: F401  (registers them)

NAMES = dict(
    RegionViT='regionvit_tiny',
    FocalTransformer='focal_tiny',
    RMT='rmt_tiny',
    VisionLongformer='vil_tiny',
)


def build(family, seed=0, **options):
    """The family's tiny model, by timm; all of its parameters random."""
    torch.manual_seed(seed)
    options = {'drop_path_rate': 0.0, **tiny_backbones.OPTIONS[family], **options}
    return tiny_backbones.randomise(timm.create_model(NAMES[family], **options))


def image(height=64, width=96, batch=2):
    """Random images, float32."""
    return tiny_backbones.image(height, width, batch, torch.float32)
