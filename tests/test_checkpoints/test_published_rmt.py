"""Published RMT weights, and our own, on their way into the backbone."""

import copy
import re
from functools import lru_cache

import golden_cases
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmvitbackbones import RMT, FocalTransformer, RegionViT
from mmvitbackbones.backbones.rmt import ARCHS
from mmvitbackbones.checkpoints import load_published

TINY = dict(
    dims=[8, 16, 16, 32],
    heads=[1, 2, 2, 4],
    depths=[1, 2, 1, 1],
    mlp_ratios=[2, 1, 3, 1],
    decay_range=[[2, 6], [2, 6], [2, 8], [2, 8]],
    layer_scale=[None, 1e-6, None, 0.5],
)
UNSCALED = dict(TINY, layer_scale=None)
REGIONVIT = dict(
    stem='1-conv', dims=[8, 16, 16, 32], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1], window_size=7
)
FOCAL = dict(dims=[8, 16, 16, 32], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1])
CLASSIFIER = ('proj.', 'norm.', 'head.', 'aux_head.')
BUFFERS = ('.running_mean', '.running_var', '.num_batches_tracked', '.angle', '.decay')
# The published name of each module of a block, by ours; of what is moved and not merged.
IN_A_BLOCK = {
    'cpe.conv': 'pos.conv',
    'norm1': 'retention_layer_norm',
    'attn.v': 'retention.v_proj',
    'attn.lce': 'retention.lepe.conv',
    'attn.proj': 'retention.out_proj',
    'norm2': 'final_layer_norm',
    'ffn.fc1': 'ffn.fc1',
    'ffn.conv': 'ffn.dwconv.conv',
    'ffn.fc2': 'ffn.fc2',
}


