"""Published weights, and our own, on their way into a backbone."""

import copy
from functools import lru_cache

import golden_cases
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmvitbackbones import RegionViT
from mmvitbackbones.backbones.regionvit import ARCHS
from mmvitbackbones.checkpoints import load_published

TINY = dict(
    stem='3-conv', dims=[8, 16, 16, 32], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1], window_size=7
)
CLASSIFIER = ['head.bias', 'head.weight', 'norm.bias', 'norm.weight']


def published_shapes(arch, peg=False, det_norm=False):
    """Names and shapes of the published tensors of an architecture, by the naming rules."""
    dims, window = arch['dims'], arch['window_size']
    shapes = {}

    def add(name, weight, bias):
        shapes[f'{name}.weight'] = weight
        if bias is not None:
            shapes[f'{name}.bias'] = bias

    def norm_2d(name, dim):
        add(name, (1, dim, 1, 1), (1, dim, 1, 1))

    if arch['stem'] == '1-conv':
        add('patch_embed.proj', (dims[0], 3, 8, 8), dims[:1])
    else:
        before = 3
        for index, dim in ((0, dims[0] // 4), (3, dims[0] // 2), (6, dims[0])):
            add(f'patch_embed.proj.{index}', (dim, before, 3, 3), (dim,))
            if index < 6:
                norm_2d(f'patch_embed.proj.{index + 1}', dim)
            before = dim
    add('cls_token.proj', (dims[0], 3, 4 * window, 4 * window), dims[:1])
    for i, (dim, heads, depth) in enumerate(zip(dims, arch['heads'], arch['depths'])):
        if i:
            for twin in ('proj', 'proj_cls'):
                norm_2d(f'layers.{i}.block.0.{twin}.0', dims[i - 1])
                add(f'layers.{i}.block.0.{twin}.2', (dim, 1, 3, 3), (dim,))
        for j in range(1, depth + 1):
            block = f'layers.{i}.block.{j}'
            for k in range(3):
                add(f'{block}.norm{k}', (dim,), (dim,))
            shapes[f'{block}.attn.rel_pos'] = (heads, (2 * window - 1) ** 2)
            add(f'{block}.attn.qkv', (3 * dim, dim), (3 * dim,))
            add(f'{block}.attn.proj', (dim, dim), (dim,))
            add(f'{block}.mlp.fc1', (4 * dim, dim), (4 * dim,))
            add(f'{block}.mlp.fc2', (dim, 4 * dim), (dim,))
        if peg:
            add(f'layers.{i}.peg', (dim, 1, 3, 3), None)
        if det_norm:
            norm_2d(f'norm{i}', dim)
    add('norm', dims[-1:], dims[-1:])
    add('head', (1000, dims[-1]), (1000,))
    return {name: tuple(shape) for name, shape in shapes.items()}


def published(arch=TINY, seed=0, **options):
    """A published state dict with random values."""
    torch.manual_seed(seed)
    state = {name: torch.randn(s) for name, s in published_shapes(arch, **options).items()}
    for name in state:
        if 'proj_cls' in name:
            state[name] = state[name.replace('proj_cls', 'proj')].clone()
    return state


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@lru_cache
def golden_weights():
    return golden_cases.GoldenCase('regionvit_tiny_cls').weights()


# Every published tensor is accounted for.


@pytest.mark.parametrize('name', golden_cases.names('regionvit'))
def test_naming_rules_are_those_of_the_published_files(name):
    case = golden_cases.GoldenCase(name)
    size, _, extras = case.info['variant'].partition('_')
    arch = dict(ARCHS[size], window_size=14 if 'w14' in extras else 7)
    rules = published_shapes(arch, peg='peg' in extras, det_norm='kwargs' in case.info)
    assert rules == {key: tuple(shape) for key, (shape, _) in case.keys.items()}


@pytest.mark.parametrize('peg, det_norm', [(False, False), (True, True)])
@pytest.mark.parametrize('arch', ARCHS)
def test_every_tensor_of_every_size(arch, peg, det_norm):
    names = published_shapes(ARCHS[arch], peg, det_norm)
    state = {name: torch.zeros(()).expand(shape) for name, shape in names.items()}
    with torch.device('meta'):
        model = RegionViT(arch, peg=peg, out_norm='inline' if det_norm else None)
    model.to_empty(device='cpu')
    report = load_published(model, state)
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert report.tied == [name for name in names if 'proj_cls' in name]
    assert sorted(report.unused) == CLASSIFIER
    assert len(report.loaded) + len(report.tied) + len(report.unused) == len(names)
    assert not report.new and not report.resized


@pytest.mark.parametrize('window', [2, 3, 4, 7, 14])
def test_tables_give_the_published_bias(window):
    """Query and key read row (ky - qy + M // 2) mod (2M - 1), the column likewise."""
    arch = dict(TINY, window_size=window)
    state, model = published(arch), RegionViT(arch)
    load_published(model, state)
    side = 2 * window - 1
    y, x = (c.flatten() for c in torch.meshgrid(*[torch.arange(window)] * 2, indexing='ij'))
    row = (y[None, :] - y[:, None] + window // 2) % side
    column = (x[None, :] - x[:, None] + window // 2) % side
    for i, depth in enumerate(TINY['depths']):
        for j in range(depth):
            table = state[f'layers.{i}.block.{j + 1}.attn.rel_pos']
            found = model.stages[i].blocks[j].bias()
            assert torch.equal(found, table[:, row * side + column])


def test_values_arrive_bit_for_bit():
    state, model = published(peg=True, det_norm=True), RegionViT(TINY, peg=True)
    load_published(model, state)
    ours = model.state_dict()
    for name, published_name in {
        'stem.regional.weight': 'cls_token.proj.weight',
        'stem.local.1.bias': 'patch_embed.proj.1.bias',
        'stages.1.downsample.norm.weight': 'layers.1.block.0.proj.0.weight',
        'stages.2.downsample.conv.weight': 'layers.2.block.0.proj.2.weight',
        'stages.1.blocks.1.norm2.weight': 'layers.1.block.2.norm2.weight',
        'stages.3.blocks.0.attn.qkv.bias': 'layers.3.block.1.attn.qkv.bias',
        'stages.0.blocks.0.ffn.fc1.weight': 'layers.0.block.1.mlp.fc1.weight',
        'stages.0.peg.conv.weight': 'layers.0.peg.weight',
        'out_norms.3.weight': 'norm3.weight',
    }.items():
        assert torch.equal(ours[name].flatten(), state[published_name].flatten()), name


# Other windows.


@pytest.mark.parametrize('window', [3, 14])
def test_other_windows(window, log):
    model = RegionViT(TINY, window_size=window)
    report = load_published(model, published())
    tables = [name for name in model.state_dict() if name.endswith('.bias.table')]
    assert len(tables) == 5
    assert sorted(report.resized) == sorted(['stem.regional.weight', *tables])
    heads, side = 1, 2 * window - 1
    assert report.resized[tables[0]] == ((heads, 169), (heads, side**2))
    # Names that differ in numbers alone are one entry.
    names = 'resized: stem.regional.weight, stages.*.blocks.*.bias.table ('
    text = log.messages[-1]
    assert names in text and f'(1, 169) -> (1, {side**2})' in text
    assert not log.warnings
    assert set(report.resized) <= set(report.loaded)
    with torch.no_grad():
        assert all(m.isfinite().all() for m in model.eval()(torch.randn(1, 3, 90, 61)))


def test_resized_tables_keep_their_offsets():
    """A bias that is smooth in the offset, relative to the window, stays the same function."""
    offsets = torch.arange(-6, 7) / 7
    grid = torch.outer(torch.cos(2 * offsets), torch.exp(-offsets))
    # The published order: offset o in row (o + M // 2) mod (2M - 1).
    order = (torch.arange(-6, 7) + 3) % 13
    rolled = torch.empty_like(grid)
    rolled[order[:, None], order] = grid
    state = published()
    state['layers.0.block.1.attn.rel_pos'] = rolled.flatten()[None]
    model = RegionViT(TINY, window_size=14)
    load_published(model, state)
    # Pixel centres: offset o of 14 lies where offset o * 13 / 27 of 7 does.
    wide = torch.arange(-13, 14) * 13 / 27 / 7
    expected = torch.outer(torch.cos(2 * wide), torch.exp(-wide))
    found = model.stages[0].blocks[0].bias.table.detach().view(27, 27)
    # The interpolation repeats the border's values beyond it.
    assert (found - expected)[4:-4, 4:-4].abs().max() < 0.015 * expected.abs().max()


@pytest.mark.parametrize('window', [14, 28])
def test_regional_tokens_keep_their_scale(window):
    """Regional tokens of an image that is enlarged with the window."""
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing='ij')
    channels = [
        torch.sin(x / 17 + y / 29),
        torch.cos(y / 13),
        torch.sin(x / 23) * torch.cos(y / 31),
    ]
    image = torch.stack(channels)[None]
    tokens = []
    for size in (7, window):
        model = RegionViT('tiny', window_size=size)
        load_published(model, golden_weights())
        scaled = F.interpolate(image, scale_factor=size / 7, mode='bicubic')
        with torch.no_grad():
            tokens.append(model.stem(scaled)[1])
    small, large = tokens
    assert small.shape == large.shape == (1, 4, 4, 64)
    assert abs(large.std() / small.std() - 1) < 0.1
    assert (large - small).std() < 0.1 * small.std()


def test_equal_windows_change_nothing():
    models = [RegionViT(TINY, window_size=w, out_norm=None) for w in (None, 7, [7, 7, 7, 7])]
    for model in models:
        assert not load_published(model, published()).resized
        assert same(model.state_dict(), models[0].state_dict())
    weight = published()['cls_token.proj.weight']
    assert torch.equal(models[0].stem.regional.weight, weight)


# Without regional tokens.


@pytest.mark.parametrize('as_published', [True, False])
@pytest.mark.parametrize('window', [7, 3, 14])
def test_without_regional_tokens(window, as_published, log):
    """All else as with them, at any size of windows."""
    state = published() if as_published else RegionViT(TINY, out_norm=None).state_dict()
    whole = RegionViT(TINY, window_size=window, out_norm=None)
    load_published(whole, state)
    model = RegionViT(dict(TINY, regional=False), window_size=window, out_norm=None)
    report = load_published(model, state)
    gone = [name for name in whole.state_dict() if '.norm0.' in name or '.regional.' in name]
    assert len(gone) == 5 * 2 + 2
    assert sorted(report.unused) == sorted(gone + CLASSIFIER * as_published)
    tables = [name for name in model.state_dict() if name.endswith('.bias.table')]
    assert list(report.resized) == (tables if window != 7 else [])
    assert not report.new and not log.warnings
    kept = {name: tensor for name, tensor in whole.state_dict().items() if name not in gone}
    assert same(model.state_dict(), kept)
    assert 'unused: ' in str(report) and 'stages.*.blocks.*.norm0.weight' in str(report)


def test_what_no_switch_explains_is_refused():
    model, less = RegionViT(dict(TINY, regional=False)), published()
    before = copy.deepcopy(model.state_dict())
    del less['layers.1.block.2.norm1.bias']
    for state, words in (
        (less, '1 missing .stages.1.blocks.1.norm1.bias'),
        ({**published(), 'extra.weight': torch.ones(2)}, '1 unexpected .extra.weight'),
    ):
        with pytest.raises(ValueError, match=words):
            load_published(model, state)
    assert same(model.state_dict(), before)


# Our own.


@pytest.mark.parametrize('wrap', ['plain', 'state_dict', 'backbone', 'ddp', 'file'])
def test_our_own_reload_exactly(wrap, tmp_path):
    options = dict(peg=True, window_size=3, out_norm='output')
    torch.manual_seed(1)
    saved = RegionViT(TINY, **options)
    for parameter in saved.parameters():
        torch.nn.init.normal_(parameter)
    state = saved.state_dict()
    if wrap == 'state_dict':
        state = dict(state_dict=state, meta=dict(epoch=1))
    elif wrap == 'backbone':
        state = {f'backbone.{name}': tensor for name, tensor in state.items()}
        state = dict(state_dict={**state, 'neck.weight': torch.ones(2)}, optimizer={})
    elif wrap == 'ddp':
        state = {f'module.{name}': tensor for name, tensor in state.items()}
    elif wrap == 'file':
        torch.save(dict(state_dict=state), tmp_path / 'ours.pth')
        state = tmp_path / 'ours.pth'
    model = RegionViT(TINY, **options)
    report = load_published(model, state)
    assert same(model.state_dict(), saved.state_dict())
    assert report.kind == 'mmvitbackbones'
    assert report.unused == (['neck.weight'] if wrap == 'backbone' else [])
    assert not report.new and not report.resized


def test_our_own_at_another_window():
    saved, model = RegionViT(TINY), RegionViT(TINY, window_size=14)
    report = load_published(model, saved.state_dict())
    assert len(report.resized) == 6 and not report.new


def test_any_order_of_tensors():
    """As of files that other tools have sorted."""
    for state in (published(), RegionViT(TINY).state_dict()):
        model, other = RegionViT(TINY), RegionViT(TINY)
        other.load_state_dict(model.state_dict())
        load_published(model, state)
        last, first = (sorted(state, key=lambda n: 'fc1.bias' in n, reverse=r) for r in (0, 1))
        for order in (sorted(state), last, first):
            load_published(other, {name: state[name] for name in order})
            assert same(model.state_dict(), other.state_dict())


# What is new, and what is wrong.


def test_only_output_norms_and_peg_start_new(log):
    model = RegionViT(TINY, peg=True)
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, published())
    new = [name for name in before if name.startswith('out_norms.') or '.peg.' in name]
    assert len(new) == 8 + 4
    assert report.new == new
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in new)
    names = 'stages.*.peg.conv.weight, out_norms.*.weight, out_norms.*.bias'
    assert f'  new: {names}\n' in log.messages[-1]
    assert not log.warnings


def test_report_as_text(log):
    report = load_published(RegionViT(TINY), {'model': published()})
    text = str(report)
    assert text == log.messages[-1]
    assert text.startswith(f'a state dict: published RegionViT weights, {len(report.loaded)} tens')
    for name in [*CLASSIFIER, 'layers.*.block.*.proj_cls.*.weight', 'out_norms.*.weight']:
        assert text.count(name) == 1
    assert len(text) < 400
    assert 'resized' not in text
    model = RegionViT(TINY)
    report = load_published(model, model.state_dict())
    assert (
        str(report) == f'a state dict: mmvitbackbones weights, {len(report.loaded)} tensors loaded'
    )


def wrong_weights():
    def drop(name):
        state = published()
        del state[name]
        return state

    def change(name, tensor):
        return {**published(), name: tensor}

    deeper = dict(TINY, depths=[1, 2, 2, 1])
    wider = dict(TINY, dims=[8, 16, 32, 32])
    more_heads = dict(TINY, heads=[2, 2, 2, 4])
    swin = {
        'patch_embed.proj.weight': torch.ones(8, 3, 4, 4),
        'layers.0.blocks.0.attn.relative_position_bias_table': torch.ones(169, 1),
    }
    tied = 'layers.2.block.0.proj_cls.2.bias'
    ours = RegionViT(TINY, peg=True).state_dict()
    yield 'missing', drop('layers.1.block.2.mlp.fc1.bias'), ['1 missing', 'blocks.1.ffn.fc1.bias']
    yield 'stem missing', drop('patch_embed.proj.0.weight'), ['1 missing', 'stem.local.0.weight']
    yield 'unexpected', change('extra.weight', torch.ones(2)), ['1 unexpected', 'extra.weight']
    yield 'shape', change('patch_embed.proj.6.bias', torch.ones(9)), ['stem.local.6.bias', '(9,)']
    yield 'depth', published(deeper), ['depths 1, 2, 2, 1', 'depths 1, 2, 1, 1', 'arch']
    yield 'width', published(wider), ['channels 8, 16, 32, 32', 'channels 8, 16, 16, 32', 'arch']
    yield 'heads', published(more_heads), ['stages.0.blocks.0.bias.table', '(2, 169)', '(1, 169)']
    yield 'family', swin, ['neither published RegionViT', 'patch_embed.proj.weight', '2 tensors']
    yield 'classifier only', {'head.weight': torch.ones(2, 2)}, ['neither', 'head.weight']
    yield 'empty', {}, ['no tensor at all']
    yield 'no tensors', dict(state_dict=dict(epoch=3)), ['no tensor at all']
    yield 'tied differ', change(tied, torch.ones(16)), [tied, 'proj.2.bias', 'tied']
    yield 'twin missing', drop(tied.replace('_cls', '')), [tied, 'tied']
    yield 'peg', published(peg=True), ['4 unexpected', 'stages.0.peg', 'set peg=True']
    yield 'our peg', ours, ['4 unexpected', 'stages.0.peg', 'set peg=True']
    tall = torch.ones(8, 3, 14, 28)
    yield 'projection', change('cls_token.proj.weight', tall), ['stem.regional.weight', '14, 28']
    our_table = {**RegionViT(TINY).state_dict(), 'stages.0.blocks.0.bias.table': torch.ones(1, 168)}
    yield 'our table', our_table, ['stages.0.blocks.0.bias.table', '168']
    locals_only = RegionViT(dict(TINY, regional=False)).state_dict()
    yield 'no regions', locals_only, ['12 missing', 'stem.regional', 'set regional=False in arch']
    yield 'table', change('layers.0.block.1.attn.rel_pos', torch.ones(1, 168)), ['rel_pos', '168']


@pytest.mark.parametrize(
    'name, state, words', list(wrong_weights()), ids=lambda v: v if isinstance(v, str) else ''
)
def test_wrong_weights_change_nothing(name, state, words):
    model = RegionViT(TINY)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError) as error:
        load_published(model, state)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert same(model.state_dict(), before)


