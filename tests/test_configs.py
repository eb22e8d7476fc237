"""The configs are the papers' rows, and their options reach the backbone.

Tables have a config a line, or a pattern of configs' names: the first that fits holds.
"""

import ast
import copy
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import golden_cases
import pytest
import torch
from mmengine.hub import get_config as get_toolbox_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch.nn.modules.batchnorm import _BatchNorm

pytest.importorskip('mmdet')

from mmvitbackbones.checkpoints.family import published_by
from mmvitbackbones.running import load_config
from mmvitbackbones.zoo import get_config, head_of, read_zoo
from mmvitbackbones.zoo.audit import disagreements, measure_row
from mmvitbackbones.zoo.complexity import measure

CONFIGS = Path(__file__).parents[1] / 'configs'
ZOO = read_zoo()
CLASSIFIERS = [name for name in ZOO.rows if head_of(name) == 'cls']
SEGMENTERS = [name for name in ZOO.rows if head_of(name) in ('semfpn', 'upernet')]
DETECTORS = [name for name in ZOO.rows if name not in (*CLASSIFIERS, *SEGMENTERS)]
# One for each head of each family, the smallest, and what an ablation changes in training.
SMALLEST = [
    *('retinanet_regionvit_s_1x', 'maskrcnn_regionvit_s_3x', 'semfpn_regionvit_s_80k'),
    *('retinanet_focal_t_1x', 'maskrcnn_focal_t_3x', 'upernet_focal_t_160k'),
    *('retinanet_rmt_t_1x', 'maskrcnn_rmt_s_1x', 'semfpn_rmt_t_80k', 'upernet_rmt_s_160k'),
    *('cascade_maskrcnn_rmt_s_3x', 'retinanet_vil_s_1x', 'maskrcnn_vil_s_3x', 'semfpn_vil_s_80k'),
    *('htc_vil_s_1x', 'atss_focal_t_3x', 'sparsercnn_focal_t_3x'),
    *('maskrcnn_regionvit_s_without_regional_1x', 'maskrcnn_rmt_t_plain_attention_1x'),
]


def table(text):
    """Read a table: a function from a config's name to its line; '-' is None."""
    head, *lines = (line.split() for line in text.strip().splitlines())
    assert all(len(line) == len(head) for line in lines)

    def value(cell):
        try:
            return None if cell == '-' else ast.literal_eval(cell)
        except (SyntaxError, ValueError):
            return cell

    def line_of(name):
        line = next(line for line in lines if re.fullmatch(line[0], name))
        return SimpleNamespace(**dict(zip(head[1:], map(value, line[1:]))))

    return line_of


@cache
def cached(name):
    return get_config(name)


