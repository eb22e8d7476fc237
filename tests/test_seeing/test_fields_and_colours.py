"""Receptive fields, colours of features, and Grad-CAM."""

import numpy as np
import pytest
import torch
from tiny_backbones import OPTIONS, build, image
from torch import nn

from mmvitbackbones.ops import why_plain
from mmvitbackbones.seeing.colours import principal_colours
from mmvitbackbones.seeing.grad_cam import grad_cam
from mmvitbackbones.seeing.receptive_field import receptive_field
from mmvitbackbones.seeing.subject import stages_of


def test_theoretical_field_is_that_of_window_and_stem():
    """A window of 3 x 3 tokens, each of 8 x 8 pixels that begin 3 before its 4 x 4."""
    arch = dict(OPTIONS['RegionViT']['arch'], stem='1-conv', regional=False)
    model = build('RegionViT', arch=arch).eval()
    field = receptive_field(model, image(64, 96), 0, y=30, x=41)  # row 7, column 10
    assert field.token == (30.0, 42.0)
    assert field.box() == (6 * 4 - 3, 9 * 4 - 3, 8 * 4 + 5, 11 * 4 + 5)


@pytest.mark.parametrize('family', OPTIONS)
def test_field_is_where_pixels_matter(family):
    """What is beyond it may be anything; the strongest pixel moves the token."""
    model, x = build(family).eval(), image(64, 96)
    field = receptive_field(model, x, 1, 20, 40)
    before = tokens_of(model, x, 1)[20 // 8, 40 // 8]
    outside = (field.strength == 0).expand(3, -1, -1)
    other = x.clone()
    other[0][outside] += 1
    torch.testing.assert_close(tokens_of(model, other, 1)[20 // 8, 40 // 8], before)
    y, place = divmod(int(field.strength.argmax()), 96)
    other = x.clone()
    other[0, :, y, place] += 1e-3
    assert (tokens_of(model, other, 1)[20 // 8, 40 // 8] - before).abs().max() > 1e-6
    assert 0 < field.radius(0.5) <= field.radius(0.9) <= (64**2 + 96**2) ** 0.5
    assert why_plain(x) is None and next(model.parameters()).grad is None


@torch.no_grad()
def tokens_of(model, x, stage):
    found = []
    hook = lambda module, inputs, output: found.append(output[0][0])  # noqa: E731
    handle = model.stages[stage].register_forward_hook(hook)
    model(x)
    handle.remove()
    return found[0]


def test_half_of_the_strength_lies_within_the_radius():
    field = receptive_field(build('RMT').eval(), image(64, 64), 2, 31, 17)
    y = torch.arange(64)[:, None] + 0.5 - field.token[0]
    x = torch.arange(64) + 0.5 - field.token[1]
    within = (y**2 + x**2).sqrt() <= field.radius(0.5) + 1e-9
    assert 0.5 <= field.strength[within].sum() / field.strength.sum() < 0.55


def test_principal_colours():
    """Directions shared by all maps; a map without any variation, or of few tokens, is grey."""
    first, second = torch.zeros(5, 6, 8), torch.zeros(5, 3, 4)
    first[2, :, :4], second[2] = 1, 1
    ours, other = principal_colours([first, second])
    assert ours.shape == (6, 8, 3) and other.shape == (3, 4, 3) and ours.dtype == np.uint8
    assert (ours[:, :4] == other[0, 0]).all() and (ours[0, 0] != ours[0, 7]).any()
    for flat in (torch.ones(4, 5, 5), torch.rand(4, 1, 2), torch.rand(2, 5, 5)):
        assert principal_colours([flat])[0].shape == (*flat.shape[1:], 3)


class ImageClassifier(nn.Module):
    """As mmpretrain's, by name too: logits of the mean of the last map."""

    def __init__(self, backbone, classes=4):
        super().__init__()
        self.backbone = backbone
        torch.manual_seed(3)
        self.head = nn.Linear(backbone.channels[-1], classes).double()

    def forward(self, images, mode):
        assert mode == 'tensor'
        return self.head(self.backbone(images)[-1].mean((2, 3)))


def test_grad_cam_is_its_definition():
    """Each channel by its mean slope, summed, what is below zero left out (Eq. 1 and 2)."""
    model, x = ImageClassifier(build('FocalTransformer').eval()), image(64, 96)
    backbone = model.backbone
    with torch.no_grad():
        state = backbone.stem(x)
        for stage in backbone.stages[:3]:
            state = stage(*state)
        tokens = backbone.stages[3].downsample(state[0])
    tokens.requires_grad_()
    last = backbone.stages[3].blocks[0](tokens)
    logits = model.head(backbone.out_norms[3](last).mean((1, 2)))[0]
    for label in range(4):
        (slope,) = torch.autograd.grad(logits[label], tokens, retain_graph=True)
        expected = (tokens * slope.mean((1, 2), keepdim=True)).sum(-1)[0].clamp(min=0).detach()
        seen, found, score = grad_cam(model, x, label, 3)
        assert found == label and score == pytest.approx(float(logits[label]))
        np.testing.assert_allclose(seen, expected / expected.max().clamp(min=1e-12), atol=1e-9)
    assert grad_cam(model, x, None, 3)[1] == int(logits.argmax())


@pytest.mark.parametrize('family', OPTIONS)
@pytest.mark.parametrize('size', [(96, 96), (75, 101)])
def test_grad_cam_of_every_stage(family, size):
    model = ImageClassifier(build(family).eval())
    for stage, _ in enumerate(stages_of(model.backbone)):
        seen, _, _ = grad_cam(model, image(*size), 1, stage)
        stride = model.backbone.strides[stage]
        assert seen.shape == tuple(-(-side // stride) for side in size)
        assert seen.min() >= 0 and seen.max() in (0, 1) and np.isfinite(seen).all()


def test_grad_cam_of_a_stage_without_a_part():
    model = ImageClassifier(build('RMT').eval())
    forward = model.forward
    model.forward = lambda images, mode: forward(images, mode).detach() + images.mean()
    with pytest.raises(ValueError, match='does not depend on stage 1'):
        grad_cam(model, image(64, 64), 0, 0)
