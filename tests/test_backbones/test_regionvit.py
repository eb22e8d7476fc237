"""RegionViT against a slow reference, at all sizes, and option by option."""

import copy
import math
import subprocess
import sys

import golden_cases
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmvitbackbones import RegionViT
from mmvitbackbones.backbones.regionvit import ARCHS

TINY = dict(
    stem='3-conv', dims=[16, 16, 32, 32], heads=[2, 2, 4, 4], depths=[1, 2, 1, 1], window_size=3
)
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


def build(seed=0, dtype=torch.float64, arch=TINY, **options):
    """A tiny model in training mode, all of its parameters random, without stochastic depth."""
    torch.manual_seed(seed)
    model = RegionViT(arch, **{'drop_path_rate': 0.0, **options}).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def image(height, width, batch=1, dtype=torch.float64, seed=1):
    return torch.randn(
        batch, 3, height, width, dtype=dtype, generator=torch.Generator().manual_seed(seed)
    )


def gradients(model, x):
    """Outputs and the gradients of a loss that weighs every value of them differently."""
    model.zero_grad()
    maps = model(x)
    sum((m * torch.cos(torch.arange(m.numel()).view_as(m))).sum() for m in maps).backward()
    return maps, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def is_frozen(module):
    return not any(p.requires_grad for p in module.parameters())


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


def pair_biases(table, window, positions):
    """Bias of each pair in a sequence of one regional token and local tokens at positions."""
    bias = torch.zeros(len(table), 1 + len(positions), 1 + len(positions), dtype=table.dtype)
    for i, (qy, qx) in enumerate(positions):
        for j, (ky, kx) in enumerate(positions):
            offset = (ky - qy + window - 1) * (2 * window - 1) + kx - qx + window - 1
            bias[:, 1 + i, 1 + j] = table[:, offset]
    return bias


def encode(encoder, local, regional, window):
    """Eq. 2 and 3 on the tokens of one sample: (H, W, C) and (rows, columns, C)."""
    grid = regional.flatten(0, 1)
    grid = grid + attend(encoder.attn, encoder.norm0(grid), None)
    local, regional = local.clone(), grid.view_as(regional).clone()
    for row in range(regional.shape[0]):
        for column in range(regional.shape[1]):
            positions = [
                (y, x)
                for y in range(window)
                for x in range(window)
                if row * window + y < local.shape[0] and column * window + x < local.shape[1]
            ]
            places = [(row * window + y, column * window + x) for y, x in positions]
            y = torch.stack([regional[row, column], *(local[place] for place in places)])
            bias = pair_biases(encoder.bias.table, window, positions)
            y = y + attend(encoder.attn, encoder.norm1(y), bias)
            z = encoder.norm2(y)
            y = y + encoder.ffn.fc2(F.gelu(encoder.ffn.fc1(z)))
            regional[row, column] = y[0]
            for place, token in zip(places, y[1:]):
                local[place] = token
    return local, regional


@pytest.mark.parametrize('size, grid', [((6, 9), (2, 3)), ((5, 7), (2, 3)), ((1, 2), (1, 1))])
def test_encoders_equal_the_reference(size, grid):
    """Two encoders in a row, so that what the first leaves in padded tokens would be seen."""
    model = build(arch=dict(TINY, depths=[2, 1, 1, 1])).eval()
    stage = model.stages[0]
    local, regional = torch.randn(2, *size, 16).double(), torch.randn(2, *grid, 16).double()
    with torch.no_grad():
        found = stage(local, regional)
        for sample in range(2):
            tokens = local[sample], regional[sample]
            for encoder in stage.blocks:
                tokens = encode(encoder, *tokens, window=3)
            for ours, expected in zip(found, tokens):
                torch.testing.assert_close(ours[sample], expected, atol=1e-9, rtol=0)


# Shapes, sizes, batches.


@pytest.mark.parametrize(
    'size, window',
    [((64, 96), 2), ((33, 45), 3), ((50, 97), 3), ((35, 32), 1), ((32, 32), 14), ((37, 130), 14)],
)
@pytest.mark.parametrize('stem', ['3-conv', '1-conv'])
def test_shapes(stem, size, window):
    model = build(arch=dict(TINY, stem=stem), window_size=window, peg=True).eval()
    with torch.no_grad():
        maps = model(image(*size, batch=2))
        local, regional = model.stem(image(*size))
    assert local.shape[1:3] == tuple(math.ceil(side / 4) for side in size)
    assert regional.shape[1:3] == tuple(math.ceil(side / (4 * window)) for side in size)
    for stage, found in enumerate(maps):
        stride = 4 * 2**stage
        expected = (2, TINY['dims'][stage], *(math.ceil(side / stride) for side in size))
        assert found.shape == expected
        assert found.is_contiguous()  # compiled operations read the memory as it lies
        assert found.isfinite().all()


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


