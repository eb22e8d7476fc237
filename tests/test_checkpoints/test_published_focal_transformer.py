"""Published Focal Transformer weights, and our own, on their way into the backbone."""

import copy
import re
from functools import lru_cache

import golden_cases
import pytest
import torch
import torch.nn.functional as F

from mmvitbackbones import FocalTransformer, RegionViT
from mmvitbackbones.backbones.focal_transformer import ARCHS
from mmvitbackbones.checkpoints import load_published
from mmvitbackbones.checkpoints.focal_transformer import resize_pooling

TINY = dict(dims=[8, 16, 16, 32], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1])
REGIONVIT = dict(TINY, stem='1-conv', window_size=7)
CLASSIFIER = ['head.bias', 'head.weight', 'norm.bias', 'norm.weight']
EXPANDS, FOCALS, WIDE = (3, 3, 3, 0), (7, 5, 3, 1), (15, 13, 9, 7)
OWN = 'relative_position_bias_table'
SURROUNDINGS = 'relative_position_bias_table_to_neighbors'
COARSE = 'relative_position_bias_table_to_windows.0'
INDEX = ('relative_position_index', 'valid_ind_rolled', 'relative_position_index_0')


def published_shapes(arch, window=7, expands=EXPANDS, focals=FOCALS, use_conv_embed=False):
    """Names and shapes of the published tensors of an architecture, by the naming rules."""
    dims, shapes = arch['dims'], {}

    def add(name, weight, bias):
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = weight, bias

    def embedding(name, before, dim, kernel):
        add(f'{name}.proj', (dim, before, kernel, kernel), (dim,))
        add(f'{name}.norm', (dim,), (dim,))

    embedding('patch_embed', 3, dims[0], 7 if use_conv_embed else 4)
    for i, (dim, heads, depth) in enumerate(zip(dims, arch['heads'], arch['depths'])):
        expand, focal = expands[i], focals[i]
        for j in range(depth):
            block = f'layers.{i}.blocks.{j}'
            attn = f'{block}.attn'
            add(f'{block}.pool_layers.0', (1, window**2), (1,))
            add(f'{block}.norm1', (dim,), (dim,))
            shapes[f'{attn}.{OWN}'] = ((2 * window - 1) ** 2, heads)
            shapes[f'{attn}.{INDEX[0]}'] = (window**2, window**2)
            if expand:
                ring = 4 * (window**2 - (window - expand) ** 2)
                shapes[f'{attn}.{SURROUNDINGS}'] = (1, heads, window**2, ring)
                shapes[f'{attn}.{INDEX[1]}'] = (ring,)
            shapes[f'{attn}.{INDEX[2]}'] = (window**2, focal**2)
            shapes[f'{attn}.{COARSE}'] = (heads, (window + focal - 1) ** 2)
            add(f'{attn}.qkv', (3 * dim, dim), (3 * dim,))
            add(f'{attn}.proj', (dim, dim), (dim,))
            add(f'{block}.norm2', (dim,), (dim,))
            add(f'{block}.mlp.fc1', (4 * dim, dim), (4 * dim,))
            add(f'{block}.mlp.fc2', (dim, 4 * dim), (dim,))
        if i + 1 < len(dims):
            embedding(f'layers.{i}.downsample', dim, dims[i + 1], 3 if use_conv_embed else 2)
    add('norm', dims[-1:], dims[-1:])
    add('head', (1000, dims[-1]), (1000,))
    return {name: tuple(shape) for name, shape in shapes.items()}


def is_index(name):
    return name.endswith(INDEX)


def published(arch=TINY, seed=0, **options):
    """A published state dict with random values; index buffers, which nothing reads, are zeros."""
    torch.manual_seed(seed)
    return {
        name: torch.zeros(shape, dtype=torch.long) if is_index(name) else torch.randn(shape)
        for name, shape in published_shapes(arch, **options).items()
    }


@lru_cache
def plain():
    """The published state dict in the model that it was published for."""
    model = FocalTransformer(TINY, out_norm=None)
    load_published(model, published())
    return model.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def blocks(model):
    """Each block with its published name."""
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage.blocks):
            yield f'layers.{i}.blocks.{j}', block