def test_output_norms_without_a_place():
    model = RegionViT(TINY, out_norm=None)
    with pytest.raises(ValueError, match='set out_norm.*8 unexpected'):
        load_published(model, RegionViT(TINY).state_dict())


def test_the_message_names_the_file(tmp_path):
    path = tmp_path / 'RegionViT-X.pth'
    torch.save({'model': published(dict(TINY, depths=[1, 1, 1, 1]))}, path)
    with pytest.raises(ValueError, match='RegionViT-X.pth is of another arch'):
        load_published(RegionViT(TINY), path)


# Through mmengine.


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'RegionViT-T.pth'
    torch.save({'model': published()}, path)
    return str(path)


@pytest.fixture
def expected():
    model = RegionViT(TINY)
    load_published(model, published())
    return model.state_dict()


@pytest.mark.parametrize('as_list', [False, True])
def test_init_cfg(file, expected, log, as_list):
    init_cfg = dict(type='Pretrained', checkpoint=file)
    model = RegionViT(TINY, init_cfg=[init_cfg] if as_list else init_cfg)
    model.init_weights()
    assert same(model.state_dict(), expected)
    assert model.is_init
    assert 'unused: norm.weight, norm.bias, head.weight, head.bias' in log.messages[-1]


@pytest.mark.parametrize(
    'more', [dict(prefix='backbone.'), dict(map_location='cpu'), [dict(type='Constant', val=0)]]
)
def test_init_cfg_with_more(file, more):
    init_cfg = dict(type='Pretrained', checkpoint=file)
    init_cfg = [init_cfg, *more] if isinstance(more, list) else {**init_cfg, **more}
    with pytest.raises(ValueError, match="init_cfg of type 'Pretrained' takes 'checkpoint'"):
        RegionViT(TINY, init_cfg=init_cfg).init_weights()


