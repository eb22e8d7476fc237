"""Published ViL weights, and our own, on their way into the backbone."""

import copy
import math
import re
from functools import lru_cache

import golden_cases
import pytest
import torch
from torch import nn

from mmvitbackbones import RMT, FocalTransformer, RegionViT, VisionLongformer
from mmvitbackbones.backbones.vision_longformer import ARCHS
from mmvitbackbones.checkpoints import load_published, vision_longformer
from mmvitbackbones.ops.tables import bias_from

TINY = dict(dims=[8, 16, 16, 32], heads=[1, 2, 2, 4], depths=[1, 3, 1, 2], patches=[4, 2, 2, 2])
COUNT = sum(TINY['depths'])
CLASSIFIER = ['head.bias', 'head.weight', 'norm.bias', 'norm.weight']
TOKENS, ALL = (1, 1, 1, 0), (1, 1, 1, 1)
TABLE = 'local_relative_position_bias_table'
BETWEEN, AMONG = 'g2l_relative_position_bias', 'g2g_relative_position_bias'
INDEX = 'relative_position_index'
EMBEDDING = 'layer2.0'
ATTN = 'layer2.1.attn'  # the first block's of the second stage, our stages.1.blocks.0.attn


def published_shapes(arch=TINY, attention='vil', position='rpb', tokens=TOKENS, window=7, img=64):
    """Names and shapes of the published tensors of an architecture, by the naming rules."""
    dims, shapes, side = arch['dims'], {}, img
    full = attention == 'full'

    def add(name, *weight):
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = weight, weight[:1]

    for i, (dim, heads, g) in enumerate(zip(dims, arch['heads'], tokens)):
        layer, patch = f'layer{i + 1}', arch['patches'][i]
        side = math.ceil(side / patch)
        if g:
            shapes[f'{layer}.0.cls_token'] = (1, g, dim)
        if position == 'ape':
            shapes[f'{layer}.0.cls_pos_embed'] = (1, g, dim)
            shapes[f'{layer}.0.x_pos_embed'] = (1, side, dim // 2)
            shapes[f'{layer}.0.y_pos_embed'] = (1, side, dim // 2)
        add(f'{layer}.0.proj', dim, dims[i - 1] if i else 3, patch, patch)
        add(f'{layer}.0.norm_embed', dim)
        for j in range(arch['depths'][i]):
            attn, mlp = f'{layer}.{2 * j + 1}', f'{layer}.{2 * j + 2}'
            add(f'{attn}.norm', dim)
            attn = f'{attn}.attn'
            if position == 'rpb':
                edge = 2 * side - 1 if full else 4 * window - 1
                shapes[f'{attn}.{TABLE}'] = (edge**2, heads)
                shapes[f'{attn}.{INDEX}'] = (
                    (side**2, side**2) if full else (window**2, 9 * window**2)
                )
                if g:
                    shapes[f'{attn}.{BETWEEN}'] = (2, heads, g)
                    shapes[f'{attn}.{AMONG}'] = (heads, g, g)
            if full:
                add(f'{attn}.qkv', 3 * dim, dim)
                add(f'{attn}.proj', dim, dim)
            else:
                for twin in ('', '_global') if g else ('',):
                    add(f'{attn}.query{twin}', dim, dim)
                    add(f'{attn}.kv{twin}', 2 * dim, dim)
                    add(f'{attn}.proj{twin}', dim, dim)
            add(f'{mlp}.norm', dim)
            add(f'{mlp}.mlp.fc1', 4 * dim, dim)
            add(f'{mlp}.mlp.fc2', dim, 4 * dim)
    add('norm', dims[-1])
    add('head', 1000, dims[-1])
    return shapes


def is_twin(name):
    return '_global.' in name


def published(seed=0, **options):
    """A published state dict with random values; index buffers, which nothing reads, are zeros."""
    torch.manual_seed(seed)
    state = {}
    for name, shape in published_shapes(**options).items():
        if name.endswith(INDEX):
            state[name] = torch.zeros(shape, dtype=torch.long)
        elif is_twin(name):
            state[name] = state[name.replace('_global.', '.')].clone()
        else:
            # Of weights so small that outputs in float64 can be compared to the last digits.
            state[name] = torch.randn(shape) * (0.2 if len(shape) > 1 else 1)
    return state


def build(seed=1, **options):
    torch.manual_seed(seed)
    return VisionLongformer(
        **{'arch': TINY, 'pretrain_img_size': 64, 'out_norm': None, 'drop_path_rate': 0, **options}
    )


def expected(state, arch=TINY):
    """Our state dict, made of the published one the slow way: name by name."""
    ours = {}

    def take(name, published_name):
        for leaf in ('weight', 'bias'):
            found = state.get(f'{published_name}.{leaf}')
            if found is not None:
                ours[f'{name}.{leaf}'] = found

    for i, depth in enumerate(arch['depths']):
        stage, layer = f'stages.{i}', f'layer{i + 1}'
        embedding = f'{stage}.downsample' if i else 'stem'
        take(f'{embedding}.conv', f'{layer}.0.proj')
        take(f'{embedding}.norm', f'{layer}.0.norm_embed')
        for name, published_name in (
            ('global_tokens', 'cls_token'),
            ('global_position', 'cls_pos_embed'),
            ('position.rows', 'x_pos_embed'),
            ('position.columns', 'y_pos_embed'),
        ):
            found = state.get(f'{layer}.0.{published_name}')
            if found is not None and found.numel():
                ours[f'{stage}.{name}'] = found[0]
        for j in range(depth):
            block, item = f'{stage}.blocks.{j}', 1 + 2 * j
            attn = f'{layer}.{item}.attn'
            take(f'{block}.norm1', f'{layer}.{item}.norm')
            take(f'{block}.attn.qkv', f'{attn}.qkv')
            take(f'{block}.attn.proj', f'{attn}.proj')
            for leaf in ('weight', 'bias'):
                if f'{attn}.query.{leaf}' in state:
                    parts = state[f'{attn}.query.{leaf}'], state[f'{attn}.kv.{leaf}']
                    ours[f'{block}.attn.qkv.{leaf}'] = torch.cat(parts)
            if f'{attn}.{TABLE}' in state:
                ours[f'{block}.attn.bias.table'] = state[f'{attn}.{TABLE}'].flip(0).t()
            if f'{attn}.{BETWEEN}' in state:
                of_queries, of_keys = state[f'{attn}.{BETWEEN}']
                ours[f'{block}.attn.global_bias.local_to_global'] = of_keys
                if j + 1 < depth:
                    ours[f'{block}.attn.global_bias.global_to_local'] = of_queries
                    among = state[f'{attn}.{AMONG}']
                    ours[f'{block}.attn.global_bias.global_to_global'] = among
            take(f'{block}.norm2', f'{layer}.{item + 1}.norm')
            take(f'{block}.ffn.fc1', f'{layer}.{item + 1}.mlp.fc1')
            take(f'{block}.ffn.fc2', f'{layer}.{item + 1}.mlp.fc2')
    return ours


def model_options(window=7, tokens=TOKENS, img=64, **options):
    """The model's, of the published file's."""
    return dict(window_size=window, num_global_tokens=tokens, pretrain_img_size=img, **options)


@lru_cache
def plain(**options):
    """The published state dict in the model that it was published for."""
    model = build(**model_options(**options))
    load_published(model, published(**options))
    return model.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def names_of(model, pattern):
    return [name for name in model.state_dict() if re.search(pattern, name)]


def randomised(model):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def outputs(model, size=(64, 64)):
    """In float64, for an image."""
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        return copy.deepcopy(model).double().eval()(image)


def assert_same_maps(found, wanted, tolerance=1e-10):
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * b.std().item())


# Every published tensor is accounted for.


def check_report(report, model, names):
    """All that the model has is loaded but for output norms, all that the file has is named."""
    norms = [name for name in model.state_dict() if name.startswith('out_norms.')]
    assert sorted(report.loaded + norms) == sorted(model.state_dict())
    assert report.new == norms
    assert report.kind == 'published ViL' and not report.resized
    assert sorted(report.tied) == sorted(filter(is_twin, names))
    empty = [name for name, shape in names.items() if 0 in shape]
    index = [name for name in names if name.endswith(INDEX)]
    unread = []
    for i, stage in enumerate(model.stages):
        attn = f'stages.{i}.blocks.{len(stage.blocks) - 1}.attn'
        if f'layer{i + 1}.{2 * len(stage.blocks) - 1}.attn.{BETWEEN}' in names:
            unread += [f'{attn}.global_bias.global_to_{key}' for key in ('local', 'global')]
    assert sorted(report.unused) == sorted([*CLASSIFIER, *empty, *index, *unread])
    # Query and kv become one, g2l becomes two.
    merged = sum('.attn.kv.' in name for name in names)
    split = sum(name.endswith(BETWEEN) for name in names)
    accounted = len(report.loaded) + len(report.unused) + len(report.tied)
    assert accounted == len(names) - merged + split


@pytest.mark.parametrize('name', golden_cases.names('vil'))
def test_naming_rules_are_those_of_the_published_files(name):
    case = golden_cases.GoldenCase(name)
    stages = [dict(re.findall(r'([a-z])(\d+)', s)) for s in case.info['variant'].split('_')]
    each = {letter: [int(stage[letter]) for stage in stages] for letter in stages[0]}
    rules = published_shapes(
        dict(dims=each['d'], heads=each['h'], depths=each['n'], patches=each['p']),
        attention='vil' if each['s'][0] else 'full',
        position='ape' if each['a'][0] else 'rpb',
        tokens=each['g'],
        window=each['f'][0],
        img=case.info.get('img_size', 224),
    )
    assert rules == {key: tuple(shape) for key, (shape, _) in case.keys.items()}


MILLIONS = dict(  # with absolute positions
    tiny=6.7, small=24.6, medium_deep=39.7, base_deep=55.7, medium_wide=39.8, base_wide=79.0
)
BIASED_MILLIONS = dict(small=24.66, medium_deep=39.79, base_deep=55.81, base_wide=79.05)


@pytest.mark.parametrize('attention', ['vil', 'full'])
@pytest.mark.parametrize('position', ['rpb', 'ape'])
@pytest.mark.parametrize('arch', ARCHS)
def test_every_tensor_of_every_size(arch, position, attention):
    tokens = TOKENS[-len(ARCHS[arch]['dims']) :]
    options = dict(attention=attention, position=position)
    names = published_shapes(ARCHS[arch], tokens=tokens, img=224, **options)
    state = {name: torch.zeros(()).expand(shape) for name, shape in names.items()}
    with torch.device('meta'):
        model = VisionLongformer(arch, **options)
    model.to_empty(device='cpu')
    check_report(load_published(model, state), model, names)
    millions = MILLIONS if position == 'ape' else BIASED_MILLIONS
    if arch in millions and attention == 'vil':
        numbers = sum(
            tensor.numel()
            for name, tensor in state.items()
            if not name.endswith(INDEX) and not is_twin(name)
        )
        assert abs(numbers / 1e6 - millions[arch]) < (0.06 if position == 'ape' else 0.006)


# What arrives where.

KINDS = {
    'vil rpb': dict(),
    'vil ape': dict(position='ape'),
    'full rpb': dict(attention='full'),
    'full ape': dict(attention='full', position='ape'),
}


@pytest.mark.parametrize(
    'more', [dict(), dict(tokens=(2, 3, 0, 1), window=4, img=72)], ids=['', 'others']
)
@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_values_arrive_bit_for_bit(kind, more):
    state = published(**kind, **more)
    model = build(**model_options(**kind, **more))
    report = load_published(model, state)
    check_report(report, model, {name: tuple(tensor.shape) for name, tensor in state.items()})
    assert same(model.state_dict(), expected(state))


def test_in_any_order():
    """As of files that other tools have sorted, keys before queries and twins before both."""
    state = published()
    for order in (sorted(state), sorted(state, reverse=True)):
        model = build()
        load_published(model, {name: state[name] for name in order})
        assert same(model.state_dict(), plain())


def published_bias(table, queries, keys, centre):
    """Bias of queries and keys at (y, x) places, from a published (side ** 2, heads) table."""
    side = 2 * centre + 1
    qy, qx = (coordinate[:, None] for coordinate in queries)
    ky, kx = keys
    return table.t()[:, (qy - ky + centre) * side + qx - kx + centre]


def places(height, width, start=0):
    """Rows and columns of the tokens of a map, in row-major order."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    return y.flatten() + start, x.flatten() + start


@pytest.mark.parametrize('window', [7, 2, 3])
def test_tables_give_the_published_biases(window):
    """Row qy - ky + 2w - 1, the chunk of the queries in the middle of its neighbours."""
    state, model = published(window=window), build(window_size=window)
    load_published(model, state)
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage.blocks):
            queries, keys = places(window, window), places(3 * window, 3 * window, -window)
            table = state[f'layer{i + 1}.{2 * j + 1}.attn.{TABLE}']
            wanted = published_bias(table, queries, keys, 2 * window - 1)
            assert torch.equal(block.attn.bias(), wanted)


def test_tables_of_full_attention_give_the_published_biases():
    state, model = published(attention='full'), build(attention='full')
    load_published(model, state)
    for i, side in enumerate((16, 8, 4, 2)):
        table = state[f'layer{i + 1}.1.attn.{TABLE}']
        offsets = model.stages[i].blocks[0].attn.bias((side, side))
        found = bias_from(offsets, slice(0, side**2))
        wanted = published_bias(table, places(side, side), places(side, side), side - 1)
        assert torch.equal(found, wanted)


WAYS = ['net', 'module', 'net and module', 'detector', 'file', 'init_cfg', 'list']


@pytest.mark.parametrize('way', WAYS)
def test_every_way_gives_the_same(way, tmp_path):
    state, path = published(), tmp_path / 'vil-tiny.pth'
    wrapped = {f'module.{name}': tensor for name, tensor in state.items()}
    model = build()
    if way == 'net':
        load_published(model, dict(net=state, epoch=300))
    elif way == 'module':
        load_published(model, wrapped)
    elif way == 'net and module':
        load_published(model, dict(net=wrapped))
    elif way == 'detector':
        detector = {f'backbone.{name}': tensor for name, tensor in state.items()}
        detector['neck.conv.weight'] = torch.ones(1)
        report = load_published(model, dict(state_dict=detector))
        assert 'neck.conv.weight' in report.unused and report.kind == 'published ViL'
    else:
        torch.save(dict(net=wrapped), path)
        if way == 'file':
            assert load_published(model, path).source == str(path)
        else:
            init_cfg = dict(type='Pretrained', checkpoint=str(path))
            model = build(init_cfg=[init_cfg] if way == 'list' else init_cfg)
            model.init_weights()
    assert same(model.state_dict(), plain())


@pytest.mark.parametrize(
    'change',
    [
        lambda index: torch.full_like(index, -1),
        lambda index: torch.ones(3, 5),
        lambda index: torch.full((2, 2, 2), float('nan')),
        None,
    ],
    ids=['values', 'shape', 'no integers', 'none at all'],
)
def test_index_buffers_are_ignored_whatever_they_hold(change):
    state = published()
    index = [name for name in state if name.endswith(INDEX)]
    assert len(index) == COUNT
    for name in index:
        tensor = state.pop(name)
        if change:
            state[name] = change(tensor)
    model = build()
    report = load_published(model, state)
    assert same(model.state_dict(), plain())
    assert set(index) & set(report.unused) == set(index if change else [])


@pytest.mark.parametrize('position', ['rpb', 'ape'])
def test_global_tokens_that_the_model_has_not(position, log):
    """A classifier's last ones, or all."""
    state = published(position=position, tokens=ALL)
    kept = {
        name: tensor
        for name, tensor in expected(state).items()
        if not re.search(r'^stages\.3\.(global_|.*\.global_bias)', name)
    }
    model = build(position=position)
    report = load_published(model, state)
    assert same(model.state_dict(), kept)
    gone = {name for name in report.unused if name.startswith('stages.3.')}
    assert 'stages.3.global_tokens' in gone
    assert ('stages.3.global_position' in gone) == (position == 'ape')
    bias = 'stages.3.blocks.{}.attn.global_bias.{}'
    names = [bias.format(j, n) for j in (0, 1) for n in ('local_to_global', 'global_to_local')]
    assert all((name in gone) == (position == 'rpb') for name in names)

    model = build(position=position, num_global_tokens=0)
    report = load_published(model, state)
    kept = {name: tensor for name, tensor in kept.items() if 'global' not in name}
    assert same(model.state_dict(), kept)
    assert not report.new and not report.resized and not log.warnings


def test_twins_of_global_tokens_are_not_needed():
    """As in a file from which they were left out."""
    model = build()
    state = {name: tensor for name, tensor in published().items() if not is_twin(name)}
    report = load_published(model, state)
    assert same(model.state_dict(), plain()) and not report.tied


def test_only_output_norms_and_peg_start_new(log):
    model = build(peg=True, out_norm='output', out_indices=(1, 3))
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, published())
    new = [name for name in before if name.startswith('out_norms.') or '.peg.' in name]
    assert len(new) == 4 + 4
    assert report.new == new and not log.warnings
    assert same(model.state_dict(), {**{name: before[name] for name in new}, **plain()})