def names_of(model, ending):
    return [name for name in model.state_dict() if name.endswith(ending)]


# Every published tensor is accounted for.


def check_report(report, model, names):
    """All that the model has is loaded but for output norms, all that the file has is named."""
    norms = [name for name in model.state_dict() if name.startswith('out_norms.')]
    assert sorted(report.loaded + norms) == sorted(model.state_dict())
    assert report.new == norms
    assert sorted(report.unused) == sorted([*CLASSIFIER, *filter(is_index, names)])
    assert len(report.loaded) + len(report.unused) == len(names)
    assert report.kind == 'published Focal Transformer'
    assert not report.resized and not report.tied


@pytest.mark.parametrize('out_norm', [None, 'output'])
@pytest.mark.parametrize('name', golden_cases.names('focal'))
def test_every_tensor_of_the_published_files(name, out_norm):
    case = golden_cases.GoldenCase(name)
    options = case.info.get('kwargs', {})
    with torch.device('meta'):
        model = FocalTransformer(case.info['variant'], out_norm=out_norm, **options)
        state = {key: torch.empty(shape) for key, (shape, _) in case.keys.items()}
    check_report(load_published(model, state), model, state)


@pytest.mark.parametrize('name', golden_cases.names('focal'))
def test_naming_rules_are_those_of_the_published_files(name):
    case = golden_cases.GoldenCase(name)
    options = dict(case.info.get('kwargs', {}))
    rules = published_shapes(
        ARCHS[case.info['variant']], focals=options.pop('focal_windows', FOCALS), **options
    )
    assert rules == {key: tuple(shape) for key, (shape, _) in case.keys.items()}


@pytest.mark.parametrize('arch', ARCHS)
def test_every_tensor_of_every_size(arch):
    names = published_shapes(ARCHS[arch])
    with torch.device('meta'):
        model = FocalTransformer(arch)
        state = {name: torch.empty(shape) for name, shape in names.items()}
    check_report(load_published(model, state), model, names)
    published_millions = dict(tiny=28.9, small=51.1, base=89.8)
    if arch in published_millions:
        count = sum(tensor.numel() for name, tensor in state.items() if not is_index(name))
        assert abs(count / 1e6 - published_millions[arch]) < 0.05


@pytest.mark.parametrize(
    'change',
    [
        lambda index: torch.full_like(index, -1),
        lambda index: torch.ones(3, 5),
        lambda index: torch.tensor(7),
        lambda index: torch.full((2, 2, 2), float('nan')),
        None,
    ],
    ids=['values', 'shape', 'number', 'no integers', 'none at all'],
)
def test_index_buffers_are_ignored_whatever_they_hold(change):
    state = published()
    index = [name for name in state if is_index(name)]
    assert len(index) == 5 + 4 + 5
    for name in index:
        tensor = state.pop(name)
        if change:
            state[name] = change(tensor)
    model = FocalTransformer(TINY, out_norm=None)
    report = load_published(model, state)
    assert same(model.state_dict(), plain())
    assert sorted(report.unused) == sorted([*CLASSIFIER, *(index if change else [])])


@pytest.mark.parametrize(
    'name',
    ['attn.attn_mask', 'attn_mask', 'attn.relative_position_index_1', 'attn.valid_ind_rolled_0'],
)
def test_other_index_buffers(name):
    """Of the published code's other options, such as shifted windows."""
    model = FocalTransformer(TINY, out_norm=None)
    name = f'layers.1.blocks.1.{name}'
    report = load_published(model, {**published(), name: torch.zeros(4, 49, 49)})
    assert same(model.state_dict(), plain())
    assert name in report.unused


# The published function.


