"""Focal Transformer against a slow reference, at all sizes, and option by option."""

import functools
import math

import pytest
import tiny_backbones
import torch
import torch.nn.functional as F
from tiny_backbones import OPTIONS, LargestTensor, image, randomise

from mmvitbackbones import FocalTransformer
from mmvitbackbones.backbones.focal_transformer import (
    ARCHS,
    FocalAttention,
    FocalBlock,
    SurroundingsBias,
    coarse_region,
)

WINDOWS = {k: v for k, v in OPTIONS['FocalTransformer'].items() if k != 'arch'}
TINY = OPTIONS['FocalTransformer']['arch']
# Millions of the published classifiers' parameters.
PARAMETERS = dict(tiny=28.9, small=51.1, base=89.8)
build = functools.partial(tiny_backbones.build, 'FocalTransformer')


# The reference: the keys of a window listed one by one, as published, with tables as published.


def grid_of(x, window):
    return math.ceil(x.shape[0] / window), math.ceil(x.shape[1] / window)


def listed_keys(attn, x, expand):
    """Each window's keys on a map (H, W, C), as lists of projections (C) and of biases.

    The bias of a key is (heads, window ** 2), one for each query.
    """
    window, focal = attn.window, attn.focal_window
    rows, columns = grid_of(x, window)
    # In the published tables, offsets run from a key to a query.
    own_table = attn.bias.table.flip(1).T
    tokens = [(y, x) for y in range(window) for x in range(window)]
    padded = x.new_zeros(rows * window, columns * window, x.shape[2])
    padded[: x.shape[0], : x.shape[1]] = x
    projected = attn.qkv(padded)
    if focal:
        weight, bias = attn.pool.weight.flatten(), attn.pool.bias
        far_table = attn.coarse_bias.table.flip(1)
        side = window + focal - 1
    for row in range(rows):
        for column in range(columns):

            def cut(values, row=row, column=column):
                values = values[row * window : (row + 1) * window]
                return values[:, column * window : (column + 1) * window]

            keys, biases = [], []
            for ky, kx in tokens:
                keys.append(cut(projected)[ky, kx])
                index = [
                    (qy - ky + window - 1) * (2 * window - 1) + qx - kx + window - 1
                    for qy, qx in tokens
                ]
                biases.append(own_table[index].T)
            if expand:
                neighbours = attn.surroundings.table[None]
                rolls = (-expand, -expand), (-expand, expand), (expand, -expand), (expand, expand)
                for dy, dx in rolls:
                    inside = torch.zeros(window, window, dtype=torch.bool)
                    inside[
                        slice(None, -expand) if dy < 0 else slice(expand, None),
                        slice(None, -expand) if dx < 0 else slice(expand, None),
                    ] = True
                    rolled = cut(torch.roll(projected, (dy, dx), (0, 1)))
                    for ky, kx in tokens:
                        if not inside[ky, kx]:
                            keys.append(rolled[ky, kx])
                            place = len(keys) - 1 - window**2
                            biases.append(neighbours[0, :, :, place])
                assert len(keys) == window**2 + neighbours.shape[3]
            for ky in range(focal):
                for kx in range(focal):
                    y, x = row + ky - focal // 2, column + kx - focal // 2
                    if y in range(rows) and x in range(columns):
                        pooled = weight @ cut(padded, y, x).flatten(0, 1) + bias
                        keys.append(attn.qkv(pooled))
                        index = [
                            (qy - ky + focal - 1) * side + qx - kx + focal - 1 for qy, qx in tokens
                        ]
                        biases.append(far_table[:, index])
            yield cut(projected).flatten(0, 1), keys, biases


def attend(attn, x, expand):
    """Focal attention of maps (B, H, W, C)."""
    window, out = attn.window, []
    for sample in x:
        rows, columns = grid_of(sample, window)
        windows = []
        for queries, keys, biases in listed_keys(attn, sample, expand):
            q = queries.chunk(3, dim=-1)[0].chunk(attn.num_heads, dim=-1)
            _, k, v = torch.stack(keys).chunk(3, dim=-1)
            k, v = k.chunk(attn.num_heads, dim=-1), v.chunk(attn.num_heads, dim=-1)
            bias = torch.stack(biases, dim=-1)
            heads = []
            for head in range(attn.num_heads):
                scores = q[head] @ k[head].T / math.sqrt(k[head].shape[1]) + bias[head]
                weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
                heads.append(weights @ v[head])
            windows.append(attn.proj(torch.cat(heads, dim=-1)).unflatten(0, (window, window)))
        lines = [torch.cat(windows[r * columns : (r + 1) * columns], dim=1) for r in range(rows)]
        out.append(torch.cat(lines)[: sample.shape[0], : sample.shape[1]])
    return torch.stack(out)


