"""RMT against a slow reference, at all sizes, and option by option."""

import functools
import gc
import itertools
import math

import numpy as np
import pytest
import tiny_backbones
import torch
import torch.nn.functional as F
from tiny_backbones import OPTIONS, LargestTensor, image, randomise, weighed
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitbackbones import RMT
from mmvitbackbones.backbones.rmt import ARCHS, ManhattanAttention, RMTBlock, RMTStage
from mmvitbackbones.ops import chunked, manhattan

TINY = OPTIONS['RMT']['arch']
# Millions of the classifiers' parameters, and how far the paper rounds them.
PARAMETERS = dict(
    tiny=(14.3, 0.01),
    small=(27, 0.01),
    base=(54, 0.01),
    large=(95, 0.01),
    swin_tiny=(29, 0.015),
    swin_small=(50, 0.015),
)
build = functools.partial(tiny_backbones.build, 'RMT')
forms = pytest.mark.parametrize('form', ['decomposed', 'whole'])
decays = pytest.mark.parametrize('decay', ['bias', 'product'])
decays_or_none = pytest.mark.parametrize('decay', ['bias', 'product', None])


# The reference: one query after the other, as the paper writes it. Angles and the logarithm of
# gamma are float32 values, as published.


def gammas(heads, interval):
    a, b = interval
    logs = [math.log(1 - 2 ** (-a - (b - a) * n / heads)) for n in range(heads)]
    return [math.exp(np.float32(log)) for log in logs]