@pytest.mark.parametrize('expand', [0, 2])
@pytest.mark.parametrize('window, focals', [(7, FOCALS), (4, (4, 1, 6, 3)), (5, (7, 5, 3, 1))])
def test_tables_give_the_published_biases(window, focals, expand):
    """Row qy - ky + M - 1 of the window's own table, qy - ky + s_r - 1 of the coarse one."""
    options = dict(window=window, focals=focals, expands=[expand] * 4)
    state = published(**options)
    model = FocalTransformer(
        TINY, window_size=window, focal_windows=focals, expand_sizes=expand, out_norm=None
    )
    report = load_published(model, state)
    assert not report.resized and not report.new
    for name, block in blocks(model):
        attn, table = block.attn, state[f'{name}.attn.{OWN}'].t()
        expected = published_bias(table, window, window)
        assert torch.equal(attn.bias(), expected)
        expected = published_bias(state[f'{name}.attn.{COARSE}'], window, attn.focal_window)
        assert torch.equal(attn.coarse_bias(), expected)
        if expand:
            assert torch.equal(attn.surroundings.table, state[f'{name}.attn.{SURROUNDINGS}'][0])
        # The tokens of a window in row-major order.
        found = attn.pool.weight.flatten()
        assert torch.equal(found, state[f'{name}.pool_layers.0.weight'][0])


def published_bias(table, window, keys):
    """Bias of (heads, queries, keys) from a published table, (heads, (window + keys - 1) ** 2)."""
    qy, qx = (c.reshape(-1, 1) for c in torch.meshgrid(*[torch.arange(window)] * 2, indexing='ij'))
    ky, kx = (c.reshape(1, -1) for c in torch.meshgrid(*[torch.arange(keys)] * 2, indexing='ij'))
    return table[:, (qy - ky + keys - 1) * (window + keys - 1) + qx - kx + keys - 1]


def test_values_arrive_bit_for_bit():
    state, ours = published(), plain()
    for name, published_name in {
        'stem.conv.weight': 'patch_embed.proj.weight',
        'stem.norm.bias': 'patch_embed.norm.bias',
        'stages.1.downsample.conv.weight': 'layers.0.downsample.proj.weight',
        'stages.3.downsample.norm.weight': 'layers.2.downsample.norm.weight',
        'stages.1.blocks.1.norm2.weight': 'layers.1.blocks.1.norm2.weight',
        'stages.3.blocks.0.attn.qkv.bias': 'layers.3.blocks.0.attn.qkv.bias',
        'stages.2.blocks.0.attn.proj.weight': 'layers.2.blocks.0.attn.proj.weight',
        'stages.0.blocks.0.ffn.fc1.weight': 'layers.0.blocks.0.mlp.fc1.weight',
        'stages.1.blocks.0.attn.pool.bias': 'layers.1.blocks.0.pool_layers.0.bias',
    }.items():
        assert torch.equal(ours[name], state[published_name]), name


@pytest.mark.parametrize('way', ['model', 'ddp', 'file', 'init_cfg', 'list'])
def test_every_way_gives_the_same(way, tmp_path):
    state, path = published(), tmp_path / 'focal-tiny.pth'
    model = FocalTransformer(TINY, out_norm=None)
    if way == 'model':
        load_published(model, dict(model=state, epoch=300))
    elif way == 'ddp':
        load_published(model, {f'module.{name}': tensor for name, tensor in state.items()})
    else:
        torch.save(dict(model=state), path)
        if way == 'file':
            assert load_published(model, path).source == str(path)
        else:
            init_cfg = dict(type='Pretrained', checkpoint=str(path))
            init_cfg = [init_cfg] if way == 'list' else init_cfg
            model = FocalTransformer(TINY, out_norm=None, init_cfg=init_cfg)
            model.init_weights()
    assert same(model.state_dict(), plain())


def test_overlapping_embeddings():
    state = published(use_conv_embed=True)
    model = FocalTransformer(TINY, use_conv_embed=True, out_norm=None)
    report = load_published(model, state)
    assert not report.new and not report.resized
    weight = state['layers.1.downsample.proj.weight']
    assert torch.equal(model.stages[2].downsample.conv.weight, weight)


# Our own.


