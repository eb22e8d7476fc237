"""RegionViT against a slow reference, at all sizes, and option by option."""

import copy
import functools
import math

import golden_cases
import pytest
import tiny_backbones
import torch
import torch.nn.functional as F
from tiny_backbones import OPTIONS, gradients, image

from mmvitbackbones import RegionViT
from mmvitbackbones.backbones.regionvit import ARCHS

TINY = OPTIONS['RegionViT']['arch']
# Published millions of the classifiers' parameters; some are cut off, not rounded.
PARAMETERS = dict(
    tiny=13.8,
    tiny_plus=14.3,
    small=30.6,
    small_plus=31.3,
    medium=41.2,
    medium_plus=42.0,
    base=72.7,
    base_plus=73.8,
)
build = functools.partial(tiny_backbones.build, 'RegionViT')


# The reference: sequences of tokens without padding, built and attended to one by one.


def attend(attn, sequence, bias):
    """Attention within one sequence (N, C), with a bias (heads, N, N) or without."""
    out = []
    q, k, v = attn.qkv(sequence).chunk(3, dim=-1)
    width = sequence.shape[1] // attn.num_heads
    for head in range(attn.num_heads):
        own = slice(head * width, (head + 1) * width)
        scores = q[:, own] @ k[:, own].T / math.sqrt(width)
        if bias is not None:
            scores = scores + bias[head]
        out.append(scores.softmax(dim=-1) @ v[:, own])
    return attn.proj(torch.cat(out, dim=-1))


def pair_biases(table, window, positions, others):
    """Bias of each pair in a sequence of so many others and local tokens at positions."""
    length = others + len(positions)
    bias = torch.zeros(len(table), length, length, dtype=table.dtype)
    for i, (qy, qx) in enumerate(positions):
        for j, (ky, kx) in enumerate(positions):
            offset = (ky - qy + window - 1) * (2 * window - 1) + kx - qx + window - 1
            bias[:, others + i, others + j] = table[:, offset]
    return bias


def exchange(encoder, local, regional):
    """Eq. 2's first line on the tokens of one sample, where there are regional ones."""
    if regional is None:
        return local, None
    grid = regional.flatten(0, 1)
    grid = grid + attend(encoder.attn, encoder.norm0(grid), None)
    return local, grid.view_as(regional)