def read(name):
    """Read a config, to be changed freely, and make its toolbox that of models to build."""
    cfg = copy.deepcopy(cached(name))
    pytest.importorskip(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    return cfg


def build(cfg):
    with torch.device('meta'):
        return MODELS.build(cfg.model)


# Backbones. RegionViT: Table 2, App. A. Focal: Table 1, Sec. 4. RMT: Table 10, Sec. 4.1.
# ViL: Table 1. And, of all, the published code, as far as there is one.

BACKBONE = table("""
config                   arch         channels             drop_path  weights
.*_regionvit_s_plus_.*   small_plus   96,192,384,768       0.2        RegionViT-S
.*_regionvit_s_.*        small        96,192,384,768       0.2        RegionViT-S
.*_regionvit_b_plus_.*   base_plus    128,256,512,1024     0.2        RegionViT-B
.*_regionvit_b_.*        base         128,256,512,1024     0.2        RegionViT-B
upernet_focal_t_.*       tiny         96,192,384,768       0.2        focal-tiny-useconv-is224-ws7
upernet_focal_s_.*       small        96,192,384,768       0.3        focal-small-useconv-is224-ws7
upernet_focal_b_.*       base         128,256,512,1024     0.5        focal-base-useconv-is224-ws7
.*_focal_t_.*            tiny         96,192,384,768       0.2        focal-tiny-is224-ws7
.*_focal_s_.*            small        96,192,384,768       0.3        focal-small-is224-ws7
.*_focal_b_.*            base         128,256,512,1024     0.5        focal-base-is224-ws7
.*_focal_l_.*            large        196,392,784,1568     0.5        focal-large-22k
.*_rmt_swin_t_.*         swin_tiny    96,192,384,768       0.1        RMT-Swin-T
.*_rmt_swin_s_.*         swin_small   96,192,384,768       0.15       RMT-Swin-S
.*_rmt_t_.*              tiny         64,128,256,512       0.1        RMT-T
.*_rmt_s_.*              small        64,128,256,512       0.15       RMT-S
.*_rmt_b_.*              base         80,160,320,512       0.4        RMT-B
.*_rmt_l_.*              large        112,224,448,640      0.5        RMT-L
.*_vil_t_3x              tiny         48,96,192,384        0.1        ViL-T-RPB
.*_vil_t_.*              tiny         48,96,192,384        0.05       ViL-T-RPB
retinanet_vil_s_1x       small        96,192,384,768       0.1        ViL-S-RPB
.*_vil_s_.*              small        96,192,384,768       0.2        ViL-S-RPB
.*_vil_m_3x              medium_deep  96,192,384,768       0.3        ViL-M-RPB
.*_vil_m_.*              medium_deep  96,192,384,768       0.2        ViL-M-RPB
.*_vil_b_.*              base_deep    96,192,384,768       0.3        ViL-B-RPB
""")
FAMILIES = dict(
    regionvit=dict(type='RegionViT'),
    focal=dict(type='FocalTransformer', focal_windows=(15, 13, 9, 7)),
    rmt=dict(type='RMT', norm_eval=True),
    vil=dict(type='VisionLongformer', out_norm=None),
)
# What else differs, of all configs whose names the pattern is found in.
DIFFERENCES = {
    '(retinanet|atss|dyhead)_(focal|rmt|vil)': dict(out_indices=(1, 2, 3)),
    '(upernet_focal|_focal_l)_': dict(use_conv_embed=True),
    '_peg_': dict(peg=True),
    '_focal_t_window14_': dict(window_size=14),
}
# Ablations: there are no weights of theirs.
ABLATIONS = {
    '_regionvit_s_without_regional_': dict(arch=dict(base='small', regional=False)),
    '_focal_t_window_': dict(expand_sizes=0, focal_windows=0),
    '_focal_t_local_': dict(focal_windows=0),
    '_focal_t_global_': dict(expand_sizes=0),
    '_focal_t_depth2_': dict(arch=dict(base='tiny', depths=(2, 2, 2, 2))),
    '_focal_t_depth4_': dict(arch=dict(base='tiny', depths=(2, 2, 4, 2))),
    '_rmt_t_plain_attention_': dict(decay=None),
    '_rmt_t_without_lce_': dict(arch=dict(base='tiny', lce=False)),
    '_rmt_t_without_cpe_': dict(arch=dict(base='tiny', cpe=False)),
    '_rmt_t_without_stem_': dict(arch=dict(base='tiny', stem='patch')),
    '_rmt_s_whole_': dict(attention=('decomposed', 'decomposed', 'whole', 'whole')),
}


def family_of(name):
    return re.search('regionvit|focal|rmt|vil', name)[0]


@pytest.mark.parametrize('name', [*DETECTORS, *SEGMENTERS])
def test_backbone(name):
    line, model = BACKBONE(name), read(name).model
    expected = dict(FAMILIES[family_of(name)], arch=line.arch, drop_path_rate=line.drop_path)
    for pattern, options in {**DIFFERENCES, **ABLATIONS}.items():
        expected.update(options if re.search(pattern, name) else {})
    backbone = model.backbone.to_dict()
    init = backbone.pop('init_cfg')
    assert backbone == expected
    assert init['type'] == 'Pretrained' and init['checkpoint'].startswith('checkpoints/')
    ablation = any(re.search(pattern, name) for pattern in ABLATIONS)
    assert (init['checkpoint'] == f'checkpoints/{line.weights}.pth') != ablation
    start = Path(init['checkpoint']).name
    assert ZOO.rows[name].start == start
    # Of Focal-L and RMT-Swin nobody published weights.
    assert bool(published_by(start)) != (ablation or bool(re.search('_focal_l_|_swin_', name)))

    channels = [line.channels[i] for i in expected.get('out_indices', range(4))]
    neck = model.get('neck', model.get('decode_head'))
    assert list((neck[0] if isinstance(neck, list) else neck).in_channels) == channels
    if 'upernet' in name:
        auxiliary = model.auxiliary_head
        assert auxiliary.in_channels == channels[auxiliary.in_index]


# What does not decay. In classifiers, as in DeiT, all but layers' weights and RMT's layer scales,
# which are published with four axes. Else norms and, as in Swin, Focal's tables of position biases;
# RMT's norms do in RetinaNet. Of ViL's detectors and of Semantic FPN no exceptions are known.

SPARED = table("""
config             spared
cls_.*             all_but_weights
semfpn_focal_.*    norms_and_tables
semfpn_.*          nothing
retinanet_rmt_.*   nothing
upernet_focal_.*   norms_and_tables
upernet_.*         norms
.*_vil_.*          nothing
.*_focal_.*        norms_and_tables
.*                 norms
""")
NORMS = (torch.nn.LayerNorm, torch.nn.GroupNorm, _BatchNorm)


def is_spared(spared, path, module, leaf):
    """Whether a parameter does not decay."""
    if spared == 'all_but_weights':
        layer = isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) or path.endswith('.pool')
        return not (leaf == 'weight' and layer) and leaf != 'scale'
    return (spared == 'norms_and_tables' and leaf == 'table') or (
        spared != 'nothing' and isinstance(module, NORMS)
    )


def assert_decay(model, cfg, spared):
    wrapper, settings = build_optim_wrapper(model, cfg.optim_wrapper), cfg.optim_wrapper.optimizer
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                decay = 0 if is_spared(spared, path, module, leaf) else settings.weight_decay
                found = {key: groups[id(parameter)][key] for key in ('weight_decay', 'lr')}
                assert found == dict(weight_decay=decay, lr=settings.lr), f'{path}.{leaf}'