def turned(x):
    """RoPE of a head's queries or keys, (H, W, d): adjacent pairs, by the token's number."""
    height, width, dims = x.shape
    steps = max(dims // 2 - 1, 1)
    angles = [float(np.float32(10000 ** (-j / steps))) for j in range(dims // 2)]
    rows = []
    for row in range(height):
        for column in range(width):
            token, pairs = x[row, column], []
            for j, angle in enumerate(angles):
                cos = math.cos((row * width + column) * angle)
                sin = math.sin((row * width + column) * angle)
                a, b = token[2 * j], token[2 * j + 1]
                pairs += [a * cos - b * sin, b * cos + a * sin]
            rows.append(torch.stack(pairs))
    return torch.stack(rows).view_as(x)


def look(q, k, v, gamma, decay, sees):
    """Attention of each token of a map to those that it ``sees``; (H, W, d) in and out."""
    height, width, dims = q.shape
    out = []
    for row in range(height):
        for column in range(width):
            keys = list(sees(row, column))
            fading = q.new_tensor([gamma ** (abs(row - y) + abs(column - x)) for y, x in keys])
            scores = torch.stack([q[row, column] @ k[key] for key in keys]) / math.sqrt(dims)
            weights = scores.exp()
            if decay == 'bias':
                weights = weights * fading
            weights = weights / weights.sum()
            if decay == 'product':
                weights = weights * fading
            out.append(weights @ torch.stack([v[key] for key in keys]))
    return torch.stack(out).view_as(v)


def attend(attn, x, interval):
    """Manhattan attention of maps (B, H, W, C), with what comes before and after it."""
    height, width = x.shape[1:3]
    everything = [(y, z) for y in range(height) for z in range(width)]
    weight, bias = attn.qk.weight.chunk(2), attn.qk.bias.chunk(2)
    q, k = (F.linear(x, *half) for half in zip(weight, bias))
    v, out = F.linear(x, attn.v.weight, attn.v.bias), []
    for sample in range(len(x)):
        heads = []
        for head, gamma in enumerate(gammas(attn.heads, interval)):
            one_q, one_k, one_v = (t[sample].chunk(attn.heads, dim=-1)[head] for t in (q, k, v))
            one_q, one_k = turned(one_q), turned(one_k)
            decay = getattr(attn, 'decay', None)
            see = functools.partial(look, one_q, one_k, gamma=gamma, decay=decay)
            if attn.form == 'whole':
                heads.append(see(one_v, sees=lambda y, z: everything))
            else:
                rows = see(one_v, sees=lambda y, z: [(y, other) for other in range(width)])
                heads.append(see(rows, sees=lambda y, z: [(other, z) for other in range(height)]))
        out.append(torch.cat(heads, dim=-1))
    y = torch.stack(out)
    if attn.lce is not None:
        y = y + convolve(attn.lce, v)
    return F.linear(y, attn.proj.weight, attn.proj.bias)


def convolve(conv, x):
    """A depth-wise convolution of maps (B, H, W, C)."""
    padding = conv.weight.shape[-1] // 2
    x = x.permute(0, 3, 1, 2)
    y = F.conv2d(x, conv.weight, conv.bias, padding=padding, groups=x.shape[1])
    return y.permute(0, 2, 3, 1)


def run_block(block, x, interval):
    """A block in evaluation, of the parts that it has."""

    def branch(norm, function, residual, x):
        y = function(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps=1e-6))
        return x + (y if residual.scale is None else y * residual.scale)

    def feed_forward(x):
        hidden = F.gelu(block.ffn.fc1(x))
        if block.ffn.conv is not None:
            hidden = hidden + convolve(block.ffn.conv, hidden)
        return block.ffn.fc2(hidden)

    if not isinstance(block.cpe, nn.Identity):
        x = x + convolve(block.cpe.conv, x)
    attention = functools.partial(attend, block.attn, interval=interval)
    x = branch(block.norm1, attention, block.residual1, x)
    return branch(block.norm2, feed_forward, block.residual2, x)


def run_backbone(model, x):
    """Maps in evaluation of a model with convolutions in its stem and downsampling."""

    def normed(x, norm):
        mean, var = norm.running_mean, norm.running_var
        return F.batch_norm(x, mean, var, norm.weight, norm.bias, eps=1e-5)

    convolutions = [layer for layer in model.stem if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in model.stem if isinstance(layer, _BatchNorm)]
    strides = (2, 1, 2, 1)
    for i, (conv, norm, stride) in enumerate(zip(convolutions, norms, strides)):
        x = normed(F.conv2d(x, conv.weight, conv.bias, stride=stride, padding=1), norm)
        x = F.gelu(x) if i < 3 else x
    for i, stage in enumerate(model.stages):
        if i:
            conv, norm = stage.downsample.conv, stage.downsample.norm
            x = normed(F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1), norm)
        x = x.permute(0, 2, 3, 1)
        for block in stage.blocks:
            x = run_block(block, x, TINY['decay_range'][i])
        norm = model.out_norms[i]
        y = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps=1e-5)
        x = x.permute(0, 3, 1, 2)
        yield y.permute(0, 3, 1, 2)


def make_stage(form, decay, interval=(1, 5), scale=None, parts=True):
    """Two blocks that share their positions."""
    torch.manual_seed(0)
    blocks = [
        RMTBlock(
            dims=8,
            heads=2,
            mlp_ratio=2,
            decay_range=interval,
            form=form,
            decay=decay,
            drop_path=0.0,
            layer_scale=scale,
            cpe=parts,
            lce=parts,
            ffn_conv=parts,
        )
        for _ in range(2)
    ]
    stage = randomise(RMTStage(blocks, head_dims=4, with_cp=False, downsample=None).double())
    for block in blocks:
        with torch.no_grad():
            block.attn.qk.weight.mul_(2)  # scores that matter beside the decay
    return stage


def make_map(height, width, batch=2, dims=8):
    torch.manual_seed(1)
    return torch.randn(batch, height, width, dims, dtype=torch.float64).requires_grad_()


def compare(stage, x, interval=(1, 5)):
    """Equal outputs, with and without gradients; equal gradients of input and parameters."""
    (ours,) = stage(x)
    expected = x
    for block in stage.blocks:
        expected = run_block(block, expected, interval)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(stage(x)[0], expected, rtol=1e-9, atol=1e-9)
    slope = torch.randn_like(expected)
    inputs = dict(stage.named_parameters(), x=x)
    found = torch.autograd.grad(ours, inputs.values(), slope)
    wanted = torch.autograd.grad(expected, inputs.values(), slope)
    for name, a, b in zip(inputs, found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f'{n}: {m}')


