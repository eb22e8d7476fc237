"""Both ways through an operation, and memory that shows what was never written."""

import contextlib

import pytest
import torch

from mmvitbackbones.ops import plain, why_plain


@pytest.fixture(params=['kernel', 'plain'])
def body(request):
    """A kernel computes, or the plain body that it has to equal."""
    with contextlib.nullcontext() if request.param == 'kernel' else plain():
        assert (why_plain(torch.zeros(1)) is None) == (request.param == 'kernel')
        yield request.param


@pytest.fixture
def poisoned_memory():
    """Memory that nobody has filled holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