@pytest.mark.parametrize('wrap', ['plain', 'detector', 'file'])
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(peg=True, window_size=4, expand_sizes=2, focal_windows=WIDE),
        dict(expand_sizes=(3, 0, 1, 0), focal_windows=(0, 3, 1, 0), out_norm=None),
    ],
    ids=['defaults', 'others', 'switched off'],
)
def test_our_own_reload_exactly(options, wrap, tmp_path):
    torch.manual_seed(1)
    saved = FocalTransformer(TINY, **options)
    for parameter in saved.parameters():
        torch.nn.init.normal_(parameter)
    state = saved.state_dict()
    if wrap == 'detector':
        state = {f'backbone.{name}': tensor for name, tensor in state.items()}
        state = dict(state_dict={**state, 'neck.weight': torch.ones(2)}, optimizer={})
    elif wrap == 'file':
        torch.save(dict(state_dict=state), tmp_path / 'ours.pth')
        state = tmp_path / 'ours.pth'
    model = FocalTransformer(TINY, **options)
    report = load_published(model, state)
    assert same(model.state_dict(), saved.state_dict())
    assert report.kind == 'mmvitbackbones'
    assert report.unused == (['neck.weight'] if wrap == 'detector' else [])
    assert not report.new and not report.resized


def test_our_own_at_other_focal_windows(log):
    saved, model = FocalTransformer(TINY), FocalTransformer(TINY, focal_windows=WIDE)
    report = load_published(model, saved.state_dict())
    assert list(report.resized) == names_of(model, '.coarse_bias.table')
    assert not report.new and not log.warnings


# Other windows.


def bilinear(tables, size):
    """Resize (heads, S, S) to (heads, size, size): centres of cells, borders repeated."""
    side = tables.shape[-1]
    weights = torch.zeros(size, side, dtype=torch.float64)
    for row in range(size):
        place = min(max((row + 0.5) * side / size - 0.5, 0), side - 1)
        low = min(int(place), max(side - 2, 0))
        weights[row, low] += 1 - (place - low)
        if place > low:
            weights[row, low + 1] += place - low
    return weights @ tables.double() @ weights.T


def resized_bias(table, window, keys):
    """The published bias of a published table that is resized as it lies in the file."""
    side = round(table.shape[1] ** 0.5)
    grid = bilinear(table.unflatten(1, (side, side)), window + keys - 1)
    return published_bias(grid.flatten(1), window, keys)


OTHER_WINDOWS = {
    'wide': dict(focal_windows=WIDE),
    'narrow': dict(focal_windows=(5, 2, 1, 1)),
    'large': dict(window_size=14),
    'large and wide': dict(window_size=14, focal_windows=WIDE),
    'small': dict(window_size=5, expand_sizes=(2, 2, 2, 0)),
    'by stage': dict(window_size=(14, 9, 7, 4)),
}


@pytest.mark.parametrize('options', OTHER_WINDOWS.values(), ids=OTHER_WINDOWS)
def test_tables_of_other_windows(options):
    """Resized in the published layout, and read as published."""
    state, model = published(), FocalTransformer(TINY, out_norm=None, **options)
    load_published(model, state)
    for name, block in blocks(model):
        attn = block.attn
        own = resized_bias(state[f'{name}.attn.{OWN}'].t(), attn.window, attn.window)
        coarse = resized_bias(state[f'{name}.attn.{COARSE}'], attn.window, attn.focal_window)
        torch.testing.assert_close(attn.bias().double(), own, rtol=0, atol=1e-5)
        torch.testing.assert_close(attn.coarse_bias().double(), coarse, rtol=0, atol=1e-5)


def sloping(offset_y, offset_x, side):
    """A function of the offset, relative to the window, that is no mirror image of another."""
    y, x = offset_y / side, offset_x / side
    return 1 + 2 * y - 5 * x + 7 * x * y


def sloping_table(side):
    """In the published layout, where the middle is the offset 0 and rows run from key to query."""
    offset = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return sloping(-offset[:, None], -offset, side).flatten()