# Full attention and local attention.


@lru_cache
def golden(name):
    case = golden_cases.GoldenCase(name)
    return case, case.weights()


def golden_options(name, case):
    """Of the tiny architecture of all the golden cases."""
    return dict(
        arch=ARCHS['tiny'],
        position='ape' if name in ('vil_tiny_ape', 'vil_tiny_full') else 'rpb',
        pretrain_img_size=case.info.get('img_size', 224),
    )


@pytest.mark.parametrize('name', ['vil_tiny_full', 'vil_tiny_full_rpb'])
def test_full_attention_of_two_windows_in_local_attention(name):
    """Where a map is two chunks high and wide all see all: the published outputs stay."""
    case, weights = golden(name)
    model = build(window_size=(8, 4, 2, 1), **golden_options(name, case))
    net = {f'module.{key}': tensor for key, tensor in weights.items()}
    report = load_published(model, dict(net=net))
    assert not report.resized and not report.new and not report.tied
    with torch.no_grad():
        case.check(model.double().eval()(case.image()), 1e-9)


@pytest.mark.parametrize('position', ['rpb', 'ape'])
@pytest.mark.parametrize('tokens', [TOKENS, (2, 1, 0, 1)])
def test_local_attention_of_two_windows_in_full_attention(tokens, position):
    options = dict(position=position, tokens=tokens)
    state = {}
    for i, window in enumerate((8, 4, 2, 1)):
        of_window = published(window=window, **options)
        state.update((n, t) for n, t in of_window.items() if n.startswith(f'layer{i + 1}.'))
    maps = []
    for attention in ('vil', 'full'):
        model = build(
            attention=attention,
            window_size=(8, 4, 2, 1),
            num_global_tokens=tokens,
            position=position,
        )
        report = load_published(model, state)
        assert not report.resized and not report.new
        maps.append(outputs(model))
    assert_same_maps(*maps)