@forms
@decays_or_none
@pytest.mark.parametrize('size', [(4, 7), (5, 3), (1, 6), (6, 1), (1, 1)])
def test_stage_equals_reference(decay, form, size):
    compare(make_stage(form, decay), make_map(*size))


def test_without_a_fused_kernel():
    """Whose gradients lie otherwise in memory."""
    with sdpa_kernel(SDPBackend.MATH):
        compare(make_stage('decomposed', 'bias'), make_map(4, 3))


@pytest.mark.parametrize('options', [dict(scale=1e-6), dict(parts=False)], ids=str)
def test_parts_of_a_block(options):
    compare(make_stage('decomposed', 'bias', **options), make_map(3, 4))


@pytest.mark.parametrize(
    'options', [{}, dict(decay='product', attention='whole'), dict(decay=None)], ids=str
)
def test_backbone_equals_reference(options):
    model = build(**options).eval()
    with torch.no_grad():
        for ours, expected in zip(model(image(47, 35)), run_backbone(model, image(47, 35))):
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


# Parts of some rows.


@pytest.fixture
def parts(monkeypatch):
    """How many parts each call takes."""
    calls = []

    def spy(compute, shared, parts, *others, **options):
        parts = list(parts)
        calls.append(len(parts))
        return chunked.in_parts(compute, shared, parts, *others, **options)

    monkeypatch.setattr(manhattan, 'in_parts', spy)
    return calls


@pytest.mark.parametrize(
    'rows, count', [(0, 20), (0.5, 10), (0.75, 10), (1, 5), (2, 3), (3, 2), (5, 1), (100, 1)]
)
@decays
def test_parts_of_whole_attention(monkeypatch, parts, decay, rows, count):
    """Of so many rows of queries, or parts of a row, as the scores or the bias leave room for."""
    height, width, heads, batch = 5, 4, 2, 2
    scores = heads * width * height * width * (batch if decay == 'product' else 1)
    monkeypatch.setattr(chunked, '_CHUNK_BYTES', int(rows * scores * 8))
    stage, x = make_stage('whole', decay), make_map(height, width)
    compare(stage, x)
    assert {*parts} == {count}


@pytest.mark.parametrize(
    'lines, counts', [(0, (10, 4, 4)), (3, (3, 2, 2)), (4, (2, 1, 1)), (99, (1, 1, 1))]
)
def test_parts_of_decomposed_products(monkeypatch, parts, lines, counts):
    """Of so many columns of one sample, and of more rows, as they are shorter, of all samples."""
    height, width, heads = 5, 4, 2
    monkeypatch.setattr(chunked, '_CHUNK_BYTES', lines * heads * height * height * 8)
    stage, x = make_stage('decomposed', 'product'), make_map(height, width)
    compare(stage, x)
    assert parts == [*counts] * 4  # two blocks, run twice


# Decay.


def make_attention(form, decay='bias', heads=2, size=2, dtype=torch.float64):
    """A stage of nothing but attention with equal scores, that hands values on as they are."""
    dims, interval = heads * size, (2, 8)
    attn = ManhattanAttention(dims, heads, interval, form, decay, lce=False).to(dtype)
    with torch.no_grad():
        for parameter in attn.parameters():
            parameter.zero_()
        attn.v.weight.copy_(torch.eye(dims))
        attn.proj.weight.copy_(torch.eye(dims))
    return RMTStage([attn], head_dims=size, with_cp=False, downsample=None)


def impulse(size, place, dims):
    x = torch.zeros(1, *size, dims, dtype=torch.float64)
    x[0, place[0], place[1]] = 1
    return x


