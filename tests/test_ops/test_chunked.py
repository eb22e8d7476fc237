"""Computing part by part, against computing at once."""

import pytest
import torch
from torch import nn

from mmvitbackbones.ops import chunked
from mmvitbackbones.ops.attention import softmax_attention
from mmvitbackbones.ops.chunked import (
    at_a_time,
    in_groups,
    in_parts,
    place_on_map,
    slices,
    token_slices,
)

PARTS = {
    'one': [(0, 7)],
    'one by one': [(i, i + 1) for i in range(7)],
    'of several lengths': [(0, 2), (2, 3), (3, 7)],
}
parts = pytest.mark.parametrize('parts', PARTS.values(), ids=PARTS)


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


class Attend:
    """Attention of some queries, and a record of the calls."""

    def __init__(self, q):
        self.q, self.calls = q, []

    def __call__(self, part, k, v, bias):
        self.calls.append(((part.start, part.stop), bias.requires_grad))
        q = self.q[:, :, part]
        return softmax_attention(q.double(), k.double(), v.double(), bias[:, part].double()).to(
            q.dtype
        )


@parts
def test_parts_equal_the_whole(parts):
    """Also gradients: of what all parts share, and of what each reads a part of."""
    torch.manual_seed(0)
    inputs = [draw(2, 2, length, 4) for length in (7, 9, 9)] + [draw(2, 7, 9)]
    whole = softmax_attention(*inputs)
    attend = Attend(inputs[0])
    ours = in_parts(attend, inputs[1:], [slice(*part) for part in parts], 7, dim=2)
    torch.testing.assert_close(ours, whole)
    slope = torch.randn_like(whole)
    found = torch.autograd.grad(ours, inputs, slope)
    torch.testing.assert_close(found, torch.autograd.grad(whole, inputs, slope))
    # Each pass computes each part once.
    assert sorted(calls for calls, _ in attend.calls) == sorted([*parts] * 2)


@pytest.mark.parametrize('fixed', range(4))
def test_parts_without_one_of_the_gradients(fixed):
    torch.manual_seed(0)
    inputs = [draw(1, 2, length, 4) for length in (7, 9, 9)] + [draw(2, 7, 9)]
    inputs[fixed].requires_grad_(False)
    in_parts(Attend(inputs[0]), inputs[1:], slices(7, 3), 7, dim=2).sum().backward()
    assert [x.grad is None for x in inputs] == [i == fixed for i in range(4)]


def test_no_part_sees_a_gradient_where_none_is_asked_for():
    """A view of a parameter would; no fused kernel takes a bias with a gradient."""
    q, k, v, bias = draw(1, 2, 7, 4), draw(1, 2, 9, 4), draw(1, 2, 9, 4), draw(2, 7, 9)
    attend = Attend(q)
    with torch.no_grad():
        ours = in_parts(attend, (k, v, bias[:]), slices(7, 3), 7, dim=2)
        torch.testing.assert_close(ours, softmax_attention(q, k, v, bias))
    assert attend.calls == [((0, 3), False), ((3, 6), False), ((6, 7), False)]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_sums_over_parts_are_rounded_once(dtype):
    """Of half types, over as many parts as there are queries: as good as of all at once."""
    torch.manual_seed(0)
    q, k, v = (draw(1, 1, 400, 4, dtype=dtype) for _ in range(3))
    bias = draw(1, 400, 400, dtype=dtype)
    inputs = [q, k, v, bias]
    ours = in_parts(Attend(q), inputs[1:], slices(400, 1), 400, dim=2)
    slope = torch.rand_like(ours)  # of one sign, so that sums grow
    found = torch.autograd.grad(ours, inputs, slope)
    precise = [x.detach().double().requires_grad_() for x in inputs]
    wanted = torch.autograd.grad(softmax_attention(*precise), precise, slope.double())
    for grad, theirs in zip(found, wanted):
        assert grad.dtype == dtype
        error = (grad.double() - theirs).abs().max()
        assert error < 3 * torch.finfo(dtype).eps * theirs.abs().max()