def bilinear(table, size):
    """Resize (side ** 2, heads): centres of cells, borders repeated."""
    side = math.isqrt(len(table))
    weights = torch.zeros(size, side, dtype=torch.float64)
    for row in range(size):
        place = min(max((row + 0.5) * side / size - 0.5, 0), side - 1)
        low = int(place)
        weights[row, low] += 1 - (place - low)
        if place > low:
            weights[row, low + 1] += place - low
    grid = table.double().t().unflatten(1, (side, side))
    return (weights @ grid @ weights.T).flatten(1).t()


RESIZED = {  # of the file, of the model, sides of the model's tables
    'full to vil': (dict(attention='full'), dict(attention='vil'), (27, 27, 27, 27)),
    'full to others': (dict(attention='full'), dict(window_size=(3, 4, 7, 1)), (11, 15, 27, 3)),
    'vil to full': (dict(), dict(attention='full'), (31, 15, 7, 3)),
    'vil to larger': (
        dict(window=4),
        dict(attention='full', pretrain_img_size=132),
        (65, 33, 17, 9),
    ),
    'some': (dict(), dict(attention=('vil', 'vil', 'full', 'full')), (27, 27, 7, 3)),
    'windows of 14': (dict(), dict(window_size=14), (55, 55, 55, 55)),
    'windows of 3': (dict(), dict(window_size=3), (11, 11, 11, 11)),
    'windows of 1': (dict(), dict(window_size=1), (3, 3, 3, 3)),
    'windows by stage': (dict(), dict(window_size=(14, 8, 7, 4)), (55, 31, 27, 15)),
    'full, larger': (
        dict(attention='full'),
        dict(attention='full', pretrain_img_size=96),
        (47, 23, 11, 5),
    ),
}