def test_samples_do_not_depend_on_each_other():
    model, batch = build(peg=True).eval(), image(45, 70, batch=3)
    with torch.no_grad():
        together = model(batch)
        for i in range(3):
            for ours, alone in zip(together, model(batch[i : i + 1])):
                torch.testing.assert_close(ours[i : i + 1], alone, atol=1e-12, rtol=0)


def test_memory_layout_of_the_image_does_not_matter():
    model, x = build().eval(), image(45, 70, batch=2)
    strided = torch.stack([x, x], dim=-1)[..., 0]
    with torch.no_grad():
        for a, b, c in zip(
            model(x), model(x.to(memory_format=torch.channels_last)), model(strided)
        ):
            assert torch.equal(a, b) and torch.equal(a, c)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    model, x = build(dtype=torch.float32, peg=True), image(45, 70, batch=2, dtype=torch.float32)
    expected, precise = gradients(model, x)
    model.zero_grad()
    with torch.autocast('cpu', dtype):
        maps = model(x)
    sum((m.float() * torch.cos(torch.arange(m.numel()).view_as(m))).sum() for m in maps).backward()
    for ours, wanted in zip(maps, expected):
        error = (ours.float() - wanted).square().mean().sqrt()
        assert error < 0.03 * wanted.std()
    for name, parameter in model.named_parameters():
        error = (parameter.grad - precise[name]).norm()
        assert error < 0.15 * precise[name].norm() + 1e-3, name


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


@pytest.mark.parametrize('rates', [{}, dict(drop_path_rate=0.5, drop_rate=0.2, attn_drop_rate=0.2)])
def test_with_cp_equals_without(rates):
    """Also where the encoders draw random numbers."""
    x, results, calls = image(33, 45, batch=2), [], []
    for with_cp in (False, True):
        model = build(with_cp=with_cp, peg=True, **rates)
        encoders = [block for stage in model.stages for block in stage.blocks]
        counts = [0]
        for encoder in encoders:
            encoder.register_forward_pre_hook(
                lambda *_, counts=counts: counts.__setitem__(0, counts[0] + 1)
            )
        torch.manual_seed(3)
        results.append(gradients(model, x))
        calls.append(counts[0] / len(encoders))
    assert calls == [1, 2]
    (maps, grads), (maps_cp, grads_cp) = results
    assert grads.keys() == grads_cp.keys() == dict(model.named_parameters()).keys()
    for a, b in [*zip(maps, maps_cp), *((grads[n], grads_cp[n]) for n in grads)]:
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('out_norm', ['inline', 'output', None])
@pytest.mark.parametrize('out_indices', [None, (1,), (0, 2)])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 1])
def test_every_trainable_parameter_gets_a_gradient(out_norm, out_indices, frozen_stages):
    """As data-parallel training needs."""
    model = build(peg=True, out_norm=out_norm, out_indices=out_indices, frozen_stages=frozen_stages)
    _, grads = gradients(model, image(33, 45))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert grads.keys() == trainable
    assert all(grad.isfinite().all() for grad in grads.values())


# Options.


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 4])
def test_frozen_stages(frozen_stages):
    model = build(frozen_stages=frozen_stages, drop_rate=0.1, out_norm='inline').train()
    stages = [frozen_stages > i for i in range(4)]
    assert is_frozen(model.stem) == (frozen_stages >= 0)
    assert [is_frozen(stage) for stage in model.stages] == stages
    assert [is_frozen(norm) for norm in model.out_norms] == stages
    assert model.stem.training == (frozen_stages < 0)
    for stage, frozen in zip(model.stages, stages):
        assert {module.training for module in stage.modules()} == {not frozen}

    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        return
    before = copy.deepcopy(model.state_dict())
    gradients(model, image(33, 45))
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval(norm_eval):
    model = build(norm_eval=norm_eval)
    model.stages[1].add_module('extra', nn.BatchNorm2d(4))
    assert model.train().stages[1].extra.training == (not norm_eval)
    assert model.stages[1].blocks[0].ffn.training
    assert not model.eval().stages[1].extra.training


@pytest.mark.parametrize('out_norm', ['inline', 'output', None])
@pytest.mark.parametrize('out_indices', [(0,), (1, 2), (3,)])
def test_out_indices(out_norm, out_indices):
    """Fewer outputs of the same values; stages after the last do not train."""
    whole = build(out_norm=out_norm).eval()
    part = build(out_norm=out_norm, out_indices=out_indices).eval()
    missing, unexpected = part.load_state_dict(whole.state_dict(), strict=False)
    assert not missing and all(name.startswith('out_norms') for name in unexpected)
    for stage in part.stages[out_indices[-1] + 1 :]:
        stage.forward = None  # not to be run
    x = image(33, 45)
    with torch.no_grad():
        maps, expected = part(x), whole(x)
    assert len(maps) == len(out_indices)
    for i, found in zip(out_indices, maps):
        assert torch.equal(found, expected[i])
    for i in range(4):
        assert is_frozen(part.stages[i]) == (i > out_indices[-1])