# Models, built without numbers.


@pytest.mark.parametrize('name', ZOO.rows)
def test_model(name):
    """It has as many parameters as the zoo says, and of these decay what shall."""
    cfg, convention = read(name), ZOO.convention(name)
    model = build(cfg)
    params = sum(
        parameter.numel()
        for key, parameter in model.named_parameters()
        if convention.semantic or 'semantic_head' not in key
    )
    if convention.classifier:
        channels = cfg.model.neck.in_channels[-1]
        params += 2 * channels + (channels + 1) * 1000
    assert round(params / 1e6, 2) == ZOO.rows[name].ours['params']
    assert_decay(model, cfg, SPARED(name).spared)


def test_tables_of_position_biases():
    """Those that do not decay: in a classifier by ViL, too."""
    tables = {
        key.split('.')[-2]
        for key, _ in build(read('maskrcnn_focal_t_1x')).named_parameters()
        if key.endswith('.table')
    }
    assert tables == {'bias', 'surroundings', 'coarse_bias'}
    cfg = read('cls_vil_t_in1k')
    cfg.model.backbone.position = 'rpb'
    assert_decay(build(cfg), cfg, 'all_but_weights')


def is_smallest(name):
    """Whether no other row has a smaller model of the kind, or trains it for a shorter time."""
    smaller = [name.replace('_s_', f'_{size}_') for size in ('t', 'ti') if '_s_' in name]
    shorter = [f'{name[:-3]}_1x'] if name.endswith('_3x') else []
    small = re.match('_(ti|t|s|swin_t)_', name.partition(family_of(name))[2])
    alone = name == 'dyhead_focal_l_2x'  # no small one has its head
    return alone or (small and not {*smaller, *shorter} & {*ZOO.rows})


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=() if is_smallest(n) else pytest.mark.sweep) for n in ZOO.rows]
)
def test_row(name):
    """As ``tools/complexity.py --check``."""
    pytest.importorskip(cached(name).default_scope)
    row = ZOO.rows[name]
    params, gmacs = measure_row(name, ZOO, cached(name))
    assert dict(params=round(params, 2), gmacs=round(gmacs, 1)) == row.ours
    assert bool(disagreements(row, params, gmacs)) == bool(row.unfit)


@pytest.mark.parametrize(
    'name, size, products, gmacs',
    [
        ('maskrcnn_vil_s_1x', (672, 1120), True, 172.3),  # 174.3 in RegionViT's and Focal's papers
        ('retinanet_vil_s_1x', (800, 1333), False, 254.3),  # 252.2
    ],
)
def test_what_other_papers_say_of_vil(name, size, products, gmacs):
    """No one convention gives both: these are the nearest."""
    model = measure(cached(name), size, masks=0)['model']
    assert round(model.gmacs + products * model.products, 1) == gmacs


@pytest.mark.parametrize(
    'name', [name for name in SMALLEST if re.match('retina|maskrcnn|cascade', name)]
)
def test_all_of_the_backbone_learns(name):
    """Distributed training refuses parameters that get no gradient."""
    model = build(read(name))
    with torch.device('meta'):
        maps = model.extract_feat(torch.empty(1, 3, 64, 96))
        sum(m.square().mean() for m in maps).backward()
    assert [n for n, p in model.backbone.named_parameters() if p.grad is None] == []


# Detectors' training. RegionViT: App. A.2, and the published code's warm-up and multi-scale
# training. Focal: Sec. 4.2. RMT: Sec. 4.1 and 4.2, App. B, and the published code's warm-up.
# ViL: published code; no warm-up is known, mmdetection's is taken.

DETECTION = table("""
config                    warmup  rate  decay  clip
sparsercnn_focal_t_3x     500     1e-4  0.05   1
dyhead_focal_l_2x         500     5e-5  0.05   -
htc_focal_l_3x            1000    1e-4  0.1    -
.*_focal_.*               1000    1e-4  0.05   -
.*_regionvit_.*           1000    1e-4  0.05   -
retinanet_rmt_.*          500     1e-4  1e-4   -
.*_rmt_.*                 500     1e-4  0.05   -
.*_vil_.*                 500     1e-4  0.05   0.5
""")
SCHEDULE = table("""
config                loop                last    falls          times
.*_regionvit_.*_3x    IterBasedTrainLoop  270000  210000,250000  1
.*_3x                 EpochBasedTrainLoop 36      27,33          1
.*_2x                 EpochBasedTrainLoop 12      8,11           2
.*_1x                 EpochBasedTrainLoop 12      8,11           1
""")
# The size of tested images. In multi-scale training the longer side is the same, but for HTC++, and
# the shorter one any of a range, or one of a list: then for half of the images after DETR's crop.
IMAGES = table("""
config                     size       shorter_sides            longer_side
htc_focal_l_3x             1333,800   any,400,1400             1600
dyhead_focal_l_2x          2000,1200  any,480,1200             2000
sparsercnn_focal_t_3x      1333,800   list,480,800             1333
.*_regionvit_.*_896_3x     1344,896   list,480,896             1344
.*_regionvit_.*_896_1x     1344,896   -                        -
.*_regionvit_.*_3x         1120,672   list,480,896             1120
.*_regionvit_.*_1x         1120,672   -                        -
.*_rmt_.*_3x               1333,800   list,480,800             1333
.*_3x                      1333,800   any,480,800              1333
.*_1x                      1333,800   -                        -
""")
MASKS = ('maskrcnn', 'cascade_maskrcnn', 'htc')


