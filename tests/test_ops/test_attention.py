"""Attention against softmax attention written out."""

import pytest
import torch
from torch.utils.flop_counter import flop_registry

from mmvitbackbones.layers import SelfAttention
from mmvitbackbones.layers import attention as layers_attention
from mmvitbackbones.ops import chunked
from mmvitbackbones.ops.attention import (
    _attend,
    _count_fused_attention,
    attend,
    attend_sequences,
    softmax_attention,
    weighted_attention,
)
from mmvitbackbones.ops.cpu import attention as kernel
from mmvitbackbones.ops.windows import Neighbourhood


def naive(q, k, v, bias, valid):
    """Of queries (N, d) to keys (K, d): bias (N, K) or None, valid (K,) or None."""
    out = []
    for i in range(len(q)):
        keys = [j for j in range(len(k)) if valid is None or valid[j]]
        scores = torch.stack([q[i] @ k[j] / q.shape[1] ** 0.5 for j in keys])
        if bias is not None:
            scores = scores + bias[i, keys]
        out.append(scores.softmax(0) @ v[keys])
    return torch.stack(out)


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


def some_valid(windows, keys):
    """A mask of which each window has a key, and the first of them all."""
    valid = torch.rand(windows, keys) > 0.5
    valid[:, 1] = valid[0] = True
    return valid


def compare(ours, expected, inputs):
    """Equal outputs, equal gradients of what has one, and no input changed on the way."""
    torch.testing.assert_close(ours, expected)
    slope = torch.randn_like(expected)
    before = [x.detach().clone() for x in (*inputs, slope)]
    found = torch.autograd.grad(ours, inputs, slope)
    wanted = torch.autograd.grad(expected, inputs, slope, materialize_grads=True)
    for ours, theirs in zip(found, wanted):
        torch.testing.assert_close(ours, theirs)
    for x, copy in zip((*inputs, slope), before):
        assert torch.equal(x, copy)


# Of tokens that lie ready, through torch's kernels.


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('biased', [False, True])
def test_attention_equals_naive(biased, masked):
    torch.manual_seed(0)
    q, k, v = draw(6, 2, 4, 3), draw(6, 2, 5, 3), draw(6, 2, 5, 3)
    bias = draw(2, 4, 5) if biased else None
    valid = some_valid(3, 5) if masked else None  # 3 windows of 2 samples
    expected = [
        naive(
            q[b, head],
            k[b, head],
            v[b, head],
            bias[head] if biased else None,
            valid[b % 3] if masked else None,
        )
        for b in range(6)
        for head in range(2)
    ]
    inputs = (q, k, v, bias) if biased else (q, k, v)
    compare(softmax_attention(q, k, v, bias, valid), torch.stack(expected).view(6, 2, 4, 3), inputs)


def test_weights_are_multiplied():
    """After the softmax: they do not add up to 1 any more."""
    torch.manual_seed(0)
    q, k, v, weight = draw(6, 2, 4, 3), draw(6, 2, 5, 3), draw(6, 2, 5, 3), draw(2, 4, 5)
    expected = torch.zeros(6, 2, 4, 3, dtype=torch.float64)
    for b in range(6):
        for head in range(2):
            # Values that tell keys apart show the attention weights themselves.
            keys = torch.eye(5, dtype=torch.float64)
            weights = naive(q[b, head], k[b, head], keys, None, None) * weight[head]
            expected[b, head] = weights @ v[b, head]
    compare(weighted_attention(q, k, v, weight), expected, (q, k, v, weight))


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_bias_keeps_its_precision_beside_half_types(dtype, masked, autocast):
    """It is far larger than a half type's steps; what a mask forbids stays forbidden."""
    torch.manual_seed(0)
    q, k, v = (draw(6, 2, 40, 16, dtype=dtype) for _ in range(3))
    bias = 1000 + torch.rand(2, 40, 40)
    valid = some_valid(3, 40) if masked else None
    with torch.autocast('cpu', dtype, enabled=autocast):
        ours = softmax_attention(q, k, v, bias, valid)
    assert ours.dtype == dtype
    inputs = [x.double() for x in (q, k, v, bias)]
    expected = softmax_attention(*inputs, valid)
    rounded = softmax_attention(*inputs[:3], bias.to(dtype).double(), valid)
    scale = expected.abs().max()
    assert (ours - expected).abs().max() < 8 * torch.finfo(dtype).eps * scale
    assert (rounded - expected).abs().max() > 16 * torch.finfo(dtype).eps * scale
    slope = torch.randn_like(expected)
    found = torch.autograd.grad(ours, (q, k, v), slope.to(dtype))
    wanted = torch.autograd.grad(expected, (q, k, v), slope)
    for grad, theirs in zip(found, wanted):
        assert grad.dtype == dtype
        assert (grad.double() - theirs).abs().max() < 0.03 * theirs.abs().max()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_weights_keep_their_precision_beside_half_types(dtype):
    """Multiplied in float32: only the products are rounded."""
    torch.manual_seed(0)
    q, k = torch.zeros(1, 2, 5, 2, dtype=dtype), torch.zeros(1, 2, 40, 2, dtype=dtype)
    v = torch.eye(40, dtype=dtype).expand(1, 2, 40, 40)
    weight = torch.rand(2, 5, 40)
    found = weighted_attention(q, k, v, weight)
    assert found.dtype == dtype
    assert torch.equal(found, (torch.full((), 1 / 40) * weight).to(dtype)[None])