@decays
@pytest.mark.parametrize('size, place', [((6, 5), (2, 4)), ((1, 7), (0, 0)), ((8, 3), (7, 1))])
def test_equal_scores_spread_as_a_product_of_decays(size, place, decay):
    """Fig. 4: a token spreads along its row, and that along the columns."""
    with torch.no_grad():
        (found,) = make_attention('decomposed', decay)(impulse(size, place, 4))
    for head, gamma in enumerate((1 - 2**-2, 1 - 2**-5)):
        lines = []
        for length, at in zip(size, place):
            decays = gamma ** (torch.arange(length) - at).abs().double()
            totals = [sum(gamma ** abs(i - j) for j in range(length)) for i in range(length)]
            lines.append(decays / (length if decay == 'product' else torch.tensor(totals)))
        expected = torch.outer(*lines)[:, :, None].expand(*size, 2)
        ours = found[0].unflatten(-1, (2, 2))[:, :, head]
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    'dtype, tolerance', [(torch.bfloat16, 0.012), (torch.float16, 0.002)], ids=str
)
@pytest.mark.parametrize('cast', ['autocast', 'weights'])
@pytest.mark.parametrize('size', [(1, 300), (300, 1)])
@decays
@forms
def test_decay_keeps_its_precision_in_half_types(form, decay, size, cast, dtype, tolerance):
    """Over hundreds of tokens, where a decay of the half type itself would be far off."""
    heads, length = 16, 300
    x = impulse(size, (0, 0), 2 * heads)
    with torch.no_grad():
        (expected,) = make_attention(form, decay, heads)(x)
    # The last head's in the half type, all the way to the last token.
    log_gamma = torch.log(1 - torch.tensor(2.0 ** -(2 + 6 * 15 / 16)).to(dtype)).double()
    poor = (log_gamma * torch.arange(length)).exp()
    poor = poor[-1] / (poor.sum() if decay == 'bias' else length)
    assert abs(poor / expected.flatten()[-1] - 1) > 2.5 * tolerance

    held = dtype if cast == 'weights' else torch.float32
    stage = make_attention(form, decay, heads, dtype=held)
    with torch.no_grad(), torch.autocast('cpu', dtype, enabled=cast == 'autocast'):
        (found,) = stage(x.to(held))
    assert found.dtype == dtype
    normal = expected > torch.finfo(torch.float16).tiny
    assert normal.any(3).all() and normal.sum() > 2000
    assert (found / expected - 1)[normal].abs().max() < tolerance


# Memory.


@forms
@decays_or_none
def test_nothing_of_all_pairs_of_tokens_is_kept(monkeypatch, decay, form):
    """Neither by autograd nor by whoever computes it again, nor is more than a chunk ever made."""
    side, heads, batch, chunk = 24, 2, 2, 60_000
    monkeypatch.setattr(chunked, '_CHUNK_BYTES', chunk * 8)
    stage, x = make_stage(form, decay), make_map(side, side, batch)
    hidden, saved = batch * side**2 * 2 * 8, []
    assert hidden < chunk < heads * side**4 / 10

    def large():
        found = (thing for thing in gc.get_objects() if type(thing) is torch.Tensor)
        return {id(tensor): tensor for tensor in found if tensor.numel() > hidden}

    def keep(tensor):
        saved.append(tensor.numel())
        return tensor

    gc.collect()
    before = large()
    with LargestTensor() as mode:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            (y,) = stage(x)
        assert saved and max(saved) <= hidden
        assert large().keys() == before.keys()
        y.sum().backward()
    assert mode.numel <= chunk


# Shapes, sizes, parameters.


def test_any_number_of_stages():
    """Without a word on their attention, all but the last are decomposed."""
    arch = dict(dims=[8, 24], heads=[1, 3], depths=[1, 1], mlp_ratios=[1, 2])
    model = RMT(dict(arch, decay_range=[(2, 6)] * 2))
    maps = model(image(33, 40, dtype=torch.float32))
    assert [m.shape for m in maps] == [(1, 8, 9, 10), (1, 24, 5, 5)]
    assert forms_of(model) == [['decomposed'], ['whole']]