def encode(encoder, local, regional, window):
    """Eq. 2 and 3 on the tokens of one sample: (H, W, C) and (rows, columns, C) or None."""
    local, regional = exchange(encoder, local, regional)
    out, of_regions = {}, []
    for top in range(0, local.shape[0], window):
        for left in range(0, local.shape[1], window):
            positions = [
                (y, x)
                for y in range(window)
                for x in range(window)
                if top + y < local.shape[0] and left + x < local.shape[1]
            ]
            places = [(top + y, left + x) for y, x in positions]
            others = [] if regional is None else [regional[top // window, left // window]]
            y = torch.stack([*others, *(local[place] for place in places)])
            bias = pair_biases(encoder.bias.table, window, positions, len(others))
            y = y + attend(encoder.attn, encoder.norm1(y), bias)
            z = encoder.norm2(y)
            y = y + encoder.ffn.fc2(F.gelu(encoder.ffn.fc1(z)))
            of_regions += y[: len(others)]
            out.update(zip(places, y[len(others) :]))
    local = torch.stack([out[place] for place in sorted(out)]).view_as(local)
    return local, None if regional is None else torch.stack(of_regions).view_as(regional)


@pytest.mark.parametrize('regional', [True, False])
@pytest.mark.parametrize('size, grid', [((6, 9), (2, 3)), ((5, 7), (2, 3)), ((1, 2), (1, 1))])
def test_encoders_equal_the_reference(size, grid, regional):
    """Two encoders in a row, so that what the first leaves in padded tokens would be seen."""
    model = build(arch=dict(TINY, depths=[2, 1, 1, 1], regional=regional)).eval()
    stage = model.stages[0]
    maps = [torch.randn(2, *size, 16).double()]
    if regional:
        maps.append(torch.randn(2, *grid, 16).double())
    inputs = [*maps, *stage.parameters()]
    for x in maps:
        x.requires_grad_()
    found, samples = stage(*maps), []
    assert len(found) == len(maps)
    for sample in range(2):
        tokens = [x[sample] for x in maps]
        tokens = tokens if regional else [*tokens, None]
        for encoder in stage.blocks:
            tokens = encode(encoder, *tokens, window=3)
        samples.append(tokens[: len(maps)])
    expected = [torch.stack(of_map) for of_map in zip(*samples)]
    for ours, wanted in zip(found, expected):
        torch.testing.assert_close(ours, wanted, atol=1e-9, rtol=0)
    slopes = [torch.randn_like(x) for x in found]
    ours, wanted = (torch.autograd.grad(maps, inputs, slopes) for maps in (found, expected))
    for a, b in zip(ours, wanted):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


# Shapes, sizes, batches.


@pytest.mark.parametrize(
    'size, window',
    [((64, 96), 2), ((33, 45), 3), ((50, 97), 3), ((35, 32), 1), ((32, 32), 14), ((37, 130), 14)],
)
@pytest.mark.parametrize('stem', ['3-conv', '1-conv'])
def test_shapes_of_the_tokens(stem, size, window):
    model = build(arch=dict(TINY, stem=stem), window_size=window)
    with torch.no_grad():
        local, regional = model.stem(image(*size))
    assert local.shape[1:3] == tuple(math.ceil(side / 4) for side in size)
    assert regional.shape[1:3] == tuple(math.ceil(side / (4 * window)) for side in size)


@pytest.mark.parametrize('window', [1, 3, 14])
@pytest.mark.parametrize('size', [(33, 45), (37, 130)])
def test_windows_alone_make_the_maps(size, window):
    """The backbone without regional tokens, which has the other's weights but for theirs."""
    options = dict(window_size=window, peg=True)
    whole = build(**options)
    model = build(arch=dict(TINY, regional=False), with_cp=True, **options).eval()
    missing, unexpected = model.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    assert {name for name in unexpected if '.norm0.' not in name} == {
        'stem.regional.weight',
        'stem.regional.bias',
    }
    x = image(*size)
    maps, grads = gradients(model, x)
    assert grads.keys() == dict(model.named_parameters()).keys()
    with torch.no_grad():
        tokens = model.stem(x)[0]
        for stage, norm, found in zip(model.stages, model.out_norms, maps):
            tokens = stage.downsample(tokens)
            for i, encoder in enumerate(stage.blocks):
                tokens = encode(encoder, tokens[0], None, window)[0][None]
                if i == 0:
                    local = tokens.permute(0, 3, 1, 2)
                    groups = tokens.shape[3]
                    kernel = stage.peg.conv.weight
                    local = local + F.conv2d(local, kernel, padding=1, groups=groups)
                    tokens = local.permute(0, 2, 3, 1)
            tokens = norm(tokens)
            torch.testing.assert_close(found, tokens.permute(0, 3, 1, 2), atol=1e-9, rtol=1e-9)


def test_parameters_without_regional_tokens():
    """Table A5: 30.4 instead of 30.6 millions, of which the classifier has 0.77."""
    with torch.device('meta'):
        archs = 'small', dict(base='small', regional=False)
        whole, less = (
            {name: p.numel() for name, p in RegionViT(arch, out_norm=None).named_parameters()}
            for arch in archs
        )
    gone = {name: count for name, count in whole.items() if name not in less}
    assert gone.pop('stem.regional.weight') + gone.pop('stem.regional.bias') == 225_888
    assert all('.norm0.' in name for name in gone) and len(gone) == 2 * (2 + 2 + 8 + 2)
    assert abs((sum(less.values()) + 2 * 768 + 1000 * 769) / 1e6 - 30.4) < 0.055


def test_any_number_of_stages():
    arch = dict(stem='1-conv', dims=[8, 24], heads=[1, 3], depths=[1, 1], window_size=2)
    maps = build(arch=arch)(image(33, 40))
    assert [m.shape for m in maps] == [(1, 8, 9, 10), (1, 24, 5, 5)]


@pytest.mark.parametrize('arch', ARCHS)
def test_parameters_of_the_published_sizes(arch):
    with torch.device('meta'):
        model = RegionViT(arch, out_norm=None)
    channels = ARCHS[arch]['dims'][-1]
    classifier = 2 * channels + 1000 * channels + 1000
    ours = sum(p.numel() for p in model.parameters()) + classifier
    assert abs(ours / 1e6 - PARAMETERS[arch]) < 0.055
    assert set(PARAMETERS) == set(ARCHS)


@pytest.mark.parametrize('name', golden_cases.names('regionvit'))
def test_parameters_of_the_golden_cases(name):
    info = golden_cases.GoldenCase(name).info
    size, _, extras = info['variant'].partition('_')
    with torch.device('meta'):
        model = RegionViT(
            size,
            window_size=14 if 'w14' in extras else None,
            peg='peg' in extras,
            out_norm='inline' if 'kwargs' in info else None,
        )
    channels = ARCHS[size]['dims'][-1]
    classifier = 2 * channels + 1000 * channels + 1000
    assert sum(p.numel() for p in model.parameters()) + classifier == info['params']


# Gradients.


@pytest.mark.parametrize('stem, size', [('3-conv', (32, 36)), ('1-conv', (33, 40))])
def test_gradcheck(stem, size):
    """With respect to the image and to every parameter; the last windows are partial."""
    arch = dict(
        stem=stem, dims=[16, 16, 16, 16], heads=[2, 2, 2, 2], depths=[1, 1, 1, 1], window_size=2
    )
    model = build(arch=arch, peg=True)
    names = [name for name, _ in model.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in model.parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters)), (x,))

    x = image(*size).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize(
    'name', ['stages.0.blocks.0.bias.table', 'stages.1.downsample.conv.weight', 'stages.0.peg.conv']
)
def test_gradients_against_finite_differences(name):
    """Entry by entry, as the check above draws random directions through all parameters."""
    model = build(peg=True).eval()
    x = image(33, 45)
    _, grads = gradients(model, x)
    name = next(n for n in grads if n.startswith(name))
    flat = dict(model.named_parameters())[name].detach().view(-1)

    def loss():
        with torch.no_grad():
            maps = model(x)
            return sum((m * torch.cos(torch.arange(m.numel()).view_as(m))).sum() for m in maps)

    step = 1e-5
    for entry in range(0, flat.numel(), flat.numel() // 5):
        before = flat[entry].item()
        flat[entry] = before + step
        above = loss()
        flat[entry] = before - step
        slope = (above - loss()) / (2 * step)
        flat[entry] = before
        torch.testing.assert_close(grads[name].flatten()[entry], slope, atol=1e-6, rtol=1e-5)


# Options.


def test_peg_is_a_residual_convolution_of_both_grids():
    """After the first of a stage's encoders."""
    depths = dict(TINY, depths=[2, 1, 1, 1])
    with_peg, plain = (build(arch=depths, peg=peg).eval() for peg in (True, False))
    plain.load_state_dict(with_peg.state_dict(), strict=False)
    halves = [copy.deepcopy(plain.stages[0]) for _ in range(2)]
    halves[0].blocks, halves[1].blocks = halves[0].blocks[:1], halves[1].blocks[1:]
    kernel = with_peg.stages[0].peg.conv.weight
    assert kernel.shape == (16, 1, 3, 3)

    def convolve(tokens):
        maps = tokens.permute(0, 3, 1, 2)
        return (maps + F.conv2d(maps, kernel, padding=1, groups=16)).permute(0, 2, 3, 1)

    with torch.no_grad():
        tokens = plain.stem(image(33, 45))
        expected = halves[1](*(convolve(x) for x in halves[0](*tokens)))
        without = plain.stages[0](*tokens)
        for found, wanted, other in zip(with_peg.stages[0](*tokens), expected, without):
            torch.testing.assert_close(found, wanted)
            assert not torch.allclose(found, other, atol=1e-3)


@pytest.mark.parametrize('window_size', [5, [5, 5, 5, 5], (5, 5, 5, 5)])
def test_window_size_overrides_the_arch(window_size):
    model = RegionViT(TINY, window_size=window_size)
    assert model.window_size == 5
    assert model.stem.regional.kernel_size == (20, 20)
    assert all(b.bias.table.shape[1] == 81 for stage in model.stages for b in stage.blocks)


def test_paddings_agree_where_there_is_none():
    """At a size that windows divide."""
    torch.manual_seed(0)
    ends, published = (
        RegionViT(arch=TINY, regional_padding=padding).eval() for padding in ('end', 'published')
    )
    published.load_state_dict(ends.state_dict())
    side = 4 * ends.window_size * 8
    images = torch.randn(1, 3, side, 2 * side)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(ends(images), published(images)))
        images = images[..., :-4, :]
        assert not all(torch.equal(a, b) for a, b in zip(ends(images), published(images)))