def dataset(loader):
    """A loader's data set, inside what repeats it."""
    return loader.dataset.get('dataset', loader.dataset)


def steps(loader):
    return {step.type: step for step in dataset(loader).pipeline}


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_optimizer(name):
    cfg, line = cached(name), DETECTION(name)
    optimizer = dict(cfg.optim_wrapper.optimizer)
    optimizer.pop('betas', None)
    assert optimizer == dict(type='AdamW', lr=line.rate, weight_decay=line.decay)
    clip = cfg.optim_wrapper.get('clip_grad')
    assert (clip and clip.max_norm) == line.clip
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_schedule(name):
    cfg, line = cached(name), SCHEDULE(name)
    warmup, falls = cfg.param_scheduler
    expected = (0.001, DETECTION(name).warmup, False)
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == expected
    by_epoch = line.loop == 'EpochBasedTrainLoop'
    assert cfg.train_cfg.type == line.loop and falls.by_epoch == by_epoch
    length = cfg.train_cfg.max_epochs if by_epoch else cfg.train_cfg.max_iters
    assert falls.milestones == [*line.falls] and falls.end == length == line.last
    assert cfg.train_dataloader.dataset.get('times', 1) == line.times
    if not by_epoch:
        assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval
        assert not cfg.default_hooks.checkpoint.by_epoch and not cfg.log_processor.by_epoch


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_images(name):
    cfg, line = cached(name), IMAGES(name)
    tested, trained = steps(cfg.test_dataloader), steps(cfg.train_dataloader)
    assert tested['Resize'].scale == line.size and tested['Resize'].keep_ratio
    assert trained['RandomFlip'].prob == 0.5
    assert ('InstaBoost' in trained) == (name == 'htc_focal_l_3x')
    if line.shorter_sides is None:
        assert trained['Resize'].scale == line.size and trained['Resize'].keep_ratio
        return
    kind, least, most = line.shorter_sides.split(',')
    if kind == 'any':
        scale = [(line.longer_side, int(side)) for side in (least, most)]
        assert trained['RandomResize'].scale == scale and trained['RandomResize'].keep_ratio
        return
    (resize,), (smaller, crop, again) = trained['RandomChoice'].transforms
    assert resize == again and resize.keep_ratio and smaller.keep_ratio
    assert resize.scales == [(s, line.longer_side) for s in range(int(least), int(most) + 1, 32)]
    assert smaller.scales == [(side, 1333) for side in (400, 500, 600)]
    assert (crop.crop_type, crop.crop_size) == ('absolute_range', (384, 600))


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_annotations(name):
    cfg, masks = cached(name), head_of(name) in MASKS
    annotations = steps(cfg.train_dataloader)['LoadAnnotations']
    assert annotations.with_bbox and annotations.get('with_mask', False) == masks
    assert annotations.get('with_seg', False) == (head_of(name) == 'htc')
    assert cfg.val_evaluator.metric == (['bbox', 'segm'] if masks else 'bbox')
    assert cfg.test_evaluator.metric == cfg.val_evaluator.metric


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_views(name):
    """Of test-time augmentation."""
    cfg, scales, nms = cached(name), [(1333, 800), (666, 400), (2000, 1200)], 'nms'
    if name == 'htc_focal_l_3x':
        scales = [(1600, side) for side in (400, 600, 800, 1000, 1200, 1400)]
        nms = 'soft_nms'
    assert cfg.tta_model.type == 'InstanceTTAModel' and cfg.tta_model.tta_cfg.nms.type == nms
    load, views = cfg.tta_pipeline
    assert (load.type, views.type) == ('LoadImageFromFile', 'TestTimeAug')
    resizes, flips, *_ = views.transforms
    assert [resize.scale for resize in resizes] == scales
    assert [flip.prob for flip in flips] == [0.0, 1.0]


# Detectors' heads.


@pytest.mark.parametrize('name', [name for name in DETECTORS if 'cascade' in name])
def test_cascade_has_the_heads_of_swin(name):
    """Four convolutions, one linear layer, a box for each class, a loss of the boxes."""
    heads = cached(name).model.roi_head.bbox_head
    for head, std in zip(heads, (0.1, 0.05, 0.033), strict=True):
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == ('ConvFCBBoxHead', 4, 1)
        assert not head.reg_class_agnostic and head.reg_decoded_bbox
        assert (head.conv_out_channels, head.fc_out_channels) == (256, 1024)
        assert head.norm_cfg.type == 'SyncBN'
        assert head.bbox_coder.target_means == [0.0, 0.0, 0.0, 0.0]
        assert head.bbox_coder.target_stds[:2] == [std, std]
        assert head.bbox_coder.target_stds[2:] == pytest.approx([2 * std, 2 * std], rel=0.02)
        assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ('GIoULoss', 10.0)