def test_random_numbers_are_the_same_in_the_backward_pass():
    x = torch.ones(40, requires_grad=True)
    ours = in_parts(
        lambda part, x: nn.functional.dropout(x[part]), [x], slices(40, 7), 40, dim=0, random=True
    )
    assert 0 < ours.count_nonzero() < 40
    torch.rand(5)
    (grad,) = torch.autograd.grad(ours.sum(), x)
    assert torch.equal(grad, ours)


@pytest.mark.parametrize('through', ['trace', 'vmap'])
def test_recorders_see_one_part(through):
    """The number of parts depends on the size, which a recorded graph must not."""
    calls = []

    def double(x):
        def compute(part, x):
            calls.append((part.start, part.stop))
            return 2 * x[part]

        return in_parts(compute, [x], slices(6, 2), 6, dim=0)

    x = torch.randn(6, 6)
    if through == 'vmap':
        ours = torch.func.vmap(double)(x)
    else:
        ours = torch.jit.trace(double, x, check_trace=False)(x)
    assert torch.equal(ours, 2 * x)
    assert set(calls) == {(0, 6)}


@pytest.mark.parametrize(
    'size, count, expected',
    [
        ((3, 4), 99, [(0, 12)]),
        ((3, 4), 11, [(0, 8), (8, 12)]),
        ((3, 4), 4, [(0, 4), (4, 8), (8, 12)]),
        ((2, 4), 3, [(0, 3), (3, 4), (4, 7), (7, 8)]),
        ((2, 2), 1, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ((5, 1), 2, [(0, 2), (2, 4), (4, 5)]),
    ],
)
def test_slices_of_tokens(size, count, expected):
    """Whole rows where at least one fits, else parts that end with their row."""
    found = list(token_slices(*size, count))
    assert [(s.start, s.stop) for s in found] == expected
    numbers = torch.arange(size[0] * size[1])
    for tokens in found:
        lines, places = place_on_map(tokens, *size)
        assert torch.equal(numbers.view(size)[lines, places].flatten(), numbers[tokens])


@pytest.mark.parametrize('scores, count', [(10, 10), (51, 1), (100, 1), (101, 1), (1000, 1)])
def test_how_many_make_a_part(monkeypatch, scores, count):
    """At least one, however many scores it has."""
    monkeypatch.setattr(chunked, '_CHUNK_BYTES', 100 * torch.float64.itemsize)
    assert at_a_time(scores, torch.zeros(1, dtype=torch.float64)) == count
    assert at_a_time(scores, torch.zeros(1)) == max(1, 200 // scores)


@pytest.mark.parametrize('case', ['groups', 'a gradient', 'a hook', 'a short batch'])
def test_groups_of_sequences(monkeypatch, case):
    """In groups only where torch keeps nothing for a backward pass and nobody watches."""
    monkeypatch.setattr(chunked, '_GROUP', 2 * 3)
    torch.manual_seed(0)
    x = torch.randn(2 if case == 'a short batch' else 6, 3, 4)
    valid = torch.rand(2, 3) < 0.5  # two windows a sample
    layer, batches = nn.Linear(4, 4), []
    if case == 'a hook':
        layer.register_forward_hook(lambda *_: None)

    def compute(x, valid):
        batches.append(len(x))
        return layer(x) * valid.repeat(len(x) // len(valid), 1)[..., None]

    with torch.set_grad_enabled(case == 'a gradient'):
        ours = in_groups(compute, x, valid, layer)
    assert batches == ([2, 2, 2] if case == 'groups' else [len(x)])
    torch.testing.assert_close(ours, compute(x, valid))


def test_groups_of_sequences_that_are_all_valid(monkeypatch):
    monkeypatch.setattr(chunked, '_GROUP', 2 * 3)
    x, layer = torch.randn(5, 3, 4), nn.Linear(4, 4)
    with torch.no_grad():
        ours = in_groups(lambda x, valid: layer(x), x, None, layer)
        torch.testing.assert_close(ours, layer(x))