@pytest.mark.parametrize('ours', [False, True], ids=['published', 'our own'])
@pytest.mark.parametrize('file, options, sides', RESIZED.values(), ids=RESIZED)
def test_tables_are_resized_bilinearly(file, options, sides, ours, log):
    """In the published layout; all the other tensors arrive as they are."""
    state = published(**file)
    wanted, resized = expected(state), []
    for i, side in enumerate(sides):
        for j in range(TINY['depths'][i]):
            table = state[f'layer{i + 1}.{2 * j + 1}.attn.{TABLE}']
            if len(table) != side**2:
                name = f'stages.{i}.blocks.{j}.attn.bias.table'
                resized.append(name)
                wanted[name] = bilinear(table, side).flip(0).t()
    model = build(**options)
    report = load_published(model, plain(**file) if ours else state)
    found = model.state_dict()
    assert sorted(report.resized) == sorted(resized) and resized
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        if name in resized:
            torch.testing.assert_close(tensor.double(), wanted[name], rtol=0, atol=5e-6)
        else:
            assert torch.equal(tensor, wanted[name]), name
    assert not report.new and not log.warnings
    assert all(m.isfinite().all() for m in outputs(model, (61, 90)))


def test_a_table_that_fits_again_is_not_resized():
    """Back in the model that the file is of."""
    saved = randomised(build(window_size=3))
    larger, back = build(window_size=14), build(window_size=3)
    assert load_published(larger, saved.state_dict()).resized
    report = load_published(back, larger.state_dict())
    assert len(report.resized) == COUNT
    report = load_published(back, saved.state_dict())
    assert not report.resized and same(back.state_dict(), saved.state_dict())