def test_out_norm():
    plain, output, inline = (build(out_norm=norm).eval() for norm in (None, 'output', 'inline'))
    for model in (output, inline):
        model.load_state_dict(plain.state_dict(), strict=False)
    inline.load_state_dict(output.state_dict())
    x = image(33, 45)

    def normed(i, tokens):
        norm = output.out_norms[i]
        return F.layer_norm(tokens, tokens.shape[-1:], norm.weight, norm.bias, eps=1e-5)

    with torch.no_grad():
        for i, (found, raw) in enumerate(zip(output(x), plain(x))):
            expected = normed(i, raw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            torch.testing.assert_close(found, expected)
        local, regional = plain.stem(x)
        for i, found in enumerate(inline(x)):
            local, regional = plain.stages[i](local, regional)
            local = normed(i, local)
            torch.testing.assert_close(found, local.permute(0, 3, 1, 2))


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


@pytest.mark.parametrize('option', ['drop_path_rate', 'drop_rate', 'attn_drop_rate'])
def test_drop_rates_act_in_training_only(option):
    model, x = build(**{option: 0.5}), image(33, 45)
    with torch.no_grad():
        last = model(x)[-1]
        assert not torch.allclose(model(x)[-1], last)
        expected = build()
        expected.load_state_dict(model.state_dict())
        for found, wanted in zip(model.eval()(x), expected(x)):
            torch.testing.assert_close(found, wanted)


def test_drop_path_rises_from_the_first_to_the_last_encoder():
    model = RegionViT(TINY, drop_path_rate=0.2)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize('window_size', [5, [5, 5, 5, 5], (5, 5, 5, 5)])
def test_window_size_overrides_the_arch(window_size):
    model = RegionViT(TINY, window_size=window_size)
    assert model.window_size == 5
    assert model.stem.regional.kernel_size == (20, 20)
    assert all(b.bias.table.shape[1] == 81 for stage in model.stages for b in stage.blocks)


# Bad input.


def without(key):
    return {k: v for k, v in TINY.items() if k != key}


BAD_OPTIONS = [
    (dict(arch='huge'), ["arch must be one of 'tiny'", "'base_plus'", "'huge'"]),
    (dict(arch=None), ['arch', "'tiny'", 'dict', 'None']),
    (dict(arch=without('heads')), ['arch', 'depths, dims, heads, stem, window_size']),
    (dict(arch=dict(TINY, depth=2)), ['arch', 'depths, dims, heads, stem, window_size']),
    (dict(arch=dict(TINY, depths=[1, 1])), ['arch', 'dims, heads, depths', 'as many stages']),
    (dict(arch=dict(TINY, depths=[1, 0, 1, 1])), ['arch', 'depths', 'positive integers']),
    (dict(arch=dict(TINY, dims=16)), ['arch', 'dims', 'positive integers', '16']),
    (dict(arch=dict(TINY, heads=[3, 2, 4, 4])), ['arch', '3 heads', '16 channels']),
    (dict(arch=dict(TINY, dims=[16, 24, 32, 32])), ['arch', '16 channels', '24']),
    (dict(arch=dict(TINY, dims=[6, 6, 12, 12])), ['arch', '4 divides', '6']),
    (dict(arch=dict(TINY, stem='2-conv')), ['stem', "'3-conv', '1-conv'", "'2-conv'"]),
    (dict(peg='flase'), ['peg', 'True or False', 'flase']),
    (dict(with_cp='x'), ['with_cp', 'True or False']),
    (dict(norm_eval=1), ['norm_eval', 'True or False']),
    (dict(frozen_stages=1.0), ['frozen_stages', '-1..4', '1.0']),
    (dict(frozen_stages=True), ['frozen_stages', '-1..4', 'True']),
    (dict(out_indices=(0.0, 1.0)), ['out_indices', '0..3']),
    (dict(window_size=0), ['window_size', 'positive integer', '0']),
    (dict(window_size=-7), ['window_size', 'positive integer', '-7']),
    (dict(window_size='x'), ['window_size', 'positive integer', 'x']),
    (dict(window_size=7.0), ['window_size', 'positive integer', '7.0']),
    (dict(window_size=True), ['window_size', 'positive integer', 'True']),
    (dict(arch=dict(TINY, window_size=None)), ['window_size', 'positive integer', 'None']),
    (dict(window_size=[7, 7]), ['window_size', '4 equal', '[7, 7]']),
    (dict(window_size=[7, 7, 7, 14]), ['window_size', '4 equal', 'halve together']),
    (dict(window_size=[7.0] * 4), ['window_size', 'positive integer']),
    (dict(out_norm='both'), ['out_norm', "'inline', 'output', None", "'both'"]),
    (dict(out_indices=()), ['out_indices', '0..3', '()']),
    (dict(out_indices=(0, 4)), ['out_indices', '0..3', '4']),
    (dict(out_indices=(-1,)), ['out_indices', '0..3', '-1']),
    (dict(out_indices=(2, 1)), ['out_indices', 'rising', '(2, 1)']),
    (dict(out_indices=(1, 1)), ['out_indices', 'rising', '(1, 1)']),
    (dict(out_indices=3), ['out_indices', '0..3', '3']),
    (dict(out_indices='01'), ['out_indices', 'integers', "'01'"]),
    (dict(frozen_stages=5), ['frozen_stages', '-1..4', '5']),
    (dict(frozen_stages=-2), ['frozen_stages', '-1..4', '-2']),
    (dict(frozen_stages=None), ['frozen_stages', '-1..4', 'None']),
    (dict(drop_path_rate=1), ['drop_path_rate', 'at least 0', '1']),
    (dict(drop_rate=-0.1), ['drop_rate', 'at least 0', '-0.1']),
    (dict(attn_drop_rate='0.1'), ['attn_drop_rate', 'number', "'0.1'"]),
]


@pytest.mark.parametrize('options, words', BAD_OPTIONS, ids=lambda value: str(value)[:60])
def test_bad_options(options, words):
    with pytest.raises(ValueError) as error:
        RegionViT(**{'arch': TINY, **options})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    'shape, words',
    [
        ((1, 3, 31, 64), ['at least 32 x 32', '31 x 64']),
        ((1, 3, 64, 31), ['at least 32 x 32', '64 x 31']),
        ((1, 1, 64, 64), ['(B, 3, H, W)', '(1, 1, 64, 64)']),
        ((1, 4, 64, 64), ['(B, 3, H, W)', '(1, 4, 64, 64)']),
        ((3, 64, 64), ['(B, 3, H, W)', '(3, 64, 64)']),
    ],
)
def test_bad_images(shape, words):
    with pytest.raises(ValueError) as error:
        RegionViT(TINY)(torch.zeros(shape))
    for word in ['RegionViT', *words]:
        assert word in str(error.value)


