"""Focal Transformer against a slow reference, at all sizes, and option by option."""

import copy
import io
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmvitbackbones import FocalTransformer
from mmvitbackbones.backbones.focal_transformer import (
    ARCHS,
    FocalAttention,
    FocalBlock,
    SurroundingsBias,
    coarse_region,
    focal_validity,
    surroundings_index,
)
from mmvitbackbones.layers.position import relative_position_index

TINY = dict(dims=[8, 8, 16, 16], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1])
# Windows that leave partial ones at most sizes, and all the parts of the attention.
WINDOWS = dict(window_size=(4, 3, 2, 3), expand_sizes=(2, 1, 1, 0), focal_windows=(3, 2, 5, 1))
# Millions of the published classifiers' parameters.
PARAMETERS = dict(tiny=28.9, small=51.1, base=89.8)


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return module


def build(seed=0, dtype=torch.float64, arch=TINY, **options):
    """A tiny model in training mode, all of its parameters random, without stochastic depth."""
    torch.manual_seed(seed)
    model = FocalTransformer(arch, **{'drop_path_rate': 0.0, **WINDOWS, **options})
    return randomise(model.to(dtype))


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


@pytest.mark.parametrize('size', [(32, 32), (64, 96), (33, 45), (50, 97), (35, 32), (37, 130)])
@pytest.mark.parametrize('use_conv_embed', [False, True])
@pytest.mark.parametrize('window', [7, None])
def test_shapes(use_conv_embed, window, size):
    options = {} if window is None else dict(window_size=window)
    model = build(use_conv_embed=use_conv_embed, peg=True, **options).eval()
    with torch.no_grad():
        maps = model(image(*size, batch=2))
    assert len(maps) == 4
    for stage, found in enumerate(maps):
        stride = 4 * 2**stage
        expected = (2, TINY['dims'][stage], *(math.ceil(side / stride) for side in size))
        assert found.shape == expected
        assert found.is_contiguous()  # compiled operations read the memory as it lies
        assert found.isfinite().all()


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


def test_samples_do_not_depend_on_each_other():
    model, batch = build(peg=True).eval(), image(45, 70, batch=3)
    with torch.no_grad():
        together = model(batch)
        for i in range(3):
            for ours, alone in zip(together, model(batch[i : i + 1])):
                torch.testing.assert_close(ours[i : i + 1], alone, atol=1e-12, rtol=0)


def test_memory_layout_of_the_image_does_not_matter():
    model, x = build(use_conv_embed=True).eval(), image(45, 70, batch=2)
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


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns, also in the backward pass."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                numel = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.numel = max(self.numel, numel)
        return out


# Gradients.