# Of windows on maps. A case is one size and one neighbourhood for each map.

CPU = torch.device('cpu')
FINE = Neighbourhood((2, 3), (1, 1), (1, 2), wraps=True)
CASES = {
    'sequences': [((1, 12), Neighbourhood((1, 4)))],
    'windows': [((4, 9), Neighbourhood((2, 3)))],
    'wraps': [((4, 9), FINE)],
    'zeros': [((4, 9), Neighbourhood((2, 3), (2, 0), (1, 4)))],
    'a window and the one beside it': [
        ((4, 9), Neighbourhood((2, 3))),
        ((4, 9), Neighbourhood((2, 3), (-2, 2), (3, -3))),
    ],
    'one row of windows': [((2, 6), Neighbourhood((2, 2), (2, 1), (2, 1), wraps=True))],
    'one window': [((2, 3), FINE)],
    'two maps': [((4, 9), FINE), ((2, 3), Neighbourhood((1, 1), (1, 1), (2, 1)))],
    'own tokens, and margins of another map': [
        ((6, 6), Neighbourhood((3, 2))),
        ((4, 3), Neighbourhood((2, 1), (1, 0), (0, 1), wraps=True)),
    ],
}
cases = pytest.mark.parametrize('case', CASES.values(), ids=CASES)
bodies = pytest.mark.usefixtures('body')


@pytest.fixture(params=[1, 2, 100], ids=lambda n: f'{n} windows a block')
def block(request, monkeypatch):
    """Blocks of so many windows, whatever the case: three of them or two lie in a row."""

    def set_size(case, heads=2):
        tokens, keys = count(case)
        scores = heads * tokens * keys * torch.float64.itemsize
        monkeypatch.setattr(kernel, '_BLOCK_BYTES', request.param * scores)

    return set_size


def count(case):
    """Queries and keys of a window."""
    window = case[0][1].window
    return window[0] * window[1], sum(n.size[0] * n.size[1] for _, n in case)


def make(case, samples=2, heads=2, dims=2, dtype=torch.float64):
    """Maps, bias and a mask for a case."""
    torch.manual_seed(0)
    maps = [draw(samples, *size, 3, heads, dims, dtype=dtype) for size, _ in case]
    (height, width), own = case[0][0], case[0][1].window
    tokens, keys = count(case)
    windows = height // own[0] * (width // own[1])
    on_map = torch.cat([seen.on_map(size, CPU) for size, seen in case], dim=1)
    valid = on_map & (torch.rand(windows, keys) > 0.3)
    valid |= on_map & ~valid.any(1, keepdim=True)  # each window needs a key
    return maps, draw(heads, tokens, keys), valid


def naive_windows(maps, neighbourhoods, bias, valid):
    """Each window's keys by their places on the maps, one after the other."""
    x, window = maps[0], neighbourhoods[0].window
    rows, columns = x.shape[1] // window[0], x.shape[2] // window[1]
    out = torch.zeros_like(x[:, :, :, 0])
    for sample in range(len(x)):
        for row in range(rows):
            for column in range(columns):
                own = slice(row * window[0], (row + 1) * window[0])
                own = sample, own, slice(column * window[1], (column + 1) * window[1])
                seen = [
                    token
                    for x, neighbourhood in zip(maps, neighbourhoods)
                    for token in tokens_of(x[sample], neighbourhood, row, column)
                ]
                k, v = torch.stack(seen).unbind(1)
                q = x[own][:, :, 0].flatten(0, 1)
                heads = [
                    naive(
                        q[:, head],
                        k[:, head],
                        v[:, head],
                        None if bias is None else bias[head],
                        None if valid is None else valid[row * columns + column],
                    )
                    for head in range(q.shape[1])
                ]
                out[own] = torch.stack(heads, dim=1).unflatten(0, window)
    return out.flatten(3)