def forms_of(model):
    return [[block.attn.form for block in stage.blocks] for stage in model.stages]


@pytest.mark.parametrize('arch', PARAMETERS)
def test_parameters_of_the_published_sizes(arch):
    """With the classifier: a projection, its batch normalisation, and the head."""
    with torch.device('meta'):
        model = RMT(arch, out_norm=None)
    channels = ARCHS[arch]['dims'][-1]
    classifier = 1024 * channels + 1024 + 2 * 1024 + 1000 * 1024 + 1000
    ours = sum(p.numel() for p in model.parameters()) + classifier
    published, tolerance = PARAMETERS[arch]
    assert abs(ours / 1e6 / published - 1) < tolerance
    names = ' '.join(model.state_dict())
    for part in ('.cpe.', '.attn.lce.', '.ffn.conv.', 'stem.0.', '.downsample.norm.running_mean'):
        assert (part in names) == ('swin' not in arch)
    last_decomposed = 1 if arch == 'tiny' else 2
    for i, of_stage in enumerate(forms_of(model)):
        expected = 'decomposed' if i <= last_decomposed else 'whole'
        assert of_stage == [expected] * ARCHS[arch]['depths'][i]


# Options.


@pytest.mark.parametrize(
    'attention', ['whole', 'decomposed', ('whole', 'decomposed', 'decomposed', 'whole')]
)
def test_attention(attention):
    """Instead of the arch's, for all stages or one each."""
    each = (attention,) * 4 if isinstance(attention, str) else attention
    for model in (build(attention=attention), build(arch=dict(TINY, attention=each))):
        for i, of_stage in enumerate(forms_of(model)):
            assert of_stage == [each[i]] * TINY['depths'][i]


def test_decay():
    """Inside the softmax by default."""
    maps = []
    for options in ({}, dict(decay='bias'), dict(decay='product'), dict(decay=None)):
        with torch.no_grad():
            maps.append(build(**options).eval()(image(33, 45)))
    for default, bias, *others in zip(*maps):
        assert torch.equal(default, bias)
        for a, b in itertools.combinations([bias, *others], 2):
            assert not torch.allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize('with_cp', [False, True])
def test_without_decay(monkeypatch, with_cp):
    """The same parameters, on long maps too, and nothing of a decay is computed."""
    model = build(decay=None, with_cp=with_cp)
    assert model.state_dict().keys() == build().state_dict().keys()
    monkeypatch.setattr(manhattan, 'log_decay', None)
    x = image(32, 1200)
    _, grads = tiny_backbones.gradients(model, x)
    assert grads.keys() == dict(model.named_parameters()).keys()
    assert all(grad.isfinite().all() for grad in grads.values())


@pytest.mark.parametrize(
    'option, value, part, new',
    [
        ('cpe', False, '.cpe.', set()),
        ('lce', False, '.attn.lce.', set()),
        ('ffn_conv', False, '.ffn.conv.', set()),
        ('layer_scale', None, '.scale', set()),
        (
            'stem',
            'patch',
            'stem.',
            {'stem.conv.weight', 'stem.conv.bias', 'stem.norm.weight', 'stem.norm.bias'},
        ),
        ('downsample', 'patch', '.downsample.norm.', {'.weight', '.bias'}),
    ],
)
def test_parts_of_an_arch(option, value, part, new):
    """What is left out has no parameters, and all else stays."""
    whole, less = build(), build(arch=dict(TINY, **{option: value}))
    ours, theirs = dict(whole.named_parameters()), dict(less.named_parameters())
    if option == 'downsample':
        new = {f'stages.{i}.downsample.norm{end}' for i in (1, 2, 3) for end in new}
    gone = {name for name in ours if part in name}
    assert gone and set(theirs) == set(ours) - gone | new
    for patches, kernels in ((less, (4, 2)), (whole, (3, 3))):
        if part == 'stem.':
            conv = patches.stem.conv if patches is less else patches.stem[0]
            assert conv.kernel_size == (kernels[0],) * 2
        if option == 'downsample':
            assert patches.stages[1].downsample.conv.kernel_size == (kernels[1],) * 2