ATTENTIONS = [  # window, expand, focal window, size of the map
    (7, 3, 3, (9, 16)),  # as published
    (4, 2, 2, (7, 9)),  # the ring of the surroundings as wide as half a window
    (4, 1, 3, (9, 5)),
    (3, 1, 4, (8, 4)),
    (3, 1, 5, (4, 8)),  # coarse tokens beyond the map on every side
    (2, 1, 3, (7, 7)),
    (5, 2, 9, (4, 3)),  # a single window
    (1, 0, 3, (3, 4)),
    (3, 0, 3, (5, 7)),
    (3, 1, 0, (5, 7)),
    (3, 0, 0, (5, 7)),
    (6, 1, 1, (6, 12)),  # no padding
]
attentions = pytest.mark.parametrize('window, expand, focal, size', ATTENTIONS)


def make_attention(window, expand, focal):
    torch.manual_seed(0)
    return randomise(FocalAttention(6, 2, window, expand, focal).double())


@attentions
def test_attention_equals_the_reference(window, expand, focal, size):
    """Outputs, and gradients of all tables, the pooling and the projections."""
    attn = make_attention(window, expand, focal)
    x = torch.randn(2, *size, 6, dtype=torch.float64, requires_grad=True)
    inputs = dict(x=x, **dict(attn.named_parameters()))
    names = {
        'x',
        'bias.table',
        *(f'{layer}.{part}' for layer in ('qkv', 'proj') for part in ('weight', 'bias')),
        *(['surroundings.table'] if expand else []),
        *(['pool.weight', 'pool.bias', 'coarse_bias.table'] if focal else []),
    }
    assert set(inputs) == names
    ours, expected = attn(x), attend(attn, x, expand)
    torch.testing.assert_close(ours, expected, atol=1e-11, rtol=0)
    slope = torch.randn_like(ours)
    found = torch.autograd.grad(ours, inputs.values(), slope)
    wanted = torch.autograd.grad(expected, inputs.values(), slope)
    for name, a, b in zip(inputs, found, wanted):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10, msg=lambda m, n=name: f'{n}: {m}')


def test_surroundings_merge_what_is_listed_twice():
    """At window 7, expand 3: 132 listed keys, 12 of them twice, make a square of 169 keys."""
    torch.manual_seed(0)
    layer = SurroundingsBias(7, 3, 2)
    assert layer.table.shape == (2, 49, 132)
    own = torch.randn(2, 49, 49)
    merged = layer(own)
    assert merged.shape == (2, 49, 169)
    total = own.exp().sum(2) + layer.table.exp().sum(2)
    torch.testing.assert_close(merged.exp().sum(2), total)
    torch.testing.assert_close(merged.view(2, 49, 13, 13)[:, :, 3:10, 3:10].flatten(2), own)
    single = sum((merged == layer.table[:, :, i, None]).any() for i in range(132))
    assert single == 132 - 2 * 12


def test_large_biases_merge_without_overflow():
    layer = SurroundingsBias(3, 1, 1)
    with torch.no_grad():
        layer.table.fill_(1000)
    merged = layer(torch.zeros(1, 9, 9))
    merged.sum().backward()
    assert merged.max().item() == pytest.approx(1000 + math.log(2))
    assert layer.table.grad.isfinite().all()


@pytest.mark.parametrize('focal', [1, 2, 3, 4, 7])
@pytest.mark.parametrize('expand', [0, 1, 2])
def test_what_a_window_sees(expand, focal):
    """Changing a token changes exactly those windows that see it, one by one or as a part."""
    window, (rows, columns) = 4, (3, 5)
    attn = make_attention(window, expand, focal)
    x = torch.randn(1, rows * window, columns * window, 6, dtype=torch.float64)
    for y, z in ((5, 9), (0, 0), (11, 17), (3, 10)):
        other = x.clone()
        other[0, y, z] += 1
        with torch.no_grad():
            change = (attn(x) - attn(other)).abs().amax((0, 3))
        for row in range(rows):
            for column in range(columns):
                near = all(
                    (place - first * window + expand) % length < window + 2 * expand
                    for place, first, length in (
                        (y, row, rows * window),
                        (z, column, columns * window),
                    )
                )
                far = all(
                    0 <= place // window - first + focal // 2 < focal
                    for place, first in ((y, row), (z, column))
                )
                cell = change[row * window : (row + 1) * window]
                cell = cell[:, column * window : (column + 1) * window]
                assert (cell.max() > 0) == (near or far), (row, column)