def test_init_cfg_of_other_types():
    model = RegionViT(TINY, init_cfg=dict(type='Constant', layer='Linear', val=0.5, bias=0.25))
    model.init_weights()
    assert (model.stages[0].blocks[0].attn.qkv.weight == 0.5).all()
    assert (model.stages[0].blocks[0].attn.qkv.bias == 0.25).all()


def test_init_cfg_without_a_file(tmp_path):
    missing = str(tmp_path / 'RegionViT-S.pth')
    model = RegionViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=missing))
    with pytest.raises(FileNotFoundError, match='RegionViT-S.pth'):
        model.init_weights()


def test_in_a_detector(file, expected):
    """Built and initialised as a Runner does it."""
    cfg = Config.fromfile('configs/retinanet_regionvit_s_1x.py').model
    cfg.backbone.arch = TINY
    cfg.backbone.init_cfg.checkpoint = file
    cfg.neck.update(in_channels=TINY['dims'], out_channels=8)
    cfg.bbox_head.update(num_classes=2, in_channels=8, feat_channels=8)
    with DefaultScope.overwrite_default_scope('mmdet'):
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules

        register_all_modules(init_default_scope=False)
        detector = MODELS.build(cfg)
        detector.init_weights()
    assert same(detector.backbone.state_dict(), expected)
    with pytest.raises(TypeError, match='RMT, ViL.*or an .*, got RetinaNet.*its .backbone'):
        load_published(detector, file)
    state = {'state_dict': detector.state_dict()}
    report = load_published(RegionViT(TINY), state)
    assert report.kind == 'mmvitbackbones' and len(report.loaded) == len(expected)