@pytest.mark.parametrize('options', OTHER_WINDOWS.values(), ids=OTHER_WINDOWS)
def test_resized_tables_keep_their_meaning(options):
    """A bias that slopes with the offset, relative to the window, still slopes so."""
    state, model = published(), FocalTransformer(TINY, out_norm=None, **options)
    for name, tensor in state.items():
        if name.endswith(OWN):
            tensor[:] = sloping_table(13)[:, None]
        elif name.endswith(COARSE):
            tensor[:] = sloping_table(round(tensor.shape[1] ** 0.5))
    load_published(model, state)
    for name, block in blocks(model):
        attn, window = block.attn, block.attn.window
        coarse_before = round(state[f'{name}.attn.{COARSE}'].shape[1] ** 0.5)
        for found, keys, before in (
            (attn.bias(), window, 13),
            (attn.coarse_bias(), attn.focal_window, coarse_before),
        ):
            side = window + keys - 1
            queries = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
            offset = torch.arange(keys) - (keys - 1) / 2 - queries[:, None]
            y, x = offset[:, None, :, None], offset[None, :, None, :]
            expected = sloping(y, x, side).expand(window, window, keys, keys)
            # The interpolation repeats the border's values beyond it.
            inside = (torch.maximum(y.abs(), x.abs()) / side <= 0.5 - 0.5 / before).expand_as(
                expected
            )
            assert inside.double().mean() > 0.7
            found = found[0].double().view_as(expected)
            torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=2e-6)


def test_other_focal_windows_change_nothing_else(log):
    model = FocalTransformer(TINY, focal_windows=WIDE, out_norm=None)
    report = load_published(model, published())
    tables = names_of(model, '.coarse_bias.table')
    assert len(tables) == 5
    assert list(report.resized) == tables
    assert report.resized[tables[0]] == ((1, 13**2), (1, 21**2))
    assert report.resized[tables[-1]] == ((4, 7**2), (4, 13**2))
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert not report.new and not log.warnings
    state = model.state_dict()
    assert state.keys() == plain().keys()
    for name in set(state) - set(tables):
        assert torch.equal(state[name], plain()[name]), name


@pytest.mark.parametrize('window, expands', [(14, EXPANDS), (5, (2, 2, 2, 0))])
def test_other_window_size(window, expands, log):
    model = FocalTransformer(TINY, window_size=window, expand_sizes=expands, out_norm=None)
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, published())
    new = names_of(model, '.surroundings.table')
    resized = [*names_of(model, 'bias.table'), *names_of(model, '.pool.weight')]
    assert (len(new), len(resized)) == (4, 15)
    assert report.new == new and sorted(report.resized) == sorted(resized)
    state = model.state_dict()
    for name in state:
        if name in new:
            assert torch.equal(state[name], before[name]), name
        elif name not in resized:
            assert torch.equal(state[name], plain()[name]), name
    assert len(log.warnings) == 1
    assert 'a state dict' in log.warnings[0] and 'start new' in log.warnings[0]
    assert 'surroundings.table' in log.warnings[0] and '\n' not in log.warnings[0]
    with torch.no_grad():
        assert all(m.isfinite().all() for m in model.eval()(torch.randn(1, 3, 90, 61)))


def test_window_size_of_one_stage():
    model = FocalTransformer(TINY, window_size=(7, 14, 7, 7), out_norm=None)
    report = load_published(model, published())
    assert report.new == [f'stages.1.blocks.{j}.attn.surroundings.table' for j in (0, 1)]
    assert all(name.startswith('stages.1.') for name in report.resized)
    assert len(report.resized) == 3 * 2


@pytest.mark.parametrize('window', [14, 5, 3, 28])
@pytest.mark.parametrize('total', [1.0, -3.0, 0.0])
def test_pooling_keeps_its_sum(window, total):
    torch.manual_seed(0)
    weight = torch.randn(1, 49, dtype=torch.float64)
    weight += (total - weight.sum()) / 49
    state = {**published(), 'layers.0.blocks.0.pool_layers.0.weight': weight.float()}
    model = FocalTransformer(TINY, window_size=window, expand_sizes=0, out_norm=None)
    load_published(model, state)
    pool = model.stages[0].blocks[0].attn.pool
    assert pool.weight.shape == (window, window)
    # A map that is the same everywhere is pooled to the same token as before.
    with torch.no_grad():
        token = pool(torch.ones(1, 2 * window, window, 3)) - pool.bias
    assert token.shape == (1, 2, 1, 3)
    assert (token - total).abs().max() < 3e-6
    exact = resize_pooling(weight.view(7, 7), (window, window)).sum()
    assert abs(exact - total) < 1e-13