# Absolute positions.


@pytest.mark.parametrize('img', [224, 448, 100, 32, 60])
def test_absolute_positions_of_other_image_sizes(img, log):
    """Interpolated between the centres of the file's places, borders repeated."""
    state = published(position='ape')
    model = build(position='ape', pretrain_img_size=img)
    report = load_published(model, state)
    wanted, found, side = expected(state), model.state_dict(), img
    assert found.keys() == wanted.keys()
    for i, before in enumerate((16, 8, 4, 2)):
        side = math.ceil(side / TINY['patches'][i])
        for name in (f'stages.{i}.position.rows', f'stages.{i}.position.columns'):
            table = wanted.pop(name)
            assert found[name].shape == (side, len(table[0]))
            assert (name in report.resized) == (side != before)
            for place, value in enumerate(found[name]):
                at = min(max((place + 0.5) * before / side - 0.5, 0), before - 1)
                low, share = int(at), at - int(at)
                between = table[low] * (1 - share) + table[min(low + 1, before - 1)] * share
                torch.testing.assert_close(value, between, rtol=0, atol=1e-6)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert not report.new and not log.warnings


# Other numbers of global tokens.


@pytest.fixture
def exact_copies(monkeypatch):
    monkeypatch.setattr(vision_longformer, '_NOISE', 0.0)


@pytest.mark.parametrize('tokens', [(4, 3, 2, 0), (5, 2, 7, 0)])
def test_copies_of_global_tokens_change_no_output(tokens, exact_copies):
    """The published outputs of a file with 2, 1, 1 and none."""
    case, weights = golden('vil_tiny_window5')
    options = golden_options('vil_tiny_window5', case)
    model = build(window_size=5, num_global_tokens=tokens, **options)
    report = load_published(model, weights)
    assert report.resized and not report.new
    with torch.no_grad():
        case.check(model.double().eval()(case.image()), 1e-6)


@pytest.mark.parametrize('attention', ['vil', 'full'])
@pytest.mark.parametrize('tokens', [(4, 3, 3, 5), (5, 6, 3, 2), (2, 7, 3, 2)])
def test_copies_of_our_own_global_tokens_change_no_output(tokens, attention, exact_copies):
    """In float64 to the last digits: as often one each, as not."""
    few = (2, 3, 1, 2)
    saved = randomised(build(num_global_tokens=few, attention=attention)).double()
    model = build(num_global_tokens=tokens, attention=attention).double()
    report = load_published(model, saved.state_dict())
    more = {i for i in range(4) if tokens[i] > few[i]}
    assert {int(name.split('.')[1]) for name in report.resized} == more
    assert_same_maps(outputs(model, (61, 90)), outputs(saved, (61, 90)), 1e-12)