def tokens_of(x, neighbourhood, row, column):
    """Keys and values, (2, heads, d) each, that a window of a map (H, W, 3, heads, d) sees."""
    (height, width), (above, below) = neighbourhood.window, neighbourhood.rows
    before, after = neighbourhood.columns
    for y in range(row * height - above, (row + 1) * height + below):
        for z in range(column * width - before, (column + 1) * width + after):
            if neighbourhood.wraps:
                yield x[y % x.shape[0], z % x.shape[1], 1:]
            elif 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                yield x[y, z, 1:]
            else:
                yield torch.zeros_like(x[0, 0, 1:])


@bodies
@cases
def test_equals_naive(case, poisoned_memory):
    maps, bias, valid = make(case)
    seen = tuple(one for _, one in case)
    ours = _attend(maps, seen, bias, valid)
    compare(ours, naive_windows(maps, seen, bias, valid), (*maps, bias))


@bodies
@pytest.mark.parametrize('size', [(5, 8), (4, 9), (3, 7), (1, 1)])
@pytest.mark.parametrize('margins', [((0, 0), (0, 0)), ((2, 2), (3, 3)), ((-2, 2), (3, -3))])
def test_masks_follow_from_the_map(margins, size):
    """Neither padding nor what lies beyond the map is attended to, of neither map."""
    window = (2, 3)
    rows, columns = -(-size[0] // 2), -(-size[1] // 3)
    torch.manual_seed(0)
    maps = [draw(2, 2 * rows, 3 * columns, 3, 2, 2)] * 2 + [draw(2, rows, columns, 3, 2, 2)]
    seen = (
        Neighbourhood(window),
        Neighbourhood(window, *margins),
        Neighbourhood((1, 1), (1, 0), (0, 2)),
    )
    sizes = [size, size, (rows, columns)]
    valid = torch.cat([on_map_of(one, each) for one, each in zip(seen, sizes)], dim=1)
    bias = draw(2, 6, valid.shape[1])
    ours = attend(maps, seen, bias, sizes)
    compare(ours, naive_windows(maps, seen, bias, valid), (maps[0], maps[2], bias))


def on_map_of(seen, size):
    """Token by token: (windows, keys)."""
    (height, width), (above, below), (left, right) = seen.window, seen.rows, seen.columns
    return torch.tensor(
        [
            [
                y in range(size[0]) and x in range(size[1])
                for y in range(row * height - above, (row + 1) * height + below)
                for x in range(column * width - left, (column + 1) * width + right)
            ]
            for row in range(-(-size[0] // height))
            for column in range(-(-size[1] // width))
        ]
    )


@bodies
def test_an_empty_batch_stays_empty():
    case = CASES['two maps']
    maps, bias, valid = make(case, samples=0)
    y = _attend(maps, tuple(one for _, one in case), bias, valid)
    assert y.shape == (0, 4, 9, 4)
    y.sum().backward()
    assert [x.grad.shape for x in maps] == [x.shape for x in maps]


@cases
def test_blocks_of_windows(case, block, poisoned_memory):
    block(case)
    maps, bias, valid = make(case)
    seen = tuple(one for _, one in case)
    ours = _attend(maps, seen, bias, valid)
    compare(ours, naive_windows(maps, seen, bias, valid), (*maps, bias))


@pytest.mark.parametrize('windows', [1, 2, 3, 5])
def test_blocks_are_as_large_as_they_may_be(monkeypatch, windows):
    """As many scores, also those of a second map, as ``_BLOCK_BYTES``; at most a row's."""
    case = CASES['two maps']
    maps, bias, valid = make(case)
    tokens, keys = count(case)
    scores = 2 * tokens * keys * torch.float64.itemsize
    monkeypatch.setattr(kernel, '_BLOCK_BYTES', windows * scores)
    seen = tuple(one for _, one in case)
    step = min(windows, 3)
    assert list(kernel._Blocks(maps, seen, bias, valid)) == [
        (sample, row, slice(first, min(first + step, 3)))
        for sample in range(2)
        for row in range(2)
        for first in range(0, 3, step)
    ]


@pytest.mark.parametrize(
    'most, sizes',
    [
        (1, [1] * 7),
        (2, [2, 2, 2, 1]),
        (3, [3, 3, 1]),
        (4, [4, 3]),
        (5, [4, 3]),
        (6, [4, 3]),
        (7, [7]),
        (9, [7]),
    ],
)
def test_blocks_of_a_row_are_of_about_the_same_size(monkeypatch, most, sizes):
    """No more of them than needed, but no small one left over beside large ones."""
    case = [((1, 14), Neighbourhood((1, 2)))]
    maps, bias, valid = make(case, samples=1)
    scores = 2 * 2 * 2 * torch.float64.itemsize
    monkeypatch.setattr(kernel, '_BLOCK_BYTES', most * scores)
    blocks = list(kernel._Blocks(maps, [case[0][1]], bias, valid))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    assert blocks == [(0, 0, slice(end - size, end)) for end, size in zip(ends, sizes)]


@bodies
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('biased', [False, True])
def test_without_bias_or_mask(biased, masked):
    case = CASES['own tokens, and margins of another map']  # all of it on the map
    maps, bias, valid = make(case)
    bias, valid = bias if biased else None, valid if masked else None
    seen = tuple(one for _, one in case)
    ours = _attend(maps, seen, bias, valid)
    inputs = (*maps, bias) if biased else maps
    compare(ours, naive_windows(maps, seen, bias, valid), inputs)


@pytest.mark.parametrize('name', ['one row of windows', 'two maps'])
def test_gradcheck(name, block):
    """Of each map's queries, keys and values, and of the bias."""
    case = CASES[name]
    block(case, heads=1)
    maps, bias, valid = make(case, samples=1, heads=1, dims=1)
    seen = tuple(one for _, one in case)

    def run(bias, *maps):
        return _attend(maps, seen, bias, valid)

    assert torch.autograd.gradcheck(run, (bias, *maps))


@pytest.mark.parametrize('trained', [['bias'], ['fine'], ['coarse'], ['fine', 'bias']])
def test_only_what_needs_a_gradient_gets_one(trained):
    case = CASES['two maps']
    maps, bias, valid = make(case)
    seen = tuple(one for _, one in case)
    inputs = dict(fine=maps[0], coarse=maps[1], bias=bias)
    for name, x in inputs.items():
        x.requires_grad_(name in trained)
    ours = _attend(maps, seen, bias, valid)
    expected = naive_windows(maps, seen, bias, valid)
    compare(ours, expected, [inputs[name] for name in trained])
    ours = _attend(maps, seen, bias, valid)
    ours.sum().backward()
    assert [name for name, x in inputs.items() if x.grad is not None] == [
        name for name in inputs if name in trained
    ]


@bodies
def test_memory_layout_of_the_maps_does_not_matter():
    """Channels first, as a convolution may leave them, and one map for all samples."""
    case = CASES['two maps']
    maps, bias, valid = make(case)
    seen = tuple(one for _, one in case)
    expected = _attend(maps, seen, bias, valid)
    slope = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, maps, slope)
    strided = [x.movedim((1, 2), (4, 5)).contiguous().movedim((4, 5), (1, 2)) for x in maps]
    ours = _attend(strided, seen, bias, valid)
    assert torch.equal(ours, expected)
    channels_first = slope.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for found, theirs in zip(torch.autograd.grad(ours, maps, channels_first), wanted):
        torch.testing.assert_close(found, theirs)

    single = maps[1][:1].detach().requires_grad_()
    both = [[maps[0], single.expand_as(maps[1])], [maps[0], single.repeat(2, 1, 1, 1, 1, 1)]]
    outs = [_attend(each, seen, bias, valid) for each in both]
    compare(*outs, (maps[0], single, bias))


@bodies
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', ['sequences', 'two maps'])
def test_half_types(name, dtype):
    """In half types the result and the gradients stay within their rounding."""
    case = CASES[name]
    seen = tuple(one for _, one in case)
    maps, bias, valid = make(case)
    half = [x.detach().to(dtype).requires_grad_() for x in maps]
    single = bias.detach().float().requires_grad_()
    expected = _attend(maps, seen, bias, valid)
    out = _attend(half, seen, single, valid)
    slope = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (*maps, bias), slope)
    found = torch.autograd.grad(out, (*half, single), slope.to(dtype))
    assert [x.dtype for x in (out, *found)] == [*[dtype] * (1 + len(half)), torch.float32]
    for ours, theirs in zip([out, *found], [expected, *wanted]):
        error = (ours.double() - theirs).abs().max()
        assert error < 16 * torch.finfo(dtype).eps * theirs.abs().max()


@pytest.mark.parametrize('autocast', [False, True])
def test_scores_keep_their_precision_in_half_types(autocast):
    """A bias far larger than a half type's steps still tells neighbours apart."""
    x = torch.zeros(1, 1, 2, 3, 1, 2, dtype=torch.bfloat16)
    x[0, 0, 1, 2] = 1
    bias = torch.tensor([[[1000.0, 1001.0], [1001.0, 1000.0]]])
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        out = _attend([x], (Neighbourhood((1, 2)),), bias, None)
    expected = torch.tensor([0.731, 0.269])[:, None].expand(1, 1, 2, 2)
    torch.testing.assert_close(out.float(), expected, atol=5e-3, rtol=0)


@bodies
def test_dropped_weights_keep_their_mean():
    """Different weights are dropped each time; on average the result is that without."""
    case = CASES['two maps']
    seen = tuple(one for _, one in case)
    maps, bias, valid = make(case)
    with torch.no_grad():
        expected = _attend(maps, seen, bias, valid)
        outs = torch.stack([_attend(maps, seen, bias, valid, 0.3) for _ in range(100)])
    error = (outs.mean(0) - expected).square().mean().sqrt()
    deviation = outs.std(0).square().mean().sqrt()
    assert deviation > 0.1
    assert error < 1.5 * deviation / 10  # of a mean of 100 draws: a tenth of one draw's


# The module.


def make_sequences(windows=5, samples=2):
    torch.manual_seed(0)
    layer = SelfAttention(8, 2).double()
    x = draw(windows * samples, 4, 8)
    return layer, x, draw(2, 4, 4), some_valid(windows, 4)


@pytest.mark.parametrize('biased', [False, True])
def test_self_attention_equals_naive(biased):
    layer, x, bias, valid = make_sequences()
    bias, valid = (bias, valid) if biased else (None, None)
    expected = []
    for i, sequence in enumerate(x):
        q, k, v = layer.qkv(sequence).view(4, 3, 2, 4).unbind(1)
        heads = [
            naive(
                q[:, head],
                k[:, head],
                v[:, head],
                bias[head] if biased else None,
                valid[i % 5] if biased else None,
            )
            for head in range(2)
        ]
        expected.append(layer.proj(torch.cat(heads, dim=1)))
    inputs = [x, *layer.parameters()] + ([bias] if biased else [])
    compare(layer(x, bias, valid), torch.stack(expected), inputs)


@pytest.mark.parametrize('option', ['attn_drop', 'proj_drop'])
def test_dropout_in_training_only(option):
    _, x, bias, valid = make_sequences()
    layer = SelfAttention(8, 2, **{option: 0.5}).double()
    assert not torch.allclose(layer(x, bias, valid), layer(x, bias, valid))
    layer.eval()
    without = SelfAttention(8, 2).double()
    without.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x, bias, valid), without(x, bias, valid))


@pytest.mark.parametrize('group', [1, 3, 5, 7])
@pytest.mark.parametrize('biased', [False, True])
def test_groups_of_sequences_without_gradients(monkeypatch, biased, group):
    """In inference, groups that do not divide the windows, nor the samples, change nothing."""
    layer, x, bias, valid = make_sequences()
    bias, valid = (bias, valid) if biased else (None, None)
    expected, sizes = layer(x, bias, valid), []

    def spy(qkv, *args):
        sizes.append(len(qkv))
        return attend_sequences(qkv, *args)

    monkeypatch.setattr(layers_attention, 'attend_sequences', spy)
    monkeypatch.setattr(chunked, '_GROUP', group * 4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, bias, valid), expected)
        assert max(sizes) == group and sum(sizes) == 10
        # A hook is called once, with all sequences.
        layer.qkv.register_forward_hook(lambda *_: None)
        torch.testing.assert_close(layer(x, bias, valid), expected)
        assert sizes[-1] == 10


def test_a_formula_that_torch_has_stays():
    before = dict(flop_registry)
    _count_fused_attention()
    assert flop_registry == before
