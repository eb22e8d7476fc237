"""What builds on timm takes the backbones: models of other packages train with them."""

import pytest

pytest.importorskip('timm')

import timm
import torch
from timm_models import NAMES, build, image
from torch import nn

import mmvitbackbones.timm  # noqa: F401  (registers the models)

every_family = pytest.mark.parametrize('family', NAMES)


def takes_a_step(model, loss):
    """Whether a step of gradient descent changes everything that can be trained."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss.backward()
    before = {name: p.detach().clone() for name, p in parameters.items()}
    without = [name for name, p in parameters.items() if p.grad is None]
    torch.optim.SGD(parameters.values(), lr=0.1).step()
    moved = [name for name, p in parameters.items() if not torch.equal(p, before[name])]
    assert loss.isfinite() and not without, without
    # A gradient may be zero, as those of biases before norms are.
    return len(moved) > 0.8 * len(parameters)


@pytest.mark.parametrize('head', ['Unet', 'UPerNet'])
@pytest.mark.parametrize(
    'name',
    [
        'regionvit_small',
        *(pytest.param(n, marks=pytest.mark.sweep) for n in ('focal_tiny', 'rmt_tiny', 'vil_tiny')),
    ],
)
def test_segmentation_models_pytorch(head, name):
    smp = pytest.importorskip('segmentation_models_pytorch')
    torch.manual_seed(0)
    model = getattr(smp, head)(f'tu-{name}', encoder_weights=None, classes=3)
    masks = model(image(64, 96))
    assert masks.shape == (2, 3, 64, 96)
    target = torch.randint(0, 3, (2, 64, 96))
    assert takes_a_step(model, nn.functional.cross_entropy(masks, target))


@every_family
def test_detr_of_transformers(family):
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    backbone = transformers.TimmBackboneConfig(backbone=NAMES[family], out_indices=[2, 3])
    small = dict(d_model=32, encoder_layers=1, decoder_layers=1, num_queries=5)
    heads = dict(encoder_attention_heads=2, decoder_attention_heads=2)
    wide = dict(encoder_ffn_dim=32, decoder_ffn_dim=32)
    config = transformers.DetrConfig(
        backbone_config=backbone, num_labels=3, **small, **heads, **wide
    )
    model = transformers.DetrForObjectDetection(config)
    expected = timm.create_model(NAMES[family]).backbone.channels
    assert model.model.backbone.intermediate_channel_sizes == list(expected[2:])
    labels = [dict(class_labels=torch.tensor([1]), boxes=torch.tensor([[0.5, 0.5, 0.2, 0.3]]))]
    out = model(image(64, 96, batch=1), labels=labels)
    assert out.pred_boxes.shape == (1, 5, 4)
    out.loss.backward()
    body = model.model.backbone.model
    assert all(p.grad is not None for p in body.parameters() if p.requires_grad)


@every_family
def test_mask_rcnn_of_torchvision(family):
    """As the page of documentation puts it together, which test_docs runs."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

    class Pyramid(nn.Module):
        out_channels = 16

        def __init__(self):
            super().__init__()
            self.body = build(family, features_only=True, out_norm='output')
            channels = self.body.feature_info.channels()
            self.fpn = FeaturePyramidNetwork(channels, self.out_channels, LastLevelMaxPool())

        def forward(self, x):
            return self.fpn({str(i): m for i, m in enumerate(self.body(x))})

    torch.manual_seed(0)
    model = MaskRCNN(Pyramid(), num_classes=3, min_size=64, max_size=96)
    masks = torch.zeros(1, 64, 96, dtype=torch.uint8)
    masks[:, 10:40, 20:60] = 1
    boxes = torch.tensor([[20.0, 10.0, 60.0, 40.0]])
    target = dict(boxes=boxes, labels=torch.tensor([1]), masks=masks)
    losses = model(list(image(batch=1)), [target])
    sum(losses.values()).backward()
    body = model.backbone.body
    assert set(losses) >= {'loss_classifier', 'loss_mask'}
    assert all(p.grad is not None for p in body.parameters() if p.requires_grad)
    (found,) = model.eval()(list(image(75, 90, batch=1)))
    assert found['masks'].shape[1:] == (1, 75, 90)