@pytest.mark.parametrize('position', ['rpb', 'ape'])
@pytest.mark.parametrize('file, tokens', [(1, 2), (1, 3), (2, 3), (2, 5), (3, 4)])
def test_more_global_tokens(file, tokens, position, log):
    """Copies in turn, moved a little; as keys each counts as a share of one."""
    state = published(position=position, tokens=[file] * 4)
    model = build(position=position, num_global_tokens=tokens)
    report = load_published(model, state)
    first = copy.deepcopy(model.state_dict())
    load_published(model, state)
    assert same(model.state_dict(), first)  # what was there before plays no part
    wanted = {}
    copied = [token % file for token in range(tokens)]
    log_count = torch.tensor([math.log(copied.count(token)) for token in copied])
    for name, tensor in expected(state).items():
        leaf = name.rpartition('.')[2]
        if leaf == 'global_tokens':
            tensor = torch.stack([tensor[token] for token in copied])
            moved = model.state_dict()[name][file:] - tensor[file:]
            assert 0.005 < moved.std() < 0.04
            tensor[file:] += moved
        elif leaf == 'global_position':
            tensor = torch.stack([tensor[token] for token in copied])
        elif leaf == 'global_to_local':
            tensor = torch.stack([tensor[:, token] for token in copied], 1)
        elif leaf == 'local_to_global':
            tensor = torch.stack([tensor[:, token] for token in copied], 1) - log_count
        elif leaf == 'global_to_global':
            rows = torch.stack([tensor[:, token] for token in copied], 1)
            tensor = torch.stack([rows[:, :, token] for token in copied], 2) - log_count
        wanted[name] = tensor
    found = model.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert (name in report.resized) == ('global' in name)
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)
    for stage in model.stages:
        assert len(stage.global_tokens.unique(dim=0)) == tokens
    assert not report.new and not log.warnings


@pytest.mark.parametrize('position', ['rpb', 'ape'])
def test_global_tokens_where_the_file_has_none(position, log):
    model = build(position=position, num_global_tokens=(1, 1, 1, 2))
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, published(position=position))
    new = [name for name in before if name.startswith('stages.3.') and 'global' in name]
    assert len(new) == (1 + 4 if position == 'rpb' else 2)
    assert report.new == new and not report.resized
    assert same(
        model.state_dict(),
        {**{name: before[name] for name in new}, **plain(position=position)},
    )
    assert len(log.warnings) == 1 and 'start new' in log.warnings[0]
    assert 'stages.3.global_tokens' in log.warnings[0] and 'not in the file' in log.warnings[0]
    assert '\n' not in log.warnings[0]


@pytest.mark.parametrize(
    'position, leaf',
    [
        *(('rpb', leaf) for leaf in ('cls_token', 'g2l_', 'g2g_')),
        *(('ape', leaf) for leaf in ('cls_token', 'cls_pos_embed')),
    ],
)
def test_a_single_missing_global_tensor_is_an_error(leaf, position):
    state = published(position=position)
    name = next(name for name in state if name.startswith('layer2.') and f'.{leaf}' in name)
    del state[name]
    model = build(position=position)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match='missing'):
        load_published(model, state)
    assert same(model.state_dict(), before)


# Our own.


@pytest.mark.parametrize('wrap', ['plain', 'backbone', 'ddp', 'file'])
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(peg=True, out_norm='output', window_size=(4, 3, 2, 5), num_global_tokens=(2, 1, 0, 3)),
        dict(position='ape', attention=('vil', 'full', 'full', 'vil'), out_norm='inline'),
    ],
    ids=['defaults', 'others', 'ape'],
)
def test_our_own_reload_exactly(options, wrap, tmp_path):
    saved = randomised(build(**options))
    state = saved.state_dict()
    if wrap == 'backbone':
        state = {f'backbone.{name}': tensor for name, tensor in state.items()}
        state = dict(state_dict={**state, 'neck.weight': torch.ones(2)}, optimizer={})
    elif wrap == 'ddp':
        state = {f'module.{name}': tensor for name, tensor in state.items()}
    elif wrap == 'file':
        torch.save(dict(state_dict=state), tmp_path / 'ours.pth')
        state = tmp_path / 'ours.pth'
    model = build(**options)
    report = load_published(model, state)
    assert same(model.state_dict(), saved.state_dict())
    assert report.kind == 'mmvitbackbones'
    assert report.unused == (['neck.weight'] if wrap == 'backbone' else [])
    assert not report.new and not report.resized


def test_no_tensor_depends_on_the_shift_mode():
    for mode in (-1, 1):
        model = build(shift_mode=mode)
        load_published(model, published())
        assert same(model.state_dict(), plain()) and model.shift_mode == mode


def test_the_log_is_short(log):
    """Of hundreds of tensors, those whose names differ in numbers are one entry."""
    with torch.device('meta'):
        model = VisionLongformer('base_deep', window_size=14)
        names = published_shapes(ARCHS['base_deep'], tokens=ALL, img=224)
        state = {name: torch.empty(shape) for name, shape in names.items() if not is_twin(name)}
    report = load_published(model, state)
    text = log.messages[0]
    assert text == str(report) and len(log.messages) == 1
    assert len(text) < 1100 and len(text.splitlines()) == 4
    assert '(3, 729) -> (3, 3025)' in text and INDEX in text and 'bias.table' in text


# What is wrong.


