"""Published RegionViT weights: bias tables, and what other windows ask for."""

import pytest
import torch
import torch.nn.functional as F
from published_files import REGIONVIT

from mmvitbackbones.checkpoints import load_published


@pytest.mark.parametrize('window', [2, 3, 4, 7, 14])
def test_tables_give_the_published_bias(window):
    """Query and key read row (ky - qy + M // 2) mod (2M - 1), the column likewise."""
    state, model = REGIONVIT.state(window_size=window), REGIONVIT.build(window_size=window)
    load_published(model, state)
    side = 2 * window - 1
    y, x = (c.flatten() for c in torch.meshgrid(*[torch.arange(window)] * 2, indexing='ij'))
    row = (y[None, :] - y[:, None] + window // 2) % side
    column = (x[None, :] - x[:, None] + window // 2) % side
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage.blocks):
            table = state[f'layers.{i}.block.{j + 1}.attn.rel_pos']
            assert torch.equal(block.bias(), table[:, row * side + column])


def test_resized_tables_keep_their_offsets():
    """A bias that is smooth in the offset, relative to the window, stays the same function."""
    offsets = torch.arange(-6, 7) / 7
    grid = torch.outer(torch.cos(2 * offsets), torch.exp(-offsets))
    # The published order: offset o in row (o + M // 2) mod (2M - 1).
    order = (torch.arange(-6, 7) + 3) % 13
    rolled = torch.empty_like(grid)
    rolled[order[:, None], order] = grid
    state = {**REGIONVIT.state(), 'layers.0.block.1.attn.rel_pos': rolled.flatten()[None]}
    model = REGIONVIT.build(window_size=14)
    load_published(model, state)
    # Pixel centres: offset o of 14 lies where offset o * 13 / 27 of 7 does.
    wide = torch.arange(-13, 14) * 13 / 27 / 7
    expected = torch.outer(torch.cos(2 * wide), torch.exp(-wide))
    found = model.stages[0].blocks[0].bias.table.detach().view(27, 27)
    # The interpolation repeats the border's values beyond it.
    assert (found - expected)[4:-4, 4:-4].abs().max() < 0.015 * expected.abs().max()


@pytest.mark.parametrize('window', [14, 28])
def test_regional_tokens_keep_their_scale(window):
    """Regional tokens of an image that is enlarged with the window."""
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing='ij')
    channels = [
        torch.sin(x / 17 + y / 29),
        torch.cos(y / 13),
        torch.sin(x / 23) * torch.cos(y / 31),
    ]
    image = torch.stack(channels)[None]
    tokens = []
    for size in (7, window):
        model = REGIONVIT.build(window_size=size)
        load_published(model, REGIONVIT.state())
        scaled = F.interpolate(image, scale_factor=size / 7, mode='bicubic')
        with torch.no_grad():
            tokens.append(model.stem(scaled)[1])
    small, large = tokens
    assert small.shape == large.shape == (1, 4, 4, 8)
    assert abs(large.std() / small.std() - 1) < 0.1
    assert (large - small).std() < 0.1 * small.std()