# In OpenMMLab.


def test_needs_no_toolbox_and_no_compiled_operations():
    """As with mmcv-lite: imports of mmdet, mmseg, mmpretrain and mmcv's operations fail."""
    code = """
import sys
for name in ('mmdet', 'mmseg', 'mmpretrain', 'mmcv.ops', 'mmcv._ext', 'sklearn', 'pycocotools'):
    sys.modules[name] = None
import torch, mmvitbackbones
maps = mmvitbackbones.RegionViT('tiny')(torch.zeros(1, 3, 40, 33))
sum(m.sum() for m in maps).backward()
"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_both_ways_through_the_call_agree(monkeypatch):
    """The whole model in blocks, as on a CPU, and through torch's own call, as elsewhere."""
    results = []
    for rate in (0.0, 1e-300):  # with a dropout, even of nothing, torch's own call is taken
        if rate:
            monkeypatch.setattr('mmvitbackbones.layers.attention._CPUAttention', None)
        model = build(window_size=5, peg=True, attn_drop_rate=rate)
        x = image(43, 59, batch=3).requires_grad_()
        maps = model(x)
        sum(m.square().mean() for m in maps).backward()
        results.append([*maps, x.grad, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize('home', ['mmengine', 'mmdet', 'mmseg'])
def test_builds_from_a_config(home):
    registry = pytest.importorskip(f'{home}.registry')
    model = registry.MODELS.build(
        dict(type='RegionViT', arch=TINY, window_size=2, out_indices=(1, 3))
    )
    assert isinstance(model, RegionViT)
    assert [m.shape[1] for m in model(torch.zeros(1, 3, 32, 40))] == [16, 32]


def test_training_after_inference_at_the_same_size():
    """What is cached by size in inference mode must serve training."""
    model, x = build(window_size=5, peg=True), image(43, 59)
    with torch.inference_mode():
        expected = model(x)
    maps, grads = gradients(model, x)
    for found, wanted in zip(maps, expected):
        torch.testing.assert_close(found, wanted.clone(), atol=1e-12, rtol=0)
    assert grads.keys() == dict(model.named_parameters()).keys()