@pytest.mark.parametrize(
    'ours, theirs',
    [
        *((name, 'htc/htc_r50_fpn_1x_coco') for name in DETECTORS if name.startswith('htc')),
        ('atss_focal_t_3x', 'atss/atss_r50_fpn_1x_coco'),
        ('dyhead_focal_l_2x', 'dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco'),
        (
            'sparsercnn_focal_t_3x',
            'sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco',
        ),
    ],
)
def test_heads_are_mmdetections(ours, theirs):
    """All but backbone, neck's inputs and, for HTC++, soft-NMS (Focal, Sec. 4.2)."""
    name, ours, theirs = ours, read(ours), get_toolbox_config(f'mmdet::{theirs}.py')
    if name.startswith('htc'):
        plusplus = ours.model.test_cfg.rcnn.nms.pop('type')
        assert plusplus == ('soft_nms' if name == 'htc_focal_l_3x' else 'nms')
        del theirs.model.test_cfg.rcnn.nms.type
        prefixes = [cfg.train_dataloader.dataset.data_prefix for cfg in (ours, theirs)]
        assert prefixes[0] == prefixes[1]
    assert comparable(ours.model.to_dict()) == comparable(theirs.model.to_dict())


def comparable(node):
    """A model's config but for backbone, neck's inputs and defaults that are spelt out."""
    defaults = dict(
        _scope_='mmdet', pad_mask=False, with_conv_res=True, sampler=dict(type='PseudoSampler')
    )
    if isinstance(node, (list, tuple)):
        return [comparable(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {
        key: comparable(value)
        for key, value in node.items()
        if key != 'backbone' and not (key in defaults and defaults[key] == value)
    }
    if node.get('type') == 'MaxIoUAssigner':
        node.setdefault('match_low_quality', True)
    if node.get('type') == 'FPN':  # its first level is the same
        node = {k: v for k, v in node.items() if k not in ('in_channels', 'start_level')}
    return node


# Segmenters. RegionViT: App. A.3. Focal, RMT: Sec. 4.3; what is open as in Swin's UperNet, PVT's
# FPN.

SEGMENTATION = table("""
config                side  iterations  warmup  power  rate  decay
semfpn_regionvit_.*   448   80000       -       0.9    1e-4  0.05
semfpn_.*             512   80000       -       0.9    1e-4  1e-4
upernet_focal_l_.*    640   160000      1500    1.0    6e-5  0.01
upernet_.*            512   160000      1500    1.0    6e-5  0.01
""")


@pytest.mark.parametrize('name', SEGMENTERS)
def test_segmenters_optimizer_and_schedule(name):
    cfg, line = cached(name), SEGMENTATION(name)
    optimizer = dict(type='AdamW', lr=line.rate, weight_decay=line.decay)
    assert dict(cfg.optim_wrapper.optimizer) == optimizer
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
    *warmups, poly = cfg.param_scheduler
    assert (poly.type, poly.eta_min, poly.by_epoch) == ('PolyLR', 0.0, False)
    assert (poly.power, poly.begin) == (line.power, line.warmup or 0)
    assert poly.end == cfg.train_cfg.max_iters == line.iterations
    found = [(warmup.start_factor, warmup.end, warmup.by_epoch) for warmup in warmups]
    assert found == ([(1e-6, line.warmup, False)] if line.warmup else [])


@pytest.mark.parametrize('name', SEGMENTERS)
def test_segmenters_images(name):
    cfg, side = cached(name), SEGMENTATION(name).side
    crop = steps(cfg.train_dataloader)['RandomCrop']
    assert crop.crop_size == cfg.model.data_preprocessor.size == (side, side)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        pipeline = steps(loader)
        assert pipeline['LoadAnnotations'].reduce_zero_label
        assert pipeline.get('Resize', pipeline.get('RandomResize')).scale == (4 * side, side)
    assert cfg.model.test_cfg.mode == 'whole' and cfg.tta_model.type == 'SegTTAModel'
    resizes, flips, *_ = cfg.tta_pipeline[1].transforms
    ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert [r.scale for r in resizes] == [(int(4 * side * r), int(side * r)) for r in ratios]
    assert [flip.prob for flip in flips] == [0.0, 1.0]


@pytest.mark.parametrize('name', SEGMENTERS)
def test_segmenters_heads(name):
    model = cached(name).model
    assert model.decode_head.num_classes == 150
    if 'upernet' in name:
        assert model.auxiliary_head.num_classes == 150
    else:
        assert model.get('pretrained') is None


# Classifiers: backbone, neck and head, as each paper has them.

CLASSIFIER = table("""
config                arch         channels  drop_path
.*_regionvit_ti_.*    tiny         512       0.1
.*_regionvit_s_.*     small        768       0.1
.*_regionvit_m_.*     medium       768       0.1
.*_regionvit_b_.*     base         1024      0.1
.*_focal_t_.*         tiny         768       0.2
.*_focal_s_.*         small        768       0.2
.*_focal_b_.*         base         1024      0.3
.*_rmt_t_.*           tiny         512       0.1
.*_rmt_s_.*           small        512       0.15
.*_rmt_b_.*           base         512       0.4
.*_rmt_l_.*           large        640       0.5
.*_rmt_swin_t_.*      swin_tiny    768       0.1
.*_rmt_swin_s_.*      swin_small   768       0.15
.*_vil_t_.*           tiny         384       0.1
.*_vil_s_.*           small        768       0.1
.*_vil_md_.*          medium_deep  768       0.1
.*_vil_mw_.*          medium_wide  768       0.1
.*_vil_bd_.*          base_deep    768       0.1
.*_vil_bw_.*          base_wide    1024      0.1
""")
# By what is found in the config's name: options of the backbone.
CLASSIFIER_OPTIONS = {
    '': dict(out_indices=(3,), out_norm=None),
    '_regionvit_': dict(type='RegionViT', outputs='regional'),
    '_focal_': dict(type='FocalTransformer'),
    '_focal_t_conv_embed_': dict(use_conv_embed=True),
    '_rmt_': dict(type='RMT'),
    '_vil_': dict(type='VisionLongformer', position='ape', shift_mode=1),
    '_b_384_': dict(window_size=12),
    '_b_plus_384_': dict(window_size=24),
}
NECKS = dict(
    regionvit=dict(type='NormAndPool'),
    focal=dict(type='NormAndPool', eps=1e-5),
    rmt=dict(type='ProjectAndPool'),
    vil=dict(type='NormAndPool'),
)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifier(name):
    line, model = CLASSIFIER(name), read(name).model.to_dict()
    arch = line.arch + ('_plus' if '_plus_' in name else '')
    backbone = dict(arch=arch, drop_path_rate=line.drop_path)
    for part, options in CLASSIFIER_OPTIONS.items():
        backbone.update(options if part in name else {})
    assert model['backbone'] == backbone
    assert model['neck'] == dict(NECKS[family_of(name)], in_channels=line.channels)
    head, loss = model['head'], model['head']['loss']
    classes = 21841 if name.endswith('in21k') else 1000
    assert (head['type'], head['num_classes']) == ('LinearClsHead', classes)
    assert head['in_channels'] == (1024 if family_of(name) == 'rmt' else line.channels)
    assert (loss['type'], loss['label_smooth_val']) == ('LabelSmoothLoss', 0.1)
    augments = {augment['type']: augment['alpha'] for augment in model['train_cfg']['augments']}
    assert augments == dict(Mixup=0.8, CutMix=1.0)


@pytest.mark.parametrize('name', [name for name in CLASSIFIERS if '_384_' in name])
def test_finetuning_starts_from_imagenet_21k(name):
    file = Path(cached(name).load_from)
    assert file.parts[:2] == ('work_dirs', name.replace('384_in1k', 'in21k'))
    assert file.stem == f'epoch_{cached(file.parts[1]).train_cfg.max_epochs}'


# Classifiers' training. RegionViT: Table A1. Focal: Sec. 4.1. RMT: App. B. ViL: its rate and
# shifts, else DeiT's. The warm-up starts from a rate of its own; a batch is that of all GPUs.

CLASSIFICATION = table("""
config                     epochs  batch  gpus  rate  warmup  start  decay  clip
cls_regionvit_.*_in21k     120     4096   32    1e-3  5       1e-6   0.01   -
cls_regionvit_.*_384_in1k  30      1024   32    2e-4  -       -      1e-8   -
cls_regionvit_.*           300     4096   32    4e-3  50      1e-6   0.05   -
cls_focal_.*               300     1024   8     1e-3  20      1e-5   0.05   5.0
cls_rmt_.*                 300     1024   8     1e-3  5       1e-6   0.05   -
cls_vil_.*                 300     1024   8     5e-4  5       1e-6   0.05   -
""")
CLASSIFIED = table("""
config                     side  tested_from  erasing  sampler           hook
cls_regionvit_.*_384_in1k  384   384          0.25     RepeatAugSampler  -
cls_regionvit_ti_.*        224   256          0.25     DefaultSampler    -
cls_regionvit_.*           224   256          0.25     RepeatAugSampler  -
cls_focal_.*               224   256          -        DefaultSampler    -
cls_rmt_.*                 224   256          0.25     DefaultSampler    EMAHook
cls_vil_.*                 224   256          0.25     DefaultSampler    RandomShiftHook
""")


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifiers_optimizer_and_schedule(name):
    cfg, line = cached(name), CLASSIFICATION(name)
    optimizer, clip = cfg.optim_wrapper.optimizer, cfg.optim_wrapper.get('clip_grad')
    assert (optimizer.type, optimizer.lr) == ('AdamW', pytest.approx(line.rate))
    assert optimizer.weight_decay == line.decay and (clip and clip.max_norm) == line.clip
    batch = cfg.train_dataloader.batch_size * line.gpus
    assert batch == cfg.auto_scale_lr.base_batch_size == line.batch
    assert cfg.train_cfg.max_epochs == line.epochs
    *rise, cosine = cfg.param_scheduler
    assert (cosine.type, cosine.eta_min) == ('CosineAnnealingLR', 1e-5)
    assert cosine.get('begin', 0) == (line.warmup or 0)
    found = [(step.end, step.start_factor * line.rate) for step in rise]
    assert found == ([(line.warmup, pytest.approx(line.start))] if line.warmup else [])


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifiers_images(name):
    cfg, line = cached(name), CLASSIFIED(name)
    train = steps(cfg.train_dataloader)
    assert train['RandomResizedCrop'].scale == line.side
    augment = train['RandAugment']
    found = (augment.num_policies, augment.magnitude_level, augment.magnitude_std)
    assert found == (2, 9, 0.5)
    erasing = train.get('RandomErasing')
    assert (erasing and erasing.erase_prob) == line.erasing
    assert cfg.train_dataloader.sampler.type == line.sampler
    assert 'num_repeats' not in cfg.train_dataloader.sampler  # the sampler's own, three
    loaders = [cfg.val_dataloader, cfg.test_dataloader]
    if name.endswith('in21k'):  # which has no validation images
        assert loaders.pop(0) is cfg.val_evaluator is cfg.val_cfg is None
    for loader in loaders:
        test = steps(loader)
        assert test['ResizeEdge'].scale == line.tested_from
        assert test['CenterCrop'].crop_size == line.side
    assert cfg.test_evaluator.topk == (1, 5)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifiers_hooks(name):
    cfg = cached(name)
    hooks = {hook.type: hook for hook in cfg.get('custom_hooks', [])}
    hook = CLASSIFIED(name).hook
    assert set(hooks) == ({hook} if hook else set())
    if hook == 'RandomShiftHook':
        assert hooks[hook].fraction == 0.75
    elif hook == 'EMAHook':
        assert (hooks[hook].momentum, hooks[hook].update_buffers) == (4e-5, True)
        assert cfg.model_wrapper_cfg.broadcast_buffers


# Published weights, and options of the command line.


def published_small():
    """A file's worth of RegionViT-S as published: windows of 7, with the classifier."""
    keys = golden_cases.GoldenCase('regionvit_small_plus_peg_det').keys
    torch.manual_seed(0)
    state = {}
    for name, (shape, _) in keys.items():
        if '.peg.' in name or name.startswith(('norm0', 'norm1', 'norm2', 'norm3')):
            continue
        if name.endswith('rel_pos'):
            shape = [shape[0], 13 * 13]
        elif name == 'cls_token.proj.weight':
            shape = [*shape[:2], 28, 28]
        first = name.replace('proj_cls.', 'proj.')
        state[name] = state[first] if first in state else 0.02 * torch.randn(shape)
    state['head.weight'], state['head.bias'] = torch.zeros(1000, 768), torch.zeros(1000)
    return {'model': state}


def published_vil_small():
    """A file's worth of ViL-S: twice as wide as the tiny one, with other depths and heads."""
    torch.manual_seed(0)
    state, heads, depths = {}, (3, 3, 6, 12), (1, 2, 8, 1)
    for name, (shape, dtype) in golden_cases.GoldenCase('vil_tiny_rpe').keys.items():
        shape = [n if n in (1, 2, 3, 4, 7, 729, 1000) else 2 * n for n in shape]
        layer, *rest = name.split('.')
        stage = int(layer[5:]) - 1 if layer.startswith('layer') else None
        if name.endswith('bias_table'):
            shape = [729, heads[stage]]
        elif name.endswith('g2l_relative_position_bias'):
            shape = [2, heads[stage], 1]
        elif name.endswith('g2g_relative_position_bias'):
            shape = [heads[stage], 1, 1]
        places = rest[:1]
        if stage is not None and rest[0] in ('1', '2'):  # as many pairs as there are blocks
            places = [str(2 * i + int(rest[0])) for i in range(depths[stage])]
        elif stage is not None and rest[0] != '0':
            continue
        for place in places:
            key = '.'.join([layer, place, *rest[1:]])
            twin = re.sub(r'_global(?=\.)', '', key)
            new = 0.02 * torch.randn(shape) if 'float' in dtype else torch.zeros(shape).long()
            state[key] = state[twin] if twin in state else new
    return {'net': {f'module.{name}': tensor for name, tensor in state.items()}}


def published_as(case):
    """A file with the tensors of a golden case, classifier and buffers included."""
    torch.manual_seed(0)
    return {
        'model': {
            name: torch.zeros(shape, dtype=torch.long)
            if 'int' in dtype
            else 0.02 * torch.randn(shape).abs()  # variances too
            for name, (shape, dtype) in golden_cases.GoldenCase(case).keys.items()
        }
    }


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """Files as published, by the name that the configs give them."""
    folder = tmp_path_factory.mktemp('published')
    states = {
        'RegionViT-S.pth': published_small(),
        'focal-tiny-is224-ws7.pth': published_as('focal_tiny_cls'),
        'focal-tiny-useconv-is224-ws7.pth': published_as('focal_tiny_useconv'),
        'RMT-T.pth': published_as('rmt_tiny_cls'),
        'RMT-S.pth': published_as('rmt_small_rect'),
        'ViL-S-RPB.pth': published_vil_small(),
    }
    for name, state in states.items():
        torch.save(state, folder / name)
    return folder


def load_with_published_weights(name, published, options):
    """A config's backbone with the file that the config names, and whatever options."""
    read(name)
    path = str(CONFIGS / f'{name}.py')
    file = published / Path(load_config(path).model.backbone.init_cfg.checkpoint).name
    cfg = load_config(path, {**options, 'model.backbone.init_cfg.checkpoint': str(file)})
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    with torch.no_grad():
        maps = backbone.eval()(torch.randn(1, 3, 70, 97))
    sizes = [(18, 25), (9, 13), (5, 7), (3, 4)]
    assert [tuple(m.shape[2:]) for m in maps] == [sizes[i] for i in backbone.out_indices]
    assert all(m.isfinite().all() for m in maps)
    (state,) = torch.load(file, weights_only=True).values()
    return backbone, state


@pytest.mark.parametrize('name', ['maskrcnn_regionvit_s_1x', 'retinanet_regionvit_s_3x'])
@pytest.mark.parametrize('window', [7, 14])
def test_window_override_with_published_weights(name, window, published):
    options = {'model.backbone.window_size': window}
    backbone, state = load_with_published_weights(name, published, options)
    assert backbone.stem.regional.weight.shape[-1] == 4 * window
    weight = state['layers.2.block.3.attn.qkv.weight']
    assert torch.equal(backbone.stages[2].blocks[2].attn.qkv.weight, weight)


@pytest.mark.parametrize(
    'name, option, window, focal_windows',
    [
        ('maskrcnn_focal_t_1x', None, 7, (15, 13, 9, 7)),
        ('maskrcnn_focal_t_1x', 'focal_windows', 7, [7, 5, 3, 1]),
        ('retinanet_focal_t_1x', 'focal_windows', 7, [9, 9, 9, 9]),
        ('maskrcnn_focal_t_1x', 'window_size', 14, (15, 13, 9, 7)),
        ('upernet_focal_t_160k', None, 7, (15, 13, 9, 7)),
        ('upernet_focal_t_160k', 'window_size', 14, (15, 13, 9, 7)),
    ],
)
def test_focal_window_override_with_published_weights(
    name, option, window, focal_windows, published
):
    values = dict(focal_windows=focal_windows, window_size=window)
    options = {f'model.backbone.{option}': values[option]} if option else {}
    backbone, state = load_with_published_weights(name, published, options)
    for i, (stage, focal_window) in enumerate(zip(backbone.stages, focal_windows)):
        attn, theirs = stage.blocks[1].attn, f'layers.{i}.blocks.1.attn.'
        assert torch.equal(attn.qkv.weight, state[theirs + 'qkv.weight'])
        assert attn.bias.table.shape[1] == (2 * window - 1) ** 2
        assert attn.coarse_bias.table.shape[1] == (window + focal_window - 1) ** 2
        pooled = state[f'layers.{i}.blocks.1.pool_layers.0.weight']
        assert attn.pool.weight.shape == (window, window)
        torch.testing.assert_close(attn.pool.weight.sum(), pooled.sum())
        if attn.surroundings is not None and window == 7:
            ours = attn.surroundings.table
            assert torch.equal(ours, state[theirs + 'relative_position_bias_table_to_neighbors'][0])


@pytest.mark.parametrize('name', ['maskrcnn_rmt_s_1x', 'retinanet_rmt_t_1x', 'semfpn_rmt_t_80k'])
@pytest.mark.parametrize('attention', [None, 'whole', ['decomposed'] * 4])
def test_attention_override_with_published_weights(name, attention, published):
    options = {} if attention is None else {'model.backbone.attention': attention}
    backbone, state = load_with_published_weights(name, published, options)
    tiny = ['decomposed', 'decomposed', 'whole', 'whole']
    small = ['decomposed', 'decomposed', 'decomposed', 'whole']
    published_forms = tiny if '_t_' in name else small
    forms = [stage.blocks[0].attn.form for stage in backbone.stages]
    assert forms == {'None': published_forms, 'whole': ['whole'] * 4}.get(str(attention), attention)
    theirs = 'layers.2.blocks.1.retention.'
    weight = torch.cat([state[f'{theirs}{part}_proj.weight'] for part in 'qk'])
    assert torch.equal(backbone.stages[2].blocks[1].attn.qk.weight, weight)


@pytest.mark.parametrize('name', ['maskrcnn_vil_s_3x', 'retinanet_vil_s_1x'])
@pytest.mark.parametrize('window', [7, 14])
def test_vil_window_override_with_published_weights(name, window, published):
    options = {'model.backbone.window_size': window}
    backbone, state = load_with_published_weights(name, published, options)
    attn = backbone.stages[2].blocks[1].attn
    assert attn.bias.table.shape == (6, (4 * window - 1) ** 2)
    theirs = 'module.layer3.3.attn.'
    weight = torch.cat([state[f'{theirs}{part}.weight'] for part in ('query', 'kv')])
    assert torch.equal(attn.qkv.weight, weight)
    if window == 7:
        table = state[f'{theirs}local_relative_position_bias_table']
        assert torch.equal(attn.bias.table, table.T.flip(1))