# Bad input.


BAD_OPTIONS = [
    (dict(arch=dict(TINY, dims=[16, 24, 32, 32])), ['arch', '16 channels', '24']),
    (dict(arch=dict(TINY, dims=[6, 6, 12, 12])), ['arch', '4 divides', '6']),
    (dict(arch=dict(TINY, stem='2-conv')), ['stem', "'3-conv', '1-conv'", "'2-conv'"]),
    (dict(arch=dict(TINY, regional=0)), ["arch['regional']", 'True or False', '0']),
    (dict(window_size=0), ['window_size', 'positive integer', '0']),
    (dict(window_size=-7), ['window_size', 'positive integer', '-7']),
    (dict(window_size='x'), ['window_size', 'positive integer', 'x']),
    (dict(window_size=7.0), ['window_size', 'positive integer', '7.0']),
    (dict(window_size=True), ['window_size', 'positive integer', 'True']),
    (dict(arch=dict(TINY, window_size=None)), ['window_size', 'positive integer', 'None']),
    (dict(window_size=[7, 7]), ['window_size', '4 equal', '[7, 7]']),
    (dict(window_size=[7, 7, 7, 14]), ['window_size', '4 equal', 'halve together']),
    (dict(window_size=[7.0] * 4), ['window_size', 'positive integer']),
    (dict(regional_padding='start'), ['regional_padding', "'end', 'published'", "'start'"]),
    (
        dict(regional_padding='published', arch=dict(TINY, regional=False)),
        ['regional_padding', 'regional tokens'],
    ),
]


@pytest.mark.parametrize('options, words', BAD_OPTIONS, ids=lambda value: str(value)[:60])
def test_bad_options(options, words):
    with pytest.raises(ValueError) as error:
        RegionViT(**{'arch': TINY, **options})
    for word in words:
        assert word in str(error.value)