@pytest.mark.parametrize('window', [14, 5])
def test_resized_pooling_keeps_its_shape(window):
    """Weights that slope across the window, not mirrored or transposed."""
    y, x = (torch.arange(7.0) - 3)[:, None] / 7, (torch.arange(7.0) - 3) / 7
    weight = (1 + y - 3 * x + 2 * x * y).view(1, 49) / 49
    state = {**published(), 'layers.0.blocks.0.pool_layers.0.weight': weight}
    model = FocalTransformer(TINY, window_size=window, expand_sizes=0, out_norm=None)
    load_published(model, state)
    side = (torch.arange(window) - (window - 1) / 2) / window
    y, x = side[:, None], side
    expected = (1 + y - 3 * x + 2 * x * y) / window**2
    inside = side.abs() <= 3 / 7  # beyond, the interpolation repeats the border's values
    error = (model.stages[0].blocks[0].attn.pool.weight - expected)[inside][:, inside]
    assert error.abs().max() < 1e-6


# Surroundings and coarse tokens that the file lacks, or the model.


def test_other_expand_sizes(log):
    model = FocalTransformer(TINY, expand_sizes=(2, 3, 2, 0), out_norm=None)
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, published())
    new = [f'stages.{i}.blocks.0.attn.surroundings.table' for i in (0, 2)]
    assert report.new == new and not report.resized
    state = model.state_dict()
    assert state.keys() == plain().keys()
    for name in state:
        assert torch.equal(state[name], (before if name in new else plain())[name]), name
    assert len(log.warnings) == 1 and 'surroundings.table' in log.warnings[0]


def test_surroundings_that_the_file_lacks(log):
    model = FocalTransformer(TINY, expand_sizes=3, out_norm=None)
    report = load_published(model, published())
    assert report.new == ['stages.3.blocks.0.attn.surroundings.table']
    assert len(log.warnings) == 1 and 'surroundings.table' in log.warnings[0]


@pytest.mark.parametrize('as_published', [True, False])
@pytest.mark.parametrize(
    'options, left_out',
    [
        (dict(expand_sizes=0), r'stages\.[0-2]\..*\.attn\.surroundings\.table'),
        (dict(expand_sizes=(3, 0, 3, 0)), r'stages\.1\..*\.attn\.surroundings\.table'),
        (dict(focal_windows=0), r'stages\..*\.attn\.(pool\.(weight|bias)|coarse_bias\.table)'),
        (
            dict(focal_windows=(7, 5, 0, 1)),
            r'stages\.2\..*\.attn\.(pool\.(weight|bias)|coarse_bias\.table)',
        ),
        (
            dict(expand_sizes=0, focal_windows=0),
            r'stages\..*\.attn\.(pool\.(weight|bias)|(coarse_bias|surroundings)\.table)',
        ),
    ],
    ids=['expand', 'expand of a stage', 'focal', 'focal of a stage', 'both'],
)
def test_what_is_switched_off_is_unused(options, left_out, as_published, log):
    state = published() if as_published else plain()
    model = FocalTransformer(TINY, out_norm=None, **options)
    report = load_published(model, state)
    expected = [name for name in plain() if re.fullmatch(left_out, name)]
    others = [name for name in state if is_index(name) or name in CLASSIFIER]
    assert expected and sorted(report.unused) == sorted([*expected, *others])
    assert len(report.loaded) + len(report.unused) == len(state)
    assert not report.new and not report.resized and not log.warnings
    kept = {name: tensor for name, tensor in plain().items() if name not in expected}
    assert same(model.state_dict(), kept)


def test_switched_off_at_another_window_size(log):
    """Then nothing starts new."""
    model = FocalTransformer(TINY, window_size=14, expand_sizes=0, out_norm=None)
    report = load_published(model, published())
    assert len(report.resized) == 15 and not report.new and not log.warnings


ABLATIONS = {  # of the paper's Fig. 5 and Table 7
    'window only': dict(expand_sizes=0, focal_windows=0),
    'local': dict(focal_windows=0),
    'global': dict(expand_sizes=0),
    'window of 14': dict(window_size=14),
}