def published_shapes(arch, extra_norms=False, aux_head=False):
    """Names and shapes of the published tensors of an architecture, by the naming rules."""
    dims, shapes = arch['dims'], {}
    scales = arch['layer_scale'] or [None] * len(dims)

    def add(name, *weight):
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = weight, weight[:1]

    def batch_norm(name, dim):
        add(name, dim)
        shapes[f'{name}.running_mean'] = shapes[f'{name}.running_var'] = (dim,)
        shapes[f'{name}.num_batches_tracked'] = ()

    before = 3
    for index, dim in ((0, dims[0] // 2), (3, dims[0] // 2), (6, dims[0]), (9, dims[0])):
        add(f'patch_embed.proj.{index}', dim, before, 3, 3)
        batch_norm(f'patch_embed.proj.{index + 1}', dim)
        before = dim
    for i, (dim, heads) in enumerate(zip(dims, arch['heads'])):
        hidden = dim * arch['mlp_ratios'][i]
        shapes[f'layers.{i}.Relpos.angle'] = (dim // heads,)
        shapes[f'layers.{i}.Relpos.decay'] = (heads,)
        for j in range(arch['depths'][i]):
            block = f'layers.{i}.blocks.{j}'
            if scales[i] is not None:
                shapes[f'{block}.gamma_1'] = shapes[f'{block}.gamma_2'] = (1, 1, 1, dim)
            for norm in ('retention_layer_norm', 'final_layer_norm'):
                add(f'{block}.{norm}', dim)
            for linear in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
                add(f'{block}.retention.{linear}', dim, dim)
            add(f'{block}.retention.lepe.conv', dim, 1, 5, 5)
            add(f'{block}.ffn.fc1', hidden, dim)
            add(f'{block}.ffn.fc2', dim, hidden)
            add(f'{block}.ffn.dwconv.conv', hidden, 1, 3, 3)
            add(f'{block}.pos.conv', dim, 1, 3, 3)
        if i + 1 < len(dims):
            add(f'layers.{i}.downsample.reduction', dims[i + 1], dim, 3, 3)
            batch_norm(f'layers.{i}.downsample.norm', dims[i + 1])
        if extra_norms:
            add(f'extra_norms.{i}', dim)
    add('proj', 1024, dims[-1])
    batch_norm('norm', 1024)
    add('head', 1000, 1024)
    if aux_head:
        add('aux_head', 1000, 1024)
    return shapes


def published(arch=TINY, seed=0, **options):
    """A published state dict with random values."""
    torch.manual_seed(seed)
    state = {}
    for name, shape in published_shapes(arch, **options).items():
        if name.endswith('.num_batches_tracked'):
            state[name] = torch.randint(1, 10**6, shape)
        else:
            state[name] = torch.randn(shape)
        if name.endswith('.running_var'):
            state[name].abs_().add_(0.5)
    return state


def expected(state, arch=TINY):
    """Our state dict, made of the published one the slow way: name by name."""
    ours = {}

    def take(name, published_name):
        for full, tensor in state.items():
            module, _, leaf = full.rpartition('.')
            if module == published_name:
                ours[f'{name}.{leaf}'] = tensor

    for index in (0, 1, 3, 4, 6, 7, 9, 10):
        take(f'stem.{index}', f'patch_embed.proj.{index}')
    for i, depth in enumerate(arch['depths']):
        for j in range(depth):
            name, block = f'stages.{i}.blocks.{j}', f'layers.{i}.blocks.{j}'
            for module, published_module in IN_A_BLOCK.items():
                take(f'{name}.{module}', f'{block}.{published_module}')
            for leaf in ('weight', 'bias'):
                q, k = (state[f'{block}.retention.{n}_proj.{leaf}'] for n in 'qk')
                ours[f'{name}.attn.qk.{leaf}'] = torch.cat([q, k])
            for n in (1, 2):
                if f'{block}.gamma_{n}' in state:
                    ours[f'{name}.residual{n}.scale'] = state[f'{block}.gamma_{n}'][0, 0, 0]
        take(f'stages.{i + 1}.downsample.conv', f'layers.{i}.downsample.reduction')
        take(f'stages.{i + 1}.downsample.norm', f'layers.{i}.downsample.norm')
        take(f'out_norms.{i}', f'extra_norms.{i}')
    return ours


# What an arch of Table 6 leaves out of the file, and what it has that the file lacks.
CONV_STEM, PATCH_STEM = r'stem\.\d+\..*', r'stem\.(conv|norm)\.(weight|bias)'
WITHOUT = {
    'lce': (dict(lce=False), r'.*\.attn\.lce\..*', ''),
    'cpe': (dict(cpe=False), r'.*\.cpe\.conv\..*', ''),
    'ffn_conv': (dict(ffn_conv=False), r'.*\.ffn\.conv\..*', ''),
    'stem': (dict(stem='patch'), CONV_STEM, PATCH_STEM),
    'all': (
        dict(lce=False, cpe=False, stem='patch'),
        rf'.*\.(attn\.lce|cpe\.conv)\..*|{CONV_STEM}',
        PATCH_STEM,
    ),
}
without = pytest.mark.parametrize('parts, left_out, new', WITHOUT.values(), ids=WITHOUT)


@lru_cache
def plain():
    """The published state dict in a model that has no more than it."""
    model = RMT(TINY, out_norm=None)
    load_published(model, published())
    return model.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trained(**options):
    """A model with random parameters and the statistics of two batches."""
    torch.manual_seed(1)
    model = RMT(**{'arch': TINY, 'drop_path_rate': 0.0, **options})
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.randn(2, 3, 33, 47))
    return model


# Every published tensor is accounted for.


def check_report(report, model, names):
    """All that the model has is loaded but for output norms, all that the file has is named."""
    norms = [name for name in model.state_dict() if name.startswith('out_norms.')]
    new = [] if any(name.startswith('extra_norms.') for name in names) else norms
    keys = [name for name in names if '.k_proj.' in name]
    unused = [name for name in names if name.startswith(CLASSIFIER) or '.Relpos.' in name]
    assert sorted(report.loaded + new) == sorted(model.state_dict())
    assert report.new == new
    assert sorted(report.unused) == sorted(unused)
    # Projections to queries and keys become one.
    assert len(report.loaded) + len(report.unused) + len(keys) == len(names)
    assert report.kind == 'published RMT'
    assert not report.resized and not report.tied


@pytest.mark.parametrize('name', golden_cases.names('rmt'))
def test_naming_rules_are_those_of_the_published_files(name):
    case = golden_cases.GoldenCase(name)
    rules = published_shapes(ARCHS[case.info['variant']])
    assert rules == {key: tuple(shape) for key, (shape, _) in case.keys.items()}
    for key, (_, dtype) in case.keys.items():
        assert dtype == ('int64' if key.endswith('num_batches_tracked') else 'float64')
    numbers = (torch.Size(rules[key]).numel() for key in rules if not key.endswith(BUFFERS))
    assert sum(numbers) == case.info['params']


@pytest.mark.parametrize(
    'options', [dict(), dict(extra_norms=True, aux_head=True)], ids=['', 'more']
)
@pytest.mark.parametrize(
    'arch, millions', [('tiny', 14.3), ('small', 27), ('base', 54), ('large', 95)]
)
def test_every_tensor_of_every_size(arch, millions, options):
    names = published_shapes(ARCHS[arch], **options)
    state = {name: torch.zeros(()).expand(shape) for name, shape in names.items()}
    with torch.device('meta'):
        model = RMT(arch, out_norm='output')
    model.to_empty(device='cpu')
    check_report(load_published(model, state), model, names)
    numbers = (t.numel() for name, t in state.items() if not name.endswith(BUFFERS))
    if not options:
        assert abs(sum(numbers) / 1e6 - millions) < 0.5


# What arrives where.


@pytest.mark.parametrize('extra_norms', [False, True])
@pytest.mark.parametrize('arch', [TINY, UNSCALED], ids=['LayerScale', 'no LayerScale'])
def test_values_arrive_bit_for_bit(arch, extra_norms):
    state = published(arch, extra_norms=extra_norms)
    model = RMT(arch, out_norm='output' if extra_norms else None)
    report = load_published(model, state)
    check_report(report, model, state)
    ours = model.state_dict()
    assert same(ours, expected(state, arch))


@pytest.mark.parametrize(
    'options',
    [
        dict(attention='whole'),
        dict(attention='decomposed'),
        dict(decay='product'),
        dict(decay=None),
        dict(norm_cfg=dict(type='SyncBN')),
        dict(norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, frozen_stages=2),
    ],
    ids=['whole', 'decomposed', 'product', 'no decay', 'SyncBN', 'frozen'],
)
def test_no_tensor_depends_on_these_options(options):
    state, model = published(), RMT(TINY, out_norm=None, **options)
    check_report(load_published(model, state), model, state)
    assert same(model.state_dict(), plain())
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    sync = options.get('norm_cfg') == dict(type='SyncBN')
    assert len(norms) == 4 + 3 and all(isinstance(m, nn.SyncBatchNorm) == sync for m in norms)


def test_one_file_in_both_forms_of_attention():
    """On a map of one row the two are equal; a file does not say in which it was trained."""
    state, x = published(), torch.randn(2, 3, 32, 150, dtype=torch.float64)
    maps = []
    for last in ('decomposed', 'whole'):
        model = RMT(TINY, attention=['whole', 'decomposed', 'whole', last], out_norm=None)
        load_published(model, state)
        with torch.no_grad():
            maps.append(model.double().eval()(x))
    assert maps[0][3].shape == (2, 32, 1, 5)
    for a, b in zip(*maps):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * a.std().item())


def test_in_any_order():
    """As of files that other tools have sorted, keys before queries."""
    state = published()
    for order in (sorted(state), sorted(state, reverse=True)):
        model = RMT(TINY, out_norm=None)
        load_published(model, {name: state[name] for name in order})
        assert same(model.state_dict(), plain())


def test_token_label_checkpoints(log):
    model = RMT(TINY, out_norm=None)
    report = load_published(model, dict(model=published(aux_head=True)))
    assert {'aux_head.weight', 'aux_head.bias'} < set(report.unused)
    assert 'aux_head.weight, aux_head.bias' in log.messages[-1]
    assert same(model.state_dict(), plain())


@pytest.mark.parametrize('name', ['angle', 'decay', 'index', 'sin', 'cos'])
def test_constants_are_ignored_whatever_they_hold(name):
    model, name = RMT(TINY, out_norm=None), f'layers.1.Relpos.{name}'
    report = load_published(model, {**published(), name: torch.full((3, 5), float('nan'))})
    assert same(model.state_dict(), plain())
    assert name in report.unused
    without = {n: tensor for n, tensor in published().items() if '.Relpos.' not in n}
    report = load_published(model, without)
    assert same(model.state_dict(), plain())
    assert not any('Relpos' in n for n in report.unused)


@pytest.mark.parametrize('way', ['model', 'ddp', 'file', 'init_cfg', 'list'])
def test_every_way_gives_the_same(way, tmp_path):
    state, path = published(), tmp_path / 'RMT-T.pth'
    model = RMT(TINY, out_norm=None)
    if way == 'model':
        load_published(model, dict(model=state, epoch=300))
    elif way == 'ddp':
        load_published(model, {f'module.{name}': tensor for name, tensor in state.items()})
    else:
        torch.save(dict(model=state), path)
        if way == 'file':
            assert load_published(model, str(path)).source == str(path)
        else:
            init_cfg = dict(type='Pretrained', checkpoint=str(path))
            init_cfg = [init_cfg] if way == 'list' else init_cfg
            model = RMT(TINY, out_norm=None, init_cfg=init_cfg)
            model.init_weights()
    assert same(model.state_dict(), plain())


def test_only_output_norms_start_new(log):
    model = RMT(TINY, out_indices=(1, 3))
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, published())
    new = [f'out_norms.{i}.{leaf}' for i in (1, 3) for leaf in ('weight', 'bias')]
    assert report.new == new and not log.warnings
    state = model.state_dict()
    assert same(state, {**plain(), **{name: before[name] for name in new}})