def test_both_ways_through_the_call_agree(monkeypatch):
    """The whole model in blocks, as on a CPU, and through torch's own call, as elsewhere."""
    results = []
    for rate in (0.0, 1e-300):  # with a dropout, even of nothing, torch's own call is taken
        if rate:
            monkeypatch.setattr('mmvitbackbones.layers.attention._CPUAttention', None)
        model = build(peg=True, attn_drop_rate=rate)
        x = image(43, 59, batch=3).requires_grad_()
        maps = model(x)
        sum(m.square().mean() for m in maps).backward()
        results.append([*maps, x.grad, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize('rates', [{}, dict(drop_path_rate=0.5, drop_rate=0.2, attn_drop_rate=0.2)])
def test_with_cp_equals_without(rates):
    """Also where the blocks draw random numbers."""
    x, results, calls = image(33, 45, batch=2), [], []
    for with_cp in (False, True):
        model = build(with_cp=with_cp, peg=True, **rates)
        blocks = [block for stage in model.stages for block in stage.blocks]
        counts = [0]
        for block in blocks:
            block.register_forward_pre_hook(
                lambda *_, counts=counts: counts.__setitem__(0, counts[0] + 1)
            )
        torch.manual_seed(3)
        results.append(gradients(model, x))
        calls.append(counts[0] / len(blocks))
    assert calls == [1, 2]
    (maps, grads), (maps_cp, grads_cp) = results
    assert grads.keys() == grads_cp.keys() == dict(model.named_parameters()).keys()
    for a, b in [*zip(maps, maps_cp), *((grads[n], grads_cp[n]) for n in grads)]:
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('out_norm', ['inline', 'output', None])
@pytest.mark.parametrize('out_indices', [None, (1,), (0, 2)])
@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_every_trainable_parameter_gets_a_gradient(out_norm, out_indices, frozen_stages):
    """As data-parallel training needs."""
    model = build(peg=True, out_norm=out_norm, out_indices=out_indices, frozen_stages=frozen_stages)
    _, grads = gradients(model, image(33, 45))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert grads.keys() == trainable
    assert all(grad.isfinite().all() for grad in grads.values())


def test_training_after_inference_at_the_same_size():
    """What is cached by size in inference mode must serve training."""
    for cached in (focal_validity, surroundings_index, relative_position_index):
        cached.cache_clear()
    model, x = build(peg=True), image(43, 59)
    with torch.inference_mode():
        expected = model(x)
    maps, grads = gradients(model, x)
    for found, wanted in zip(maps, expected):
        torch.testing.assert_close(found, wanted.clone(), atol=1e-12, rtol=0)
    assert grads.keys() == dict(model.named_parameters()).keys()


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


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 4])
def test_frozen_stages(frozen_stages):
    model = build(frozen_stages=frozen_stages, drop_rate=0.1).train()
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
    default = build().eval()
    default.load_state_dict(output.state_dict())
    x = image(33, 45)

    def normed(i, tokens):
        norm = output.out_norms[i]
        return F.layer_norm(tokens, tokens.shape[-1:], norm.weight, norm.bias, eps=1e-5)

    with torch.no_grad():
        for i, (found, same, raw) in enumerate(zip(output(x), default(x), plain(x))):
            expected = normed(i, raw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            torch.testing.assert_close(found, expected)
            assert torch.equal(found, same)
        (tokens,) = plain.stem(x)
        for i, found in enumerate(inline(x)):
            tokens = normed(i, *plain.stages[i](tokens))
            torch.testing.assert_close(found, tokens.permute(0, 3, 1, 2))


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


def test_drop_path_rises_from_the_first_to_the_last_block():
    model = FocalTransformer(TINY)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


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
    (dict(arch='huge'), ["arch must be one of 'tiny'", "'large'", "'huge'"]),
    (dict(arch=None), ['arch', "'tiny'", 'dict', 'None']),
    (dict(arch=dict(dims=[8], heads=[1])), ['arch', 'depths, dims, heads']),
    (dict(arch=dict(TINY, window_size=7)), ['arch', 'depths, dims, heads']),
    (dict(arch=dict(TINY, depths=[1, 1])), ['arch', 'dims, heads, depths', 'as many stages']),
    (dict(arch=dict(TINY, depths=[1, 0, 1, 1])), ['arch', 'depths', 'positive integers']),
    (dict(arch=dict(TINY, heads=[3, 2, 4, 4])), ['arch', '3 heads', '8 channels']),
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
    (dict(peg='flase'), ['peg', 'True or False', 'flase']),
    (dict(with_cp=None), ['with_cp', 'True or False', 'None']),
    (dict(norm_eval=1), ['norm_eval', 'True or False', '1']),
    (dict(out_norm='both'), ['out_norm', "'inline', 'output', None", "'both'"]),
    (dict(out_indices=(0, 4)), ['out_indices', '0..3', '4']),
    (dict(out_indices=(2, 1)), ['out_indices', 'rising', '(2, 1)']),
    (dict(frozen_stages=5), ['frozen_stages', '-1..4', '5']),
    (dict(frozen_stages=True), ['frozen_stages', '-1..4', 'True']),
    (dict(drop_path_rate=1), ['drop_path_rate', 'at least 0', '1']),
    (dict(drop_rate=-0.1), ['drop_rate', 'at least 0', '-0.1']),
    (dict(attn_drop_rate='0.1'), ['attn_drop_rate', 'number', "'0.1'"]),
]


@pytest.mark.parametrize('options, words', BAD_OPTIONS, ids=lambda value: str(value)[:60])
def test_bad_options(options, words):
    with pytest.raises(ValueError) as error:
        FocalTransformer(**{'arch': TINY, **options})
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
        FocalTransformer(TINY)(torch.zeros(shape))
    for word in ['FocalTransformer', *words]:
        assert word in str(error.value)


# In OpenMMLab, and on disk.


@pytest.mark.parametrize('home', ['mmengine', 'mmdet', 'mmseg'])
def test_builds_from_a_config(home):
    registry = pytest.importorskip(f'{home}.registry')
    model = registry.MODELS.build(
        dict(type='FocalTransformer', arch=TINY, focal_windows=[2] * 4, out_indices=(1, 3))
    )
    assert isinstance(model, FocalTransformer)
    assert [m.shape[1] for m in model(torch.zeros(1, 3, 32, 40))] == [8, 16]


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(seed=7, peg=True)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize(
    'duplicate',
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), through_a_file],
    ids=['deepcopy', 'pickle', 'state dict'],
)
def test_copies_are_equal_and_on_their_own(duplicate):
    model, x = build(peg=True).eval(), image(33, 45)
    with torch.no_grad():
        expected = model(x)  # before copying, so that whatever a forward pass leaves is there
        other = duplicate(model).eval()
        for found, wanted in zip(other(x), expected):
            assert torch.equal(found, wanted)
        for parameter in other.parameters():
            parameter.zero_()
        for found, wanted in zip(model(x), expected):
            assert torch.equal(found, wanted)


def test_state_dict_holds_parameters_only():
    """No index, mask or other buffer, whatever images went through."""
    model = build(peg=True)
    model(image(33, 45))
    assert not list(model.buffers())
    assert set(model.state_dict()) == dict(model.named_parameters()).keys()
