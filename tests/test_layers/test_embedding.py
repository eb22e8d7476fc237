"""Patch embeddings against their definition, patch by patch."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmvitbackbones.layers import PatchEmbedding, PatchStem


@pytest.mark.parametrize('size', [(8, 12), (9, 7), (1, 2), (3, 10)])
@pytest.mark.parametrize(
    'stride, kernel, padding', [(4, None, 0), (2, None, 0), (4, 7, 2), (2, 3, 1)]
)
def test_equals_its_definition(stride, kernel, padding, size):
    """Zeros only at the bottom and right, as far as the last patches reach, but for padding."""
    torch.manual_seed(0)
    layer = PatchEmbedding(3, 5, stride, kernel, padding).double()
    torch.nn.init.normal_(layer.norm.weight)
    torch.nn.init.normal_(layer.norm.bias)
    kernel = kernel or stride
    x = torch.randn(2, *size, 3, dtype=torch.float64)
    rows, columns = (math.ceil(side / stride) for side in size)
    found = layer(x)
    assert found.shape == (2, rows, columns, 5)
    for row in range(rows):
        for column in range(columns):
            token = layer.conv.bias.repeat(2, 1)
            for i in range(kernel):
                for j in range(kernel):
                    y, z = row * stride + i - padding, column * stride + j - padding
                    if y in range(size[0]) and z in range(size[1]):
                        token = token + x[:, y, z] @ layer.conv.weight[:, :, i, j].T
            expected = F.layer_norm(token, (5,), layer.norm.weight, layer.norm.bias, eps=1e-5)
            torch.testing.assert_close(found[:, row, column], expected)


@pytest.mark.parametrize('kind', [PatchEmbedding, PatchStem])
@pytest.mark.parametrize('options, eps', [({}, 1e-5), (dict(eps=1e-6), 1e-6), (dict(eps=3.0), 3.0)])
def test_eps_of_the_norm(kind, options, eps):
    """Also of an image; its patches differ so little that it counts."""
    torch.manual_seed(0)
    layer = kind(3, 5, 2, **options).double()
    torch.nn.init.zeros_(layer.conv.bias)
    image = 1e-2 * torch.randn(2, 3, 5, 6, dtype=torch.float64)
    found = layer(image)[0] if kind is PatchStem else layer(image.permute(0, 2, 3, 1))
    tokens = layer.conv(F.pad(image, (0, 0, 0, 1))).permute(0, 2, 3, 1)
    deviation = tokens.var(-1, keepdim=True, unbiased=False) + eps
    expected = (tokens - tokens.mean(-1, keepdim=True)) / deviation.sqrt()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
