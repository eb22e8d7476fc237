"""The attention call against softmax attention written out."""

import pytest
import torch

from mmvitbackbones.layers import SelfAttention
from mmvitbackbones.layers import attention as attention_module
from mmvitbackbones.layers.attention import attention


def naive(q, k, v, bias, valid):
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            keys = range(k.shape[2])
            if valid is not None:
                keys = [j for j in keys if valid[b % len(valid), j]]
            for i in range(q.shape[2]):
                scores = [q[b, h, i] @ k[b, h, j] / q.shape[-1] ** 0.5 for j in keys]
                if bias is not None:
                    scores = [s + bias[h, i, j] for s, j in zip(scores, keys)]
                weights = torch.stack(scores).softmax(0)
                out[b, h, i] = sum(w * v[b, h, j] for w, j in zip(weights, keys))
    return out


def make(windows=3, samples=2, heads=2, queries=4, keys=5, dims=3, masked=True):
    torch.manual_seed(0)
    shape = (windows * samples, heads)
    q = torch.randn(*shape, queries, dims, dtype=torch.float64, requires_grad=True)
    k = torch.randn(*shape, keys, dims, dtype=torch.float64, requires_grad=True)
    v = torch.randn(*shape, keys, dims, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(heads, queries, keys, dtype=torch.float64, requires_grad=True)
    valid = torch.ones(windows, keys, dtype=torch.bool)
    valid[1, 3:] = valid[2, :4] = False
    return q, k, v, bias, valid if masked else None


@pytest.fixture(params=['blocks', 'library'])
def path(request, monkeypatch):
    """Both ways through the call: the CPU function, and torch's own as on other devices."""
    if request.param == 'library':
        monkeypatch.setattr(attention_module, '_suits_blocks', lambda *args: False)


@pytest.fixture(params=['one block', 'many blocks'])
def blocks(request, monkeypatch):
    if request.param == 'many blocks':
        monkeypatch.setattr(attention_module, '_BLOCK_BYTES', 2 * 2 * 4 * 5 * 4)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('biased', [False, True])
def test_equals_naive(path, blocks, biased, masked):
    q, k, v, bias, valid = make(masked=masked)
    bias = bias if biased else None
    torch.testing.assert_close(attention(q, k, v, bias, valid), naive(q, k, v, bias, valid))


@pytest.mark.parametrize('masked', [False, True])
def test_gradients(path, blocks, masked):
    *inputs, valid = make(masked=masked)
    assert torch.autograd.gradcheck(lambda *x: attention(*x, valid), inputs)


def test_gradients_without_bias(blocks):
    q, k, v, _, valid = make()
    assert torch.autograd.gradcheck(lambda *x: attention(*x, None, valid), (q, k, v))


def test_views_of_one_projection():
    """Queries, keys and values as strided views of one tensor, as blocks pass them."""
    qkv = torch.randn(4, 6, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True)

    def run(qkv, bias):
        return attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0), bias)

    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    torch.testing.assert_close(run(qkv, bias), naive(q, k, v, bias, None))
    assert torch.autograd.gradcheck(run, (qkv, bias))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_types(path, dtype):
    """In half types the result and the gradients stay within their rounding."""
    precise = make()
    half = [x.detach().to(dtype).requires_grad_() for x in precise[:3]]
    bias = precise[3].detach().float().requires_grad_()
    out = attention(*half, bias, precise[4])
    expected = attention(*precise)
    out.float().square().sum().backward()
    expected.square().sum().backward()
    assert out.dtype == dtype
    tolerance = dict(atol=0.1, rtol=0.05)
    torch.testing.assert_close(out.double(), expected, **tolerance)
    for found, wanted in zip([*half, bias], precise[:4]):
        torch.testing.assert_close(found.grad.double(), wanted.grad, **tolerance)


def test_dropout_drops_weights_in_training_only():
    torch.manual_seed(0)
    layer = SelfAttention(8, 2, attn_drop=0.5)
    x = torch.randn(3, 6, 8)
    assert not torch.allclose(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x))


def test_groups_of_windows_without_gradients(monkeypatch):
    """In inference, groups that do not divide the windows, nor the samples, change nothing."""
    torch.manual_seed(0)
    layer = SelfAttention(8, 2).double()
    x = torch.randn(2 * 5, 4, 8, dtype=torch.float64)
    bias = torch.randn(2, 4, 4, dtype=torch.float64)
    valid = torch.rand(5, 4) > 0.4
    valid[:, 0] = True
    expected = layer(x, bias, valid)
    monkeypatch.setattr(attention_module, '_GROUP', 3 * 4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, bias, valid), expected)


def test_scores_keep_their_precision_under_autocast():
    """A bias far larger than a half type's steps still tells neighbours apart."""
    q = torch.zeros(1, 1, 1, 2, dtype=torch.bfloat16)
    k = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)
    v = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.bfloat16)[None, None]
    bias = torch.tensor([[[1000.0, 1001.0]]])
    with torch.autocast('cpu', torch.bfloat16):
        out = attention(q, k, v, bias)
    torch.testing.assert_close(out.float(), torch.full((1, 1, 1, 2), 0.731), atol=5e-3, rtol=0)
