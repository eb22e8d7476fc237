"""The decay of attention with the distance; the attention itself: see the tests of RMT."""

import math

import numpy as np
import pytest
import torch

from mmvitbackbones.ops.manhattan import log_decay, log_gammas

CPU = torch.device('cpu')


@pytest.mark.parametrize('interval', [(2, 6), (2, 8), (0.5, 1)])
@pytest.mark.parametrize('heads', [1, 3, 4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_decay_with_the_distance(dtype, heads, interval):
    """gamma ** distance of Eq. 8; the logarithm of gamma is a float32 value."""
    found = log_decay(log_gammas(heads, interval), 7, CPU, dtype)
    assert found.shape == (heads, 7, 7) and found.dtype == dtype
    a, b = interval
    for n in range(heads):
        gamma = 1 - 2 ** (-a - (b - a) * n / heads)
        one = found[n, 0, 1].item()
        assert one == float(np.float32(one)) == pytest.approx(math.log(gamma), rel=1e-7)
        for i in range(7):
            for j in range(7):
                assert found[n, i, j].item() == pytest.approx(one * abs(i - j), rel=1e-6)
    assert found.diagonal(0, 1, 2).abs().max() == 0
    assert torch.equal(found, found.mT)


def test_decay_of_a_single_token():
    assert torch.equal(
        log_decay(log_gammas(3, (2, 6)), 1, CPU, torch.float32), torch.zeros(3, 1, 1)
    )