@pytest.mark.parametrize('options', ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_train_from_published_weights(options):
    """Every parameter that is left, and a step down the slope lowers the loss."""
    model = FocalTransformer(TINY, drop_path_rate=0, **options)
    report = load_published(model, {n: 0.1 * t for n, t in published().items()})
    assert {*report.loaded, *report.new} == model.state_dict().keys()
    for name in report.new:
        assert name.startswith('out_norms.') or 'surroundings' in name
    assert any('surroundings' in name for name in report.new) == ('window_size' in options)
    x = torch.randn(2, 3, 70, 93, generator=torch.Generator().manual_seed(0))

    def loss():
        return sum((m - m.roll(1, 3)).square().mean() for m in model(x))

    before = loss()
    before.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    slope = sum(grad.square().sum() for grad in grads.values())
    assert slope > 0
    torch.optim.SGD(model.parameters(), lr=float(1e-3 * before / slope)).step()
    with torch.no_grad():
        # The slope foretells 0.1 %.
        assert 0.998 < loss() / before < 0.9995


def test_other_depths_of_a_base():
    """Of Table 9; a file of the base's own depths is refused."""
    arch = dict(base='tiny', depths=(2, 2, 4, 2))

    def state(depths):
        shapes = published_shapes(dict(ARCHS['tiny'], depths=depths))
        return {name: torch.empty(shape) for name, shape in shapes.items()}

    with torch.device('meta'):
        model = FocalTransformer(arch)
        check_report(load_published(model, state((2, 2, 4, 2))), model, state((2, 2, 4, 2)))
        words = 'depths 2, 2, 6, 2 and .*; the model has depths 2, 2, 4, 2 and .* Set arch'
        with pytest.raises(ValueError, match=words):
            load_published(model, state((2, 2, 6, 2)))


def test_only_output_norms_and_peg_start_new(log):
    model = FocalTransformer(TINY, peg=True)
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, published())
    new = [name for name in before if name.startswith('out_norms.') or '.peg.' in name]
    assert len(new) == 8 + 4
    assert report.new == new and not log.warnings
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in new)


# The log.


@pytest.mark.parametrize('options', [dict(), dict(window_size=14), dict(focal_windows=0)])
def test_the_log_is_short(options, log):
    """Of hundreds of tensors, those whose names differ in numbers are one entry."""
    with torch.device('meta'):
        model = FocalTransformer('small', **options)
        state = {
            name: torch.empty(shape) for name, shape in published_shapes(ARCHS['small']).items()
        }
    report = load_published(model, state)
    text = log.messages[0]
    assert text == str(report)
    assert len(text) < 1000 and len(text.splitlines()) <= 4
    for line in text.splitlines():
        entries = re.split(r', |: | \(', line)
        generic = [re.sub(r'\d+', '*', entry) for entry in entries if entry.count('.') > 1]
        assert len(generic) == len(set(generic))
    for ending in INDEX:
        assert ending in text
    assert ('pool.weight' in text) == (options != {})
    assert ('surroundings.table' in text) == ('window_size' in options)
    assert len(log.messages) == (2 if 'window_size' in options else 1)


# What is wrong.