def test_the_log_is_short(log):
    """Of a thousand tensors, those whose names differ in numbers are one entry."""
    names = published_shapes(ARCHS['base'], aux_head=True)
    with torch.device('meta'):
        model = RMT('base')
        state = {name: torch.empty(shape) for name, shape in names.items()}
    report = load_published(model, state)
    assert log.messages[-1] == str(report) and not log.warnings
    lines = str(report).splitlines()
    start = 'a state dict: published RMT weights'
    assert lines[0] == f'{start}, {len(report.loaded)} tensors loaded'
    assert lines[1] == '  new: out_norms.*.weight, out_norms.*.bias'
    assert lines[2].startswith(
        '  unused: layers.*.Relpos.angle, layers.*.Relpos.decay, aux_head.weight'
    )
    assert len(lines) == 3 and len(lines[2]) < 300


# Our own.


@pytest.mark.parametrize('wrap', ['plain', 'backbone', 'ddp', 'file'])
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(arch=dict(UNSCALED, stem='patch', downsample='patch'), out_norm='inline'),
        dict(arch=dict(TINY, cpe=False, lce=False, ffn_conv=False), out_norm=None),
    ],
    ids=['defaults', 'as Swin', 'without convolutions'],
)
def test_our_own_reload_exactly(options, wrap, tmp_path):
    saved = trained(**options)
    state = saved.state_dict()
    if wrap == 'backbone':
        state = {f'backbone.{name}': tensor for name, tensor in state.items()}
        state = dict(state_dict={**state, 'neck.weight': torch.ones(2)}, optimizer={})
    elif wrap == 'ddp':
        state = {f'module.{name}': tensor for name, tensor in state.items()}
    elif wrap == 'file':
        torch.save(dict(state_dict=state), tmp_path / 'ours.pth')
        state = tmp_path / 'ours.pth'
    model = RMT(**{'arch': TINY, **options})
    report = load_published(model, state)
    assert same(model.state_dict(), saved.state_dict())
    assert report.kind == 'mmvitbackbones'
    assert report.unused == (['neck.weight'] if wrap == 'backbone' else [])
    assert not report.new and not report.resized