def test_coarse_tokens_that_no_window_sees_are_left_out():
    region, rows, columns = coarse_region(7, (2, 5))
    assert region.rows == (1, 1) and region.columns == (3, 3)
    assert rows == slice(2, 5) and columns == slice(0, 7)
    region, rows, columns = coarse_region(4, (9, 1))
    assert region.rows == (2, 1) and region.columns == (0, 0)
    assert rows == slice(0, 4) and columns == slice(2, 3)


# Shapes, sizes, batches.


def test_any_number_of_stages():
    arch = dict(dims=[8, 24], heads=[1, 3], depths=[1, 1])
    options = dict(expand_sizes=(1, 0), focal_windows=2, window_size=3)
    maps = FocalTransformer(arch, **options)(image(33, 40, dtype=torch.float32))
    assert [m.shape for m in maps] == [(1, 8, 9, 10), (1, 24, 5, 5)]


@pytest.mark.parametrize('arch', PARAMETERS)
def test_parameters_of_the_published_sizes(arch):
    with torch.device('meta'):
        model = FocalTransformer(arch, out_norm=None)
    channels = ARCHS[arch]['dims'][-1]
    classifier = 2 * channels + 1000 * channels + 1000
    ours = sum(p.numel() for p in model.parameters()) + classifier
    assert abs(ours / 1e6 - PARAMETERS[arch]) < 0.055


def test_large_differs_from_base_in_its_width_only():
    large, base = ARCHS['large'], ARCHS['base']
    assert large['heads'] == base['heads'] and large['depths'] == base['depths']
    assert [d / h for d, h in zip(large['dims'], large['heads'])] == [49] * 4
    with torch.device('meta'):
        FocalTransformer('large')