def test_layer_scale_and_mlp_ratios():
    """Of each stage, and only of it."""
    model = RMT(TINY)
    for i, stage in enumerate(model.stages):
        for block in stage.blocks:
            hidden, dims = block.ffn.fc1.weight.shape
            assert hidden == TINY['mlp_ratios'][i] * dims
            for residual in (block.residual1, block.residual2):
                start = TINY['layer_scale'][i]
                assert (residual.scale is None) == (start is None)
                assert start is None or torch.equal(residual.scale, torch.full((dims,), start))


def test_drop_path_drops_both_branches():
    """But not the position encoding."""
    torch.manual_seed(0)
    stage, x = make_stage('whole', 'bias').float(), torch.randn(2, 5, 7, 8)
    stage.blocks = stage.blocks[:1]
    (block,) = stage.blocks
    block.residual1.drop_prob = block.residual2.drop_prob = 1 - 1e-9
    assert torch.equal(stage(x)[0], block.cpe(x))
    assert not torch.allclose(stage.eval()(x)[0], block.cpe(x))


def batch_norms(model):
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


@pytest.mark.parametrize('norm_cfg, norm', [(None, nn.BatchNorm2d), ('SyncBN', nn.SyncBatchNorm)])
def test_norm_cfg(norm_cfg, norm):
    """Four norms in the stem, one in each downsampling; published names and values for all."""
    model = build(norm_cfg=norm_cfg and dict(type=norm_cfg)).eval()
    assert [isinstance(layer, norm) for layer in batch_norms(model)] == [True] * 7
    other = build(seed=2).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for ours, expected in zip(model(image(33, 45)), other(image(33, 45))):
            torch.testing.assert_close(ours, expected)


def test_norm_cfg_of_another_norm():
    """Without statistics of a batch, samples of a batch are on their own also in training."""
    model, x = build(norm_cfg=dict(type='GN', num_groups=2)), image(33, 45, batch=2)
    assert not batch_norms(model)
    for together, alone in zip(model(x), model(x[:1])):
        torch.testing.assert_close(together[:1], alone)


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval(norm_eval):
    """Statistics that stay as they were, and samples that do not depend on each other."""
    model, x = build(norm_eval=norm_eval).train(), image(33, 45, batch=2)
    assert model.training and model.stages[1].blocks[0].training
    assert {layer.training for layer in batch_norms(model)} == {not norm_eval}
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    together = model(x)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]) == norm_eval, name
    for ours, alone in zip(together, model(x[:1])):
        assert torch.allclose(ours[:1], alone, rtol=1e-9, atol=1e-9) == norm_eval
    weighed(together).backward()
    assert all(layer.weight.grad.any() for layer in batch_norms(model))


# Bad input.