@pytest.mark.parametrize('kinds', [('BN', 'SyncBN'), ('SyncBN', 'BN')])
def test_our_own_from_one_gpu_to_several_and_back(kinds):
    saved, model = (RMT(TINY, norm_cfg=dict(type=kind)) for kind in kinds)
    saved.load_state_dict(trained().state_dict())
    report = load_published(model, saved.state_dict())
    assert same(model.state_dict(), saved.state_dict())
    assert sum(name.endswith('.num_batches_tracked') for name in report.loaded) == 4 + 3


def test_in_a_detector(tmp_path):
    """Built and initialised as a Runner does it, saved, and its backbone loaded again."""
    file = str(tmp_path / 'RMT-T.pth')
    torch.save(dict(model=published(extra_norms=True, aux_head=True)), file)
    backbone = RMT(TINY)
    load_published(backbone, file)
    cfg = Config.fromfile('configs/retinanet_regionvit_s_1x.py').model
    init_cfg = dict(type='Pretrained', checkpoint=file)
    cfg.backbone = dict(type='RMT', arch=TINY, norm_eval=True, init_cfg=init_cfg)
    cfg.neck.update(in_channels=TINY['dims'], out_channels=8)
    cfg.bbox_head.update(num_classes=2, in_channels=8, feat_channels=8)
    with DefaultScope.overwrite_default_scope('mmdet'):
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules

        register_all_modules(init_default_scope=False)
        detector = MODELS.build(cfg)
        detector.init_weights()
    assert same(detector.backbone.state_dict(), backbone.state_dict())
    torch.save(dict(state_dict=detector.state_dict(), meta={}), file)
    model = RMT(TINY)
    report = load_published(model, file)
    assert same(model.state_dict(), backbone.state_dict())
    assert report.kind == 'mmvitbackbones' and not report.new
    others = [n for n in detector.state_dict() if not n.startswith('backbone.')]
    assert others and report.unused == others