def wrong_weights():
    def drop(name):
        state = published()
        del state[name]
        return state

    def change(name, *shape):
        return {**published(), name: torch.ones(shape)}

    def ours(**options):
        return FocalTransformer(TINY, **options).state_dict()

    block = 'layers.0.blocks.0'
    own, coarse = f'{block}.attn.{OWN}', f'{block}.attn.{COARSE}'
    surroundings, pool = f'{block}.attn.{SURROUNDINGS}', f'{block}.pool_layers.0.weight'
    swin = {
        'patch_embed.proj.weight': torch.ones(8, 3, 4, 4),
        'layers.0.blocks.0.attn.relative_position_bias_table': torch.ones(169, 1),
    }
    regionvit = {
        'cls_token.proj.weight': torch.ones(8, 3, 28, 28),
        'layers.0.block.1.attn.rel_pos': torch.ones(1, 169),
    }
    deeper, wider = dict(TINY, depths=[1, 2, 3, 1]), dict(TINY, dims=[8, 16, 32, 32])
    more_heads = dict(TINY, heads=[2, 2, 2, 4])
    depths, channels = 'depths 1, 2, 1, 1', 'channels 8, 16, 16, 32'
    return [
        ('missing', drop(f'{block}.mlp.fc1.bias'), ['1 missing', 'stages.0.blocks.0.ffn.fc1.bias']),
        ('no own table', drop(own), ['1 missing', 'stages.0.blocks.0.attn.bias.table']),
        ('no pooling', drop(pool), ['1 missing', 'stages.0.blocks.0.attn.pool.weight']),
        ('no downsample', drop('layers.0.downsample.proj.bias'), ['stages.1.downsample.conv.bias']),
        ('no coarse', ours(focal_windows=0), ['15 missing', '.attn.pool.weight']),
        ('unexpected', change('extra.weight', 2), ['1 unexpected', 'extra.weight']),
        ('shape', change('patch_embed.norm.bias', 9), ['stem.norm.bias', '(9,)', '(8,)']),
        ('depth', published(deeper), ['depths 1, 2, 3, 1', depths, channels, 'Set arch']),
        ('width', published(wider), ['channels 8, 16, 32, 32', channels, depths, 'Set arch']),
        ('heads', published(more_heads), ['stages.0.blocks.0.attn', '(2, 169)', '(1, 169)']),
        ('embedding', published(use_conv_embed=True), ['overlap: set use_conv_embed=True']),
        ('surroundings count', change(surroundings, 1, 1, 49, 131), [surroundings, 'square']),
        ('swin', swin, ['neither published Focal Transformer', 'patch_embed.proj', '2 tensors']),
        ('regionvit', regionvit, ['holds RegionViT weights', 'the model is Focal Transformer']),
        ('our regionvit', RegionViT(REGIONVIT, peg=True).state_dict(), ['a state dict']),
        ('empty', {}, ['no tensor at all']),
        ('our peg', ours(peg=True), ['4 unexpected', 'stages.0.peg', 'set peg=True']),
        ('own table', change(own, 168, 1), [own, '(168, 1)', 'square']),
        ('own table even', change(own, 144, 1), [own, '(144, 1)']),
        ('own table dims', change(own, 169), [own, '(169,)', 'square']),
        ('coarse table', change(coarse, 1, 168), [coarse, '(1, 168)', 'square']),
        ('coarse table dims', change(coarse, 1, 13, 13), [coarse, '(1, 13, 13)']),
        ('surroundings', change(surroundings, 1, 1, 48, 132), [surroundings, '(1, 1, 48, 132)']),
        ('surroundings dims', change(surroundings, 1, 49, 132), [surroundings, '(1, 49, 132)']),
        ('pooling', change(pool, 1, 48), [pool, '(1, 48)', 'square']),
        (
            'our coarse table',
            {**ours(), 'stages.0.blocks.0.attn.coarse_bias.table': torch.ones(1, 168)},
            ['stages.0.blocks.0.attn.coarse_bias.table', '(1, 168)', '(1, 169)'],
        ),
    ]


@pytest.mark.parametrize(
    'state, words', [pytest.param(*case, id=name) for name, *case in wrong_weights()]
)
def test_wrong_weights_change_nothing(state, words):
    model = FocalTransformer(TINY)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError) as error:
        load_published(model, state)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert same(model.state_dict(), before)


def test_focal_weights_in_a_regionvit():
    model = RegionViT(REGIONVIT)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match='holds Focal Transformer weights, the model is RegionViT'):
        load_published(model, published())
    assert same(model.state_dict(), before)


# Without a file.


def test_start_of_training():
    """Coarse tokens are means, biases small."""
    torch.manual_seed(0)
    model = FocalTransformer(TINY)
    state = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert same(model.state_dict(), state)
    x = torch.randn(2, 14, 21, 8)
    mean = F.avg_pool2d(x.permute(0, 3, 1, 2), 7).permute(0, 2, 3, 1)
    for _, block in blocks(model):
        torch.testing.assert_close(block.attn.pool(x), mean, rtol=0, atol=1e-6)
    tables = [state[name].flatten() for name in names_of(model, '.table')]
    assert len(tables) == 5 + 5 + 4
    for table in tables:
        assert 0.01 < table.std() < 0.03 and table.abs().max() < 0.12
        assert abs(table.mean()) < 0.01