BAD_OPTIONS = [
    (dict(attention='x'), ['attention', "'decomposed' or 'whole'", '4 of them', "'x'"]),
    (dict(attention=['whole'] * 3), ['attention', '4 of them', "['whole', 'whole', 'whole']"]),
    (dict(attention=['whole'] * 3 + [None]), ['attention', '4 of them', 'None']),
    (dict(attention=()), ['attention', '4 of them', '()']),
    (dict(attention=3), ['attention', "'decomposed' or 'whole'", '3']),
    (dict(decay='exp'), ['decay', "'bias', 'product', None", "'exp'"]),
    (dict(decay=False), ['decay', "'bias', 'product', None", 'False']),
    (dict(norm_cfg='BN'), ['norm_cfg', "dict(type='BN')", "got 'BN'"]),
    (dict(norm_cfg=dict(type='LN')), ['norm_cfg', "dict(type='GN', ", "{'type': 'LN'}"]),
]
NEEDED = 'decay_range, depths, dims, heads, mlp_ratios and perhaps attention, cpe, downsample'
BAD_ARCHS = [
    (dict(attention='x'), ['attention', "'decomposed' or 'whole'", "'x'"]),
    (dict(attention=['whole'] * 5), ['attention', '4 of them']),
    (dict(window_size=7), [NEEDED, 'window_size']),
    (dict(mlp_ratios=[2, 2]), ['dims, heads, depths, mlp_ratios', 'as many stages']),
    (dict(mlp_ratios=[2.5, 2, 2, 2]), ['mlp_ratios', 'positive integers', '2.5']),
    (dict(heads=[8, 2, 2, 4]), ['8 channels in 8 heads are 1 each', 'even']),
    (dict(dims=[8, 18, 16, 16]), ['18 channels in 2 heads are 9 each', 'even']),
    (dict(decay_range=(2, 6)), ['decay_range', '4 pairs', '(2, 6)']),
    (dict(decay_range=[(2, 6)] * 3), ['decay_range', '4 pairs']),
    (dict(decay_range=[(2, 6)] * 3 + [(2, 6, 8)]), ['decay_range', '4 pairs', '(2, 6, 8)']),
    (dict(decay_range=[(2, 6)] * 3 + [(0, 6)]), ['decay_range', 'positive', '(0, 6)']),
    (dict(decay_range=[(2, 6)] * 3 + [(2, '6')]), ['decay_range', 'numbers', "(2, '6')"]),
    (dict(decay_range=[(2, 6)] * 3 + [(True, 6)]), ['decay_range', 'numbers', 'True']),
    (dict(decay_range=None), ['decay_range', '4 pairs', 'None']),
    (dict(layer_scale=1e-6), ['layer_scale', '4 numbers or None', '1e-06']),
    (dict(layer_scale=[None] * 3), ['layer_scale', '4 numbers or None']),
    (dict(layer_scale=[None] * 3 + ['x']), ['layer_scale', '4 numbers or None', "'x'"]),
    (dict(layer_scale=[None] * 3 + [True]), ['layer_scale', '4 numbers or None', 'True']),
    (dict(stem='x'), ["arch['stem']", "'conv', 'patch'", "'x'"]),
    (dict(downsample=None), ["arch['downsample']", "'conv', 'patch'", 'None']),
    (dict(cpe=1), ["arch['cpe']", 'True or False', '1']),
    (dict(lce='no'), ["arch['lce']", 'True or False', 'no']),
    (dict(ffn_conv=None), ["arch['ffn_conv']", 'True or False', 'None']),
]


def error_of(arch, **options):
    with pytest.raises(ValueError) as error:
        RMT(arch, **options)
    return str(error.value)


@pytest.mark.parametrize('options, words', BAD_OPTIONS, ids=lambda value: str(value)[:60])
def test_bad_options(options, words):
    message = error_of(TINY, **options)
    assert all(word in message for word in words), message


@pytest.mark.parametrize('changes, words', BAD_ARCHS, ids=lambda value: str(value)[:60])
def test_bad_archs(changes, words):
    message = error_of({**TINY, **changes})
    assert all(word in message for word in words), message


@pytest.mark.parametrize('key', ['dims', 'heads', 'depths', 'mlp_ratios', 'decay_range'])
def test_an_arch_that_lacks_something(key):
    assert NEEDED in error_of({name: value for name, value in TINY.items() if name != key})


@pytest.mark.parametrize('few', [0, 1, 4])
def test_columns_of_few_samples_and_of_many(monkeypatch, few):
    """One sample after the other, or copied to be together: the same."""
    stage, x = make_stage('decomposed', 'bias'), make_map(5, 4, 3)
    (expected,) = stage(x)
    monkeypatch.setattr(manhattan, '_FEW', few)
    torch.testing.assert_close(stage(x)[0], expected, atol=1e-12, rtol=1e-12)


def test_layer_scale_in_whole_numbers():
    model = build(arch=dict(TINY, layer_scale=[1, None, 0, 2]))
    assert model.stages[3].blocks[0].residual1.scale.dtype == torch.float64