# What is wrong.


def wrong_weights():
    def drop(*names, start=None):
        return {n: t for n, t in (start or published()).items() if n not in names}

    def change(name, *shape):
        return {**published(), name: torch.ones(shape)}

    block = 'layers.1.blocks.1'
    q, k, v = (f'{block}.retention.{n}_proj' for n in 'qkv')
    our_qk, scale = 'stages.1.blocks.1.attn.qk', 'stages.1.blocks.1.residual2.scale'
    deeper, wider = dict(TINY, depths=[1, 2, 3, 1]), dict(TINY, dims=[8, 16, 32, 32])
    longer = {**published(), **{f'{n}.weight': torch.ones(17, 16) for n in (q, k)}}
    wider_ffn = dict(TINY, mlp_ratios=[2, 1, 3, 2])
    depths, channels = 'depths 1, 2, 1, 1', 'channels 8, 16, 16, 32'
    ours, no_file = RMT(TINY).state_dict(), ['neither published RMT', 'nor our own']
    stem_norm, reduction = 'patch_embed.proj.10', 'layers.2.downsample.reduction'
    classifier = {n: t for n, t in published().items() if n.startswith(CLASSIFIER)}
    return [
        ('missing', drop(f'{block}.pos.conv.bias'), ['1 missing', '.1.blocks.1.cpe.conv.bias']),
        ('no statistics', drop(f'{stem_norm}.running_var'), ['1 missing', 'stem.10.running_var']),
        ('no count', drop(f'{stem_norm}.num_batches_tracked'), ['1 missing', 'stem.10.num_batch']),
        ('no downsample', drop(f'{reduction}.weight'), ['stages.3.downsample.conv.weight']),
        ('no gamma', drop(f'{block}.gamma_2'), ['1 missing', scale]),
        ('unexpected', change('extra.weight', 2), ['1 unexpected', 'extra.weight']),
        ('in a block', change(f'{block}.retention.g_proj.weight', 2), ['1 unexpected', 'g_proj']),
        ('queries only', drop(f'{k}.weight'), [f'there is {q}.weight, but no {k}.weight']),
        ('no bias of keys', drop(f'{k}.bias'), [f'there is {q}.bias, but no {k}.bias']),
        ('keys only', drop(f'{q}.bias'), ['1 missing', f'{our_qk}.bias']),
        ('neither', drop(f'{q}.weight', f'{k}.weight'), ['1 missing', f'{our_qk}.weight']),
        ('queries and keys', longer, [f'{our_qk}.weight', '(34, 16)', '(32, 16)']),
        ('values', change(f'{v}.bias', 9), ['.attn.v.bias', '(9,)', '(16,)']),
        ('lepe', change(f'{block}.retention.lepe.conv.weight', 16, 1, 3, 3), ['.lce.weight']),
        ('gamma', change(f'{block}.gamma_2', 1, 1, 1, 15), [scale, '(15,)', '(16,)']),
        ('statistics', change(f'{stem_norm}.running_mean', 9), ['stem.10.running_mean', '(9,)']),
        ('ffn', published(wider_ffn), ['stages.3.blocks.0.ffn', '(64, 32)', '(32, 32)']),
        ('depth', published(deeper), ['depths 1, 2, 3, 1', depths, channels, 'Set arch']),
        ('width', published(wider), ['channels 8, 16, 32, 32', channels, depths, 'Set arch']),
        ('our depth', RMT(deeper).state_dict(), ['depths 1, 2, 3, 1', depths, 'Set arch']),
        ('no LayerScale', published(UNSCALED), ['6 missing', '.1.blocks.0.residual1.scale']),
        ('our queries', {**ours, f'{our_qk}.bias': torch.ones(16)}, [our_qk, '(16,)', '(32,)']),
        ('our statistics', drop('stem.1.running_mean', start=ours), ['1 missing', 'stem.1.runn']),
        ('our regionvit', RegionViT(REGIONVIT).state_dict(), ['same family, arch and options']),
        ('no queries, no keys', drop(*(n for n in published() if '.q_proj.' in n)), no_file),
        ('classifier', classifier, [*no_file, 'proj.weight', '9 tensors']),
        ('empty', {}, ['no tensor at all']),
    ]


