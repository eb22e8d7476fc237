"""A batch without images: as torch's modules, which give empty maps and gradients of zero."""

import pytest
import torch
from tiny_backbones import OPTIONS, build, image


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('family', OPTIONS)
def test_an_empty_batch(family, training):
    model = build(family).train(training)
    whole = model(image(64, 91))
    images = image(64, 91)[:0].requires_grad_()
    maps = model(images)
    assert [m.shape for m in maps] == [(0, *m.shape[1:]) for m in whole]
    sum(m.sum() for m in maps).backward()
    assert images.grad.shape == images.shape
    # A parameter without any would make other processes wait.
    assert not [n for n, p in model.named_parameters() if p.grad is None or p.grad.any()]
    state = model.state_dict()
    assert all(torch.isfinite(t).all() for t in state.values())