def check_refusal(model, state, words):
    """A ValueError with these words; the model is left as it was."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError) as error:
        load_published(model, state)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert same(model.state_dict(), before)


def drop(*names, **options):
    return {name: t for name, t in published(**options).items() if name not in names}


def change(name, *shape, **options):
    return {**published(**options), name: torch.ones(shape)}


def wrong_weights():
    query, kv, qkv = (f'{ATTN}.{name}.weight' for name in ('query', 'kv', 'qkv'))
    query_twin, kv_twin = (f'{ATTN}.{name}_global.weight' for name in ('query', 'kv'))
    depths, channels = 'depths 1, 3, 1, 2', 'channels 8, 16, 16, 32'
    three = dict(dims=[16, 16, 32], heads=[1, 2, 4], depths=[3, 1, 2], patches=[8, 2, 2])
    ours, no_file = build().state_dict(), ['neither published ViL', 'nor our own']
    block = 'stages.1.blocks.0'
    twins = {name: tensor for name, tensor in published().items() if not is_twin(name)}
    return [
        ('missing', drop(f'{ATTN}.proj.bias', f'{ATTN}.proj_global.bias'), ['1 missing', block]),
        ('no table', drop(f'{ATTN}.{TABLE}'), ['1 missing', f'{block}.attn.bias.table']),
        ('no mlp', drop('layer2.2.mlp.fc1.bias'), ['1 missing', f'{block}.ffn.fc1.bias']),
        ('no embedding', drop('layer3.0.proj.bias'), ['1 missing', 'stages.2.downsample.conv']),
        ('unexpected', change('extra.weight', 2), ['1 unexpected', 'extra.weight']),
        ('in a block', change(f'{ATTN}.gate', 2), ['1 unexpected', f'{block}.attn.gate']),
        ('no queries', drop(query, query_twin), [f'there is {kv}']),
        ('no keys', drop(kv, kv_twin), [f'there is {query}, but no {kv}']),
        ('neither', drop(query, kv, query_twin, kv_twin), ['1 missing', f'{block}.attn.qkv.weig']),
        ('twin alone', drop(f'{ATTN}.proj.bias'), [f'{ATTN}.proj_global.bias', 'tied']),
        ('keys', {**twins, kv: torch.ones(31, 16)}, [query, kv]),
        ('queries', {**twins, query: torch.ones(15, 16)}, [query, kv]),
        ('numbers', {**twins, query: torch.ones(()), kv: torch.ones(())}, [query]),
        ('no channels', {**twins, query: torch.ones(16), kv: torch.ones(32)}, ['.qkv.weight']),
        (
            'depth',
            published(arch=dict(TINY, depths=[1, 3, 2, 2])),
            ['depths 1, 3, 2, 2', depths, channels, 'Set arch'],
        ),
        (
            'width',
            published(arch=dict(TINY, dims=[8, 16, 32, 32])),
            ['channels 8, 16, 32, 32', channels, depths, 'Set arch'],
        ),
        (
            'three stages',
            published(arch=three, tokens=(1, 1, 0)),
            ['depths 3, 1, 2', depths, 'Set arch'],
        ),
        (
            'heads',
            published(arch=dict(TINY, heads=[2, 2, 2, 4])),
            ['stages.0.blocks.0.attn.bias.table', '(2, 729)', '(1, 729)'],
        ),
        (
            'patches',
            published(arch=dict(TINY, patches=[8, 2, 2, 2])),
            ['stem.conv.weight', '(8, 3, 8, 8)', '(8, 3, 4, 4)'],
        ),
        ('classifier', {name: torch.ones(1) for name in CLASSIFIER}, [*no_file, '4 tensors']),
        ('empty', {}, ['no tensor at all']),
        ('our peg', build(peg=True).state_dict(), ['4 unexpected', 'set peg=True']),
        ('our norms', build(out_norm='output').state_dict(), ['8 unexpected', 'set out_norm']),
        (
            'our table',
            {**ours, f'{block}.attn.bias.table': torch.ones(2, 168)},
            [f'{block}.attn.bias.table', '(2, 168)', '(2, 729)'],
        ),
        (
            'our projection',
            {**ours, f'{block}.attn.qkv.bias': torch.ones(16)},
            [f'{block}.attn.qkv.bias', '(16,)', '(48,)'],
        ),
        ('full projection', change(qkv, 32, 16, attention='full'), ['.qkv.weight', '(32, 16)']),
    ]


@pytest.mark.parametrize(
    'state, words', [pytest.param(*case, id=name) for name, *case in wrong_weights()]
)
def test_wrong_weights_change_nothing(state, words):
    check_refusal(build(), state, words)


@pytest.mark.parametrize('leaf', ['weight', 'bias'])
@pytest.mark.parametrize('part', ['query', 'kv', 'proj'])
def test_a_twin_that_differs(part, leaf):
    name, twin = f'{ATTN}.{part}.{leaf}', f'{ATTN}.{part}_global.{leaf}'
    state = published()
    state[twin].view(-1)[-1] += 1e-6
    check_refusal(build(), state, [twin, f'equal to {name}', 'tied'])
    check_refusal(build(), {**state, twin: state[name][:-1]}, [twin, name])


# Of which the model's would be (729, 2) for a table, (2, 2, 1) and (2, 1, 1) for the others.
MALFORMED = {
    f'{ATTN}.{TABLE}': [(168, 2), (144, 2), (729,), (729, 3), (1, 729, 2), (), (0, 2)],
    f'{ATTN}.{BETWEEN}': [(2, 2), (1, 2, 1), (2, 3, 1), (2, 2, 0), (2, 2, 1, 1), (2,), ()],
    f'{ATTN}.{AMONG}': [(2, 1), (2,), (), (3, 1, 1), (2, 0, 0), (2, 1, 2), (2, 2, 1)],
    f'{EMBEDDING}.cls_token': [(1, 16), (2, 1, 16), (1, 1, 15), (1, 0, 16), (16,), ()],
    f'{EMBEDDING}.x_pos_embed': [(8, 8), (2, 8, 8), (1, 8, 7), (1, 0, 8), (8,), ()],
    f'{EMBEDDING}.cls_pos_embed': [(1, 16), (2, 1, 16), (1, 1, 15), (16,), ()],
}
OURS = {TABLE: 'bias.table', 'cls_token': 'global_tokens', 'x_pos_embed': 'position.rows'}
OURS |= {BETWEEN: 'global_bias.', AMONG: 'global_to_global', 'cls_pos_embed': 'global_position'}


@pytest.mark.parametrize('tokens', [1, 2])
@pytest.mark.parametrize(
    'name, shape',
    [
        pytest.param(name, shape, id=f'{name} {shape}')
        for name, shapes in MALFORMED.items()
        for shape in shapes
    ],
)
def test_malformed_tables_and_tokens(name, shape, tokens, tmp_path):
    """Named, also where the model has more global tokens than the file."""
    position, path = 'ape' if 'pos_embed' in name else 'rpb', tmp_path / 'cut.pth'
    torch.save(dict(net=change(name, *shape, position=position)), path)
    model = build(position=position, num_global_tokens=(1, tokens, 1, 0))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match='cut.pth') as error:
        load_published(model, path)
    assert name in str(error.value) or OURS[name.rpartition('.')[2]] in str(error.value)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize('shape', [(), (2,), (3, 1, 1), (2, 0), (2, 1, 1, 1)])
@pytest.mark.parametrize('leaf', ['local_to_global', 'global_to_local', 'global_to_global'])
def test_malformed_biases_of_our_own(leaf, shape):
    name = f'stages.1.blocks.0.attn.global_bias.{leaf}'
    state = {**build().state_dict(), name: torch.ones(shape)}
    for tokens in (1, 2):
        check_refusal(build(num_global_tokens=(1, tokens, 1, 0)), state, ['a state dict', name])


@pytest.mark.parametrize('ours', [False, True], ids=['published', 'our own'])
@pytest.mark.parametrize('position, other', [('rpb', 'ape'), ('ape', 'rpb')])
def test_positions_of_the_other_kind(position, other, ours):
    state = plain(position=position) if ours else published(position=position)
    words = ['missing', 'unexpected', '.attn.bias.table', '.position.rows']
    check_refusal(build(position=other), state, [*words, f"set position='{position}'"])


@pytest.mark.parametrize('ours', [False, True], ids=['published', 'our own'])
@pytest.mark.parametrize('position', ['rpb', 'ape'])
def test_fewer_global_tokens(position, ours):
    options = dict(position=position, tokens=(1, 3, 1, 0))
    state = plain(**options) if ours else published(**options)
    words = ['stages.1.', 'has 3 global tokens', 'the model 2', 'num_global_tokens']
    for attention in ('vil', 'full'):
        model = build(position=position, attention=attention, num_global_tokens=(1, 2, 1, 0))
        check_refusal(model, state, words)


OTHERS = {
    'RegionViT': (RegionViT, dict(stem='1-conv', window_size=7)),
    'Focal Transformer': (FocalTransformer, {}),
    'RMT': (RMT, dict(mlp_ratios=[2, 2, 2, 2], decay_range=[(2, 4)] * 4)),
}


@pytest.mark.parametrize(
    'case, family',
    [
        ('regionvit_tiny_cls', 'RegionViT'),
        ('focal_tiny_cls', 'Focal Transformer'),
        ('rmt_tiny_cls', 'RMT'),
    ],
)
def test_weights_of_another_family(case, family):
    keys = golden_cases.GoldenCase(case).keys
    state = {name: torch.zeros(()).expand(shape) for name, (shape, _) in keys.items()}
    check_refusal(build(), state, [f'a state dict holds {family} weights, the model is ViL'])


@pytest.mark.parametrize('family', OTHERS)
def test_in_a_model_of_another_family(family):
    kind, more = OTHERS[family]
    arch = dict(dims=TINY['dims'], heads=TINY['heads'], depths=TINY['depths'], **more)
    for state in (published(), published(attention='full', position='ape')):
        check_refusal(kind(arch), state, [f'holds ViL weights, the model is {family}'])
    check_refusal(kind(arch), plain(), ['a state dict'])
    check_refusal(build(), kind(arch).state_dict(), ['a state dict'])