def check_refusal(model, state, words):
    """A ValueError with these words; the model, its buffers too, is left as it was."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError) as error:
        load_published(model, state)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize(
    'state, words', [pytest.param(*case, id=name) for name, *case in wrong_weights()]
)
def test_wrong_weights_change_nothing(state, words):
    check_refusal(RMT(TINY), state, words)


@pytest.mark.parametrize(
    'q, k',
    [((16, 16), (16, 15)), ((16, 16), (256,)), ((), ()), ((17, 16), (15, 16))],
    ids=['channels', 'dimensions', 'numbers', 'sum'],
)
def test_queries_and_keys_that_do_not_fit_each_other(q, k):
    """Of which the sum may fit."""
    state = published()
    for n, shape in (('q', q), ('k', k)):
        state[f'layers.1.blocks.1.retention.{n}_proj.weight'] = torch.ones(shape)
    check_refusal(RMT(TINY), state, ['layers.1.blocks.1.retention.', '_proj.weight'])


@pytest.mark.parametrize(
    'arch, options, words',
    [
        (UNSCALED, dict(), ['6 unexpected', 'stages.1.blocks.0.residual1.scale']),
        (dict(TINY, downsample='patch'), dict(), ['stages.1.downsample.conv.weight', '(16, 8, 3']),
        (TINY, dict(norm_cfg=dict(type='GN', num_groups=2)), ['21 unexpected', 'stem.1.running']),
        (TINY, dict(out_norm=None), ['8 unexpected', 'out_norms.0.weight', 'set out_norm']),
    ],
    ids=['LayerScale', 'downsample', 'norm_cfg', 'out_norm'],
)
def test_what_the_model_has_no_place_for(arch, options, words):
    norms = dict(extra_norms=True) if 'out_norm' in options else {}
    check_refusal(RMT(arch, **options), published(**norms), words)


@pytest.mark.parametrize(
    'case, family',
    [('regionvit_tiny_cls', 'RegionViT'), ('focal_tiny_cls', 'Focal Transformer')],
)
def test_weights_of_another_family(case, family):
    keys = golden_cases.GoldenCase(case).keys
    state = {name: torch.zeros(()).expand(shape) for name, (shape, _) in keys.items()}
    check_refusal(RMT(TINY), state, [f'a state dict holds {family} weights, the model is RMT'])


@pytest.mark.parametrize(
    'model, family',
    [(RegionViT(REGIONVIT), 'RegionViT'), (FocalTransformer(FOCAL), 'Focal Transformer')],
    ids=['RegionViT', 'FocalTransformer'],
)
def test_in_a_model_of_another_family(model, family):
    check_refusal(model, published(), [f'a state dict holds RMT weights, the model is {family}'])


def test_the_message_names_the_file(tmp_path):
    path = tmp_path / 'RMT-X.pth'
    torch.save(dict(model=published(dict(TINY, depths=[1, 1, 1, 1]))), path)
    with pytest.raises(ValueError, match='RMT-X.pth is of another arch'):
        load_published(RMT(TINY), path)


def test_the_message_names_the_file_when_names_are_missing(tmp_path):
    state = published()
    del state['layers.0.blocks.0.retention.k_proj.weight']
    torch.save(state, tmp_path / 'cut.pth')
    with pytest.raises(ValueError, match='cut.pth: there is .*q_proj.weight, but no .*k_proj'):
        load_published(RMT(TINY), tmp_path / 'cut.pth')


# What an arch switches off.


@without
@pytest.mark.parametrize('as_published', [True, False])
def test_what_is_switched_off_is_unused(parts, left_out, new, as_published, log):
    model = RMT(dict(TINY, **parts), out_norm=None, drop_path_rate=0)
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, published() if as_published else plain())
    expected = {name for name in plain() if re.fullmatch(left_out, name)}
    others = {n for n in published() if n.startswith(CLASSIFIER) or '.Relpos.' in n}
    assert expected and set(report.unused) == expected | (others if as_published else set())
    assert report.new == [name for name in before if re.fullmatch(new, name)]
    assert bool(report.new) == bool(new) == bool(log.warnings)
    assert all('stem.conv.weight' in text for text in log.warnings)
    kept = {name: tensor for name, tensor in plain().items() if name not in expected}
    assert same(model.state_dict(), {**kept, **{name: before[name] for name in report.new}})


@without
def test_what_no_switch_explains_is_refused(parts, left_out, new):
    """A tensor that is missing elsewhere, or that is not of the part that is switched off."""
    model, state = RMT(dict(TINY, **parts)), published()
    ours = RMT(dict(TINY, **parts)).state_dict()
    value = 'layers.1.blocks.1.retention.v_proj.bias'
    check_refusal(model, {**state, 'extra.weight': state[value]}, ['1 unexpected', 'extra.weight'])
    del state[value]
    check_refusal(model, state, ['1 missing (stages.1.blocks.1.attn.v.bias)'])
    for name in [name for name in ours if re.fullmatch(new, name)]:
        less = {n: tensor for n, tensor in ours.items() if n != name}
        check_refusal(model, less, [f'1 missing ({name})'])
    # Back, there is nothing to fill the part with.
    gone = sum(re.fullmatch(left_out, name) is not None for name in plain())
    check_refusal(RMT(TINY), ours, [f'{gone} missing'])


@pytest.mark.parametrize(
    'name', ['stem.12.weight', 'stages.0.blocks.0.cpe.other', 'stages.0.blocks.0.attn.lce.norm']
)
def test_more_of_a_part_than_the_model_has(name):
    """Which it has, so that nothing is switched off."""
    words = ['1 unexpected', name]
    check_refusal(RMT(TINY), {**RMT(TINY).state_dict(), name: torch.ones(8)}, words)


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3)])
def test_backbone_of_a_published_detector(out_indices):
    """Its names are the classifier's after a prefix; norms of stages not emitted are left."""
    state = published(extra_norms=True)
    backbone = {
        f'backbone.{name}': tensor
        for name, tensor in state.items()
        if not name.startswith(CLASSIFIER)
    }
    model, alone = (RMT(TINY, out_indices=out_indices) for _ in range(2))
    report = load_published(model, {'state_dict': {**backbone, 'neck.conv.weight': torch.ones(1)}})
    load_published(alone, state)
    assert report.kind == 'published RMT' and not report.new
    assert 'neck.conv.weight' in report.unused
    assert ('out_norms.0.weight' in report.unused) == (0 not in out_indices)
    assert same(model.state_dict(), alone.state_dict())
    with pytest.raises(ValueError, match='set out_norm'):
        load_published(RMT(TINY, out_norm=None), state)