@pytest.mark.parametrize('rate', [0.0, 1e-300], ids=['CPU function', 'library'])
def test_memory_grows_with_the_image_only(rate):
    """Four times the pixels: no tensor, and no sum of what is kept, grows more than fourfold."""
    model = build(
        dtype=torch.float32,
        attn_drop_rate=rate,
        window_size=2,
        expand_sizes=1,
        focal_windows=3,
        out_indices=(0, 1),
    )
    largest, kept = [], []
    for side in (64, 128):
        x = image(side, side, dtype=torch.float32)
        sizes = {}

        def keep(tensor, sizes=sizes):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with LargestTensor() as mode:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                maps = model(x)
            sum(m.sum() for m in maps).backward()
        largest.append(mode.numel)
        kept.append(sum(sizes.values()))
    assert largest[1] <= 4 * largest[0]
    assert kept[1] <= 4 * kept[0]
    assert largest[1] < (128 // 4) ** 4  # all pairs of tokens


# Options.


def test_windows_of_each_stage():
    """The windows, surroundings and coarse squares of a stage, and only of it."""
    model = build()
    for i, stage in enumerate(model.stages):
        window, expand, focal = (WINDOWS[option][i] for option in WINDOWS)
        for block in stage.blocks:
            heads = TINY['heads'][i]
            assert block.attn.bias.table.shape == (heads, (2 * window - 1) ** 2)
            assert block.attn.pool.weight.shape == (window, window)
            assert block.attn.coarse_bias.table.shape == (heads, (window + focal - 1) ** 2)
            if expand:
                count = 4 * (window**2 - (window - expand) ** 2)
                assert block.attn.surroundings.table.shape == (heads, window**2, count)
            else:
                assert block.attn.surroundings is None


@pytest.mark.parametrize(
    'option, value, parts',
    [('expand_sizes', (2, 0, 1, 0), ['surroundings']), ('focal_windows', 0, ['pool', 'coarse'])],
)
def test_zero_switches_a_part_off(option, value, parts):
    """The stage has no parameters for it, and its other parameters stay."""
    whole, less = build(), build(**{option: value})
    off = range(4) if value == 0 else [i for i in range(4) if value[i] == 0]
    gone = set(whole.state_dict()) - set(less.state_dict())
    assert gone == {
        name
        for name in whole.state_dict()
        if any(f'.attn.{part}' in name for part in parts) and int(name.split('.')[1]) in off
    }
    assert gone and not set(less.state_dict()) - set(whole.state_dict())


def test_conv_embed_overlaps_patches():
    """The published kernels; a pixel of a neighbouring patch counts."""
    plain, overlapping = build().eval(), build(use_conv_embed=True).eval()
    for model, kernels in ((plain, [4, 2, 2, 2]), (overlapping, [7, 3, 3, 3])):
        layers = [model.stem, *(stage.downsample for stage in model.stages[1:])]
        assert [layer.conv.kernel_size for layer in layers] == [(k, k) for k in kernels]
        x, other = image(32, 32), image(32, 32)
        other[0, :, 8, 8] += 1
        changed = (model.stem(x)[0] != model.stem(other)[0]).any(-1)[0].nonzero().tolist()
        reached = [[y, x] for y in (1, 2) for x in (1, 2)] if model is overlapping else [[2, 2]]
        assert changed == reached


def test_peg_is_a_residual_convolution():
    """After the first of a stage's blocks."""
    arch = dict(TINY, depths=[2, 1, 1, 1])
    with_peg, plain = (build(arch=arch, peg=peg).eval() for peg in (True, False))
    plain.load_state_dict(with_peg.state_dict(), strict=False)
    first, second = plain.stages[0].blocks
    kernel = with_peg.stages[0].peg.conv.weight
    assert kernel.shape == (8, 1, 3, 3) and with_peg.stages[0].peg.conv.bias is None
    with torch.no_grad():
        (tokens,) = plain.stem(image(33, 45))
        y = first(tokens).permute(0, 3, 1, 2)
        y = y + F.conv2d(y, kernel, padding=1, groups=8)
        (found,) = with_peg.stages[0](tokens)
        torch.testing.assert_close(found, second(y.permute(0, 2, 3, 1)))


def test_drop_path_drops_both_branches():
    torch.manual_seed(0)
    block = FocalBlock(8, 2, 3, 1, 3, drop_path=1 - 1e-9, drop=0.0, attn_drop=0.0)
    x = torch.randn(2, 5, 7, 8)
    assert torch.equal(block(x), x)
    assert not torch.allclose(block.eval()(x), x)


def test_fresh_weights_pool_to_the_mean():
    attn = FocalTransformer(TINY).stages[0].blocks[0].attn
    x = torch.randn(1, 7, 14, 8)
    found = attn.pool(x)
    torch.testing.assert_close(found, x.unflatten(2, (2, 7)).mean((1, 3))[:, None])


# Bad input.

BAD_OPTIONS = [
    (dict(arch=dict(TINY, window_size=7)), ['arch', 'depths, dims, heads']),
    (dict(window_size=0), ['window_size', 'at least 1', '0']),
    (dict(window_size=-7), ['window_size', 'at least 1', '-7']),
    (dict(window_size='7'), ['window_size', 'integer', "'7'"]),
    (dict(window_size=7.0), ['window_size', 'integer', '7.0']),
    (dict(window_size=True), ['window_size', 'integer', 'True']),
    (dict(window_size=None), ['window_size', 'integer', 'None']),
    (dict(window_size=[7, 7]), ['window_size', '4 of them', '[7, 7]']),
    (dict(window_size=[7, 7, 7, 7.0]), ['window_size', 'integer', '7.0']),
    (dict(expand_sizes=4), ['expand_sizes', '4', 'window_size 7', 'stage 0', 'at most 3']),
    (
        dict(window_size=(7, 5, 7, 7), expand_sizes=(3, 3, 3, 0)),
        ['expand_sizes', '3', 'window_size 5', 'stage 1', 'at most 2'],
    ),
    (dict(window_size=1, expand_sizes=1), ['expand_sizes', 'window_size 1', 'at most 0']),
    (dict(expand_sizes=-1), ['expand_sizes', 'at least 0', '-1']),
    (dict(expand_sizes=(3, 3, 3)), ['expand_sizes', '4 of them', '(3, 3, 3)']),
    (dict(expand_sizes='3333'), ['expand_sizes', 'integer', "'3333'"]),
    (dict(expand_sizes=(3, 3, 3, False)), ['expand_sizes', 'integer', 'False']),
    (dict(expand_sizes=1.5), ['expand_sizes', 'integer', '1.5']),
    (dict(expand_sizes=None), ['expand_sizes', 'integer', 'None']),
    (dict(focal_windows=-1), ['focal_windows', 'at least 0', '-1']),
    (dict(focal_windows=(7, 5, 3, 1, 1)), ['focal_windows', '4 of them', '(7, 5, 3, 1, 1)']),
    (dict(focal_windows=()), ['focal_windows', '4 of them', '()']),
    (dict(focal_windows='7531'), ['focal_windows', 'integer', "'7531'"]),
    (dict(focal_windows=True), ['focal_windows', 'integer', 'True']),
    (dict(focal_windows=(7, 5, 3, 1.0)), ['focal_windows', 'integer', '1.0']),
    (dict(use_conv_embed='true'), ['use_conv_embed', 'True or False', 'true']),
    (dict(use_conv_embed=1), ['use_conv_embed', 'True or False', '1']),
]


@pytest.mark.parametrize('options, words', BAD_OPTIONS, ids=lambda value: str(value)[:60])
def test_bad_options(options, words):
    with pytest.raises(ValueError) as error:
        FocalTransformer(**{'arch': TINY, **options})
    for word in words:
        assert word in str(error.value)
