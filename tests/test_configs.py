"""The configs are the papers' rows, and their options reach the backbone."""

import re
from functools import cache
from pathlib import Path

import golden_cases
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch.nn.modules.batchnorm import _BatchNorm

pytest.importorskip('mmdet')

from mmvitbackbones.running import load_config
from mmvitbackbones.zoo import get_config, head_of, read_zoo
from mmvitbackbones.zoo.audit import disagreements, measure_row
from mmvitbackbones.zoo.complexity import measure

CONFIGS = Path(__file__).parents[1] / 'configs'
ZOO = read_zoo()
CLASSIFIERS = [name for name in ZOO.rows if head_of(name) == 'cls']
SEGMENTERS = [name for name in ZOO.rows if head_of(name) in ('semfpn', 'upernet')]
DETECTORS = [name for name in ZOO.rows if name not in (*CLASSIFIERS, *SEGMENTERS)]
# By family and size: arch, channels, drop path, weights.
WIDE, NARROW, BASE = [96, 192, 384, 768], [64, 128, 256, 512], [128, 256, 512, 1024]
BACKBONES = {
    ('regionvit', 's'): ('small', WIDE, 0.2, 'RegionViT-S'),
    ('regionvit', 'b'): ('base', BASE, 0.2, 'RegionViT-B'),
    ('focal', 't'): ('tiny', WIDE, 0.2, 'focal-tiny-is224-ws7'),
    ('focal', 's'): ('small', WIDE, 0.3, 'focal-small-is224-ws7'),
    ('focal', 'b'): ('base', BASE, 0.5, 'focal-base-is224-ws7'),
    ('focal', 'l'): ('large', [196, 392, 784, 1568], 0.5, 'focal-large-22k'),
    ('rmt', 't'): ('tiny', NARROW, 0.1, 'RMT-T'),
    ('rmt', 's'): ('small', NARROW, 0.15, 'RMT-S'),
    ('rmt', 'b'): ('base', [80, 160, 320, 512], 0.4, 'RMT-B'),
    ('rmt', 'l'): ('large', [112, 224, 448, 640], 0.5, 'RMT-L'),
    ('rmt', 'swin_t'): ('swin_tiny', WIDE, 0.1, 'RMT-Swin-T'),
    ('rmt', 'swin_s'): ('swin_small', WIDE, 0.15, 'RMT-Swin-S'),
    ('vil', 't'): ('tiny', [48, 96, 192, 384], 0.05, 'ViL-T-RPB'),
    ('vil', 's'): ('small', WIDE, 0.2, 'ViL-S-RPB'),
    ('vil', 'm'): ('medium_deep', WIDE, 0.2, 'ViL-M-RPB'),
    ('vil', 'b'): ('base_deep', WIDE, 0.3, 'ViL-B-RPB'),
}
TYPES = dict(regionvit='RegionViT', focal='FocalTransformer', rmt='RMT', vil='VisionLongformer')
# By family and variant: what differs in the backbone.
VARIANTS = {
    ('regionvit', 'plus'): {},
    ('regionvit', 'plus_peg'): dict(peg=True),
    ('regionvit', 'plus_peg_896'): dict(peg=True),
    ('regionvit', 'without_regional'): dict(arch=dict(base='small', regional=False)),
    ('rmt', 'plain_attention'): dict(decay=None),
    ('rmt', 'without_lce'): dict(arch=dict(base='tiny', lce=False)),
    ('rmt', 'without_cpe'): dict(arch=dict(base='tiny', cpe=False)),
    ('rmt', 'without_stem'): dict(arch=dict(base='tiny', stem='patch')),
    ('rmt', 'whole'): dict(attention=('decomposed', 'decomposed', 'whole', 'whole')),
    ('focal', 'window14'): dict(window_size=14),
    ('focal', 'window'): dict(expand_sizes=0, focal_windows=0),
    ('focal', 'local'): dict(focal_windows=0),
    ('focal', 'global'): dict(expand_sizes=0),
    ('focal', 'depth2'): dict(arch=dict(base='tiny', depths=(2, 2, 2, 2))),
    ('focal', 'depth4'): dict(arch=dict(base='tiny', depths=(2, 2, 4, 2))),
}
# One for each head of each family, the smallest, and what an ablation changes in training.
SMALLEST = [
    *('retinanet_regionvit_s_1x', 'maskrcnn_regionvit_s_3x', 'semfpn_regionvit_s_80k'),
    *('retinanet_focal_t_1x', 'maskrcnn_focal_t_3x', 'upernet_focal_t_160k'),
    *('retinanet_rmt_t_1x', 'maskrcnn_rmt_s_1x', 'semfpn_rmt_t_80k', 'upernet_rmt_s_160k'),
    *('cascade_maskrcnn_rmt_s_3x', 'retinanet_vil_s_1x', 'maskrcnn_vil_s_3x', 'semfpn_vil_s_80k'),
    *('htc_vil_s_1x', 'atss_focal_t_3x', 'sparsercnn_focal_t_3x'),
    *('maskrcnn_regionvit_s_without_regional_1x', 'maskrcnn_rmt_t_plain_attention_1x'),
]


def parts(name):
    """Take a name apart: head, family, size, variant (perhaps ''), schedule."""
    head = head_of(name)
    family, size, variant, schedule = re.fullmatch(
        r'([a-z]+)_(swin_[ts]|ti|[mb][dw]|[tsmbl])_?(.*?)_?(\dx|\d+k|in1k|in21k)',
        name[len(head) + 1 :],
    ).groups()
    return head, family, size, variant, schedule


@cache
def cached(name):
    return get_config(name)


def read(name):
    """Read a config and make its toolbox the one that models are built from."""
    cfg = cached(name)
    pytest.importorskip(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    return cfg.copy()


@pytest.mark.parametrize('name', [*DETECTORS, *SEGMENTERS])
def test_backbone(name):
    """RegionViT: Table 2, App. A. Focal: Table 1, Sec. 4. RMT: Table 10, Sec. 4.1. ViL: Table 1.

    And, of all, the published code, as far as there is one.
    """
    head, family, size, variant, schedule = parts(name)
    arch, dims, drop_path, weights = BACKBONES[family, size]
    expected = dict(type=TYPES[family], arch=arch, drop_path_rate=drop_path)
    if family == 'focal':
        expected['focal_windows'] = (15, 13, 9, 7)
    if family == 'focal' and (head == 'upernet' or size == 'l'):
        expected['use_conv_embed'] = True
        weights = weights.replace('is224', 'useconv-is224')
    if family == 'rmt':
        expected['norm_eval'] = True
    if family == 'vil':
        expected['out_norm'] = None
        threes = {('t', '3x'): 0.1, ('m', '3x'): 0.3}
        expected['drop_path_rate'] = threes.get((size, schedule), drop_path)
        if name == 'retinanet_vil_s_1x':
            expected['drop_path_rate'] = 0.1
    if head in ('retinanet', 'atss', 'dyhead') and family != 'regionvit':
        expected['out_indices'] = (1, 2, 3)
        dims = dims[1:]
    if 'plus' in variant:
        expected['arch'] += '_plus'
    if variant:
        expected.update(VARIANTS[family, variant])
    model = read(name).model
    backbone = model.backbone.to_dict()
    init = backbone.pop('init_cfg')
    assert backbone == expected
    assert init['type'] == 'Pretrained' and init['checkpoint'].startswith('checkpoints/')
    ablation = variant and 'plus' not in variant and variant != 'window14'
    assert (init['checkpoint'] == f'checkpoints/{weights}.pth') != bool(ablation)
    neck = model.get('neck', model.get('decode_head'))
    assert list((neck[0] if isinstance(neck, list) else neck).in_channels) == dims
    if head == 'upernet':
        auxiliary = model.auxiliary_head
        assert auxiliary.in_channels == dims[auxiliary.in_index]


def is_small(name):
    """Whether it is of a small size, and not the same model as another row, trained for longer."""
    longer = name.endswith('_3x') and f'{name[:-3]}_1x' in ZOO.rows
    return parts(name)[2] in ('ti', 't', 's', 'swin_t') and not longer


@pytest.mark.parametrize(
    'name', [*filter(is_small, ZOO.rows), 'htc_focal_l_3x', 'dyhead_focal_l_2x']
)
def test_row(name):
    """The small ones of ``tools/complexity.py --check``, and two heads that have no small one."""
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


@pytest.mark.parametrize('name', DETECTORS)
def test_detection_recipe(name):
    """RegionViT: App. A.2, and the published code's warm-up and multi-scale training.

    Focal: Sec. 4.2. RMT: Sec. 4.1 and 4.2, App. B, and the published code's warm-up. ViL: published
    code; no warm-up is known, mmdetection's is taken.
    """
    cfg = read(name)
    head, family, _, variant, schedule = parts(name)
    plusplus = name == 'htc_focal_l_3x'
    loader = cfg.train_dataloader
    assert loader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
    scale = {'regionvit': (1120, 672)}.get(family, (1333, 800))
    if '896' in variant:
        scale = (1344, 896)
    if head == 'dyhead':
        scale = (2000, 1200)
    train = dataset(loader).pipeline
    test = {step.type: step for step in dataset(cfg.test_dataloader).pipeline}
    assert test['Resize'].scale == scale and test['Resize'].keep_ratio
    assert_scales(train, scale, head, family, schedule, plusplus)
    masks = head in ('maskrcnn', 'cascade_maskrcnn', 'htc')
    annotations = next(step for step in train if step.type == 'LoadAnnotations')
    assert annotations.with_bbox and annotations.get('with_mask', False) == masks
    assert annotations.get('with_seg', False) == (head == 'htc')
    assert cfg.val_evaluator.metric == (['bbox', 'segm'] if masks else 'bbox')
    assert cfg.test_evaluator.metric == cfg.val_evaluator.metric
    assert cfg.tta_model.type == 'InstanceTTAModel'
    assert [step.type for step in cfg.tta_pipeline] == ['LoadImageFromFile', 'TestTimeAug']
    resizes, flips, *_ = cfg.tta_pipeline[1].transforms
    scales = [(1333, 800), (666, 400), (2000, 1200)]
    if plusplus:
        scales = [(1600, side) for side in (400, 600, 800, 1000, 1200, 1400)]
    assert [resize.scale for resize in resizes] == scales
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert cfg.tta_model.tta_cfg.nms.type == ('soft_nms' if plusplus else 'nms')

    warmup, steps = cfg.param_scheduler
    end = 500 if family in ('rmt', 'vil') or head in ('sparsercnn', 'dyhead') else 1000
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (0.001, end, False)
    if family == 'regionvit' and schedule == '3x':
        assert cfg.train_cfg.type == 'IterBasedTrainLoop'
        assert steps.milestones == [210000, 250000] and not steps.by_epoch
        assert steps.end == cfg.train_cfg.max_iters == 270000
        assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval
        assert not cfg.default_hooks.checkpoint.by_epoch and not cfg.log_processor.by_epoch
    else:
        epochs, milestones = (36, [27, 33]) if schedule == '3x' else (12, [8, 11])
        assert steps.milestones == milestones and steps.by_epoch
        assert steps.end == cfg.train_cfg.max_epochs == epochs
        assert loader.dataset.get('times', 1) == (2 if schedule == '2x' else 1)

    decay = 1e-4 if (head, family) == ('retinanet', 'rmt') else 0.1 if plusplus else 0.05
    rate = 5e-5 if head == 'dyhead' else 1e-4
    optimizer = dict(cfg.optim_wrapper.optimizer)
    optimizer.pop('betas', None)
    assert optimizer == dict(type='AdamW', lr=rate, weight_decay=decay)
    clip = cfg.optim_wrapper.get('clip_grad')
    assert (clip and clip.max_norm) == {'vil': 0.5}.get(family, 1 if head == 'sparsercnn' else None)


def dataset(loader):
    """A loader's data set, inside what repeats it."""
    return loader.dataset.get('dataset', loader.dataset)


def assert_scales(train, scale, head, family, schedule, plusplus):
    """The size of images; of half of them after DETR's crop, in some multi-scale training."""
    steps = {step.type: step for step in train}
    assert steps['RandomFlip'].prob == 0.5
    assert ('InstaBoost' in steps) == plusplus
    if schedule == '1x':
        assert steps['Resize'].scale == scale and steps['Resize'].keep_ratio
        return
    if family in ('rmt', 'regionvit') or head == 'sparsercnn':
        (resize,), (smaller, crop, again) = steps['RandomChoice'].transforms
        assert resize == again and resize.keep_ratio and smaller.keep_ratio
        sides = range(480, 897, 32) if family == 'regionvit' else (*range(480, 800, 32), 800)
        assert resize.scales == [(side, scale[0]) for side in sides]
        assert smaller.scales == [(side, 1333) for side in (400, 500, 600)]
        assert (crop.crop_type, crop.crop_size) == ('absolute_range', (384, 600))
        return
    ranges = [(1333, 480), (1333, 800)]
    if plusplus:
        ranges = [(1600, 400), (1600, 1400)]
    elif head == 'dyhead':
        ranges = [(2000, 480), (2000, 1200)]
    assert steps['RandomResize'].scale == ranges and steps['RandomResize'].keep_ratio


@pytest.mark.parametrize('name', [name for name in DETECTORS if 'cascade' in name])
def test_cascade_has_the_heads_of_swin(name):
    """Four convolutions, one linear layer, a box for each class, a loss of the boxes."""
    heads = read(name).model.roi_head.bbox_head
    for head, std in zip(heads, (0.1, 0.05, 0.033), strict=True):
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == ('ConvFCBBoxHead', 4, 1)
        assert not head.reg_class_agnostic and head.reg_decoded_bbox
        assert (head.conv_out_channels, head.fc_out_channels) == (256, 1024)
        assert head.norm_cfg.type == 'SyncBN'
        assert head.bbox_coder.target_means == [0.0, 0.0, 0.0, 0.0]
        assert head.bbox_coder.target_stds[:2] == [std, std]
        assert head.bbox_coder.target_stds[2:] == pytest.approx([2 * std, 2 * std], rel=0.02)
        assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ('GIoULoss', 10.0)


@pytest.mark.parametrize('name', [name for name in DETECTORS if name.startswith('htc')])
def test_htc_is_mmdetections(name):
    """All but backbone, neck's inputs and, for HTC++, soft-NMS (Focal, Sec. 4.2)."""
    from mmengine.hub import get_config as published

    ours, theirs = read(name), published('mmdet::htc/htc_r50_fpn_1x_coco.py')
    plusplus = ours.model.test_cfg.rcnn.nms.pop('type')
    assert plusplus == ('soft_nms' if name == 'htc_focal_l_3x' else 'nms')
    del theirs.model.test_cfg.rcnn.nms.type
    prefixes = [cfg.train_dataloader.dataset.data_prefix for cfg in (ours, theirs)]
    assert prefixes[0] == prefixes[1]
    assert_same_heads(ours.model, theirs.model)


def assert_same_heads(ours, theirs):
    """Two models are the same but for backbone, neck's inputs and defaults that are spelt out."""
    defaults = dict(
        _scope_='mmdet', pad_mask=False, with_conv_res=True, sampler=dict(type='PseudoSampler')
    )

    def comparable(node):
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

    assert comparable(ours.to_dict()) == comparable(theirs.to_dict())


@pytest.mark.parametrize('name', ['atss_focal_t_3x', 'dyhead_focal_l_2x', 'sparsercnn_focal_t_3x'])
def test_heads_are_mmdetections(name):
    from mmengine.hub import get_config as published

    theirs = published(
        dict(
            atss='mmdet::atss/atss_r50_fpn_1x_coco.py',
            dyhead='mmdet::dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py',
            sparsercnn='mmdet::sparse_rcnn/'
            'sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco.py',
        )[head_of(name)]
    ).model
    assert_same_heads(read(name).model, theirs)


@pytest.mark.parametrize('name', SEGMENTERS)
def test_segmentation_recipe(name):
    """RegionViT: App. A.3. Focal, RMT: Sec. 4.3; what is open as in Swin's UperNet, PVT's FPN."""
    cfg = read(name)
    head, family, size, *_ = parts(name)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
    side = 448 if (head, family) == ('semfpn', 'regionvit') else 640 if size == 'l' else 512
    if family == 'rmt':
        side = 512
    crop = next(s for s in cfg.train_dataloader.dataset.pipeline if s.type == 'RandomCrop')
    assert crop.crop_size == cfg.model.data_preprocessor.size == (side, side)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        steps = {step.type: step for step in loader.dataset.pipeline}
        assert steps['LoadAnnotations'].reduce_zero_label
        assert steps.get('Resize', steps.get('RandomResize')).scale == (4 * side, side)
    assert cfg.model.test_cfg.mode == 'whole'
    resizes, flips, *_ = cfg.tta_pipeline[1].transforms
    ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert [r.scale for r in resizes] == [(int(4 * side * r), int(side * r)) for r in ratios]
    assert [flip.prob for flip in flips] == [0.0, 1.0] and cfg.tta_model.type == 'SegTTAModel'
    assert cfg.model.decode_head.num_classes == 150
    optimizer = cfg.optim_wrapper.optimizer
    poly = cfg.param_scheduler[-1]
    assert (poly.type, poly.eta_min, poly.by_epoch) == ('PolyLR', 0.0, False)
    assert poly.end == cfg.train_cfg.max_iters == (160000 if head == 'upernet' else 80000)
    if head == 'upernet':
        assert cfg.model.auxiliary_head.num_classes == 150
        warmup, _ = cfg.param_scheduler
        assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (1e-6, 1500, False)
        assert (poly.power, poly.begin) == (1.0, 1500)
        assert dict(optimizer) == dict(type='AdamW', lr=6e-5, weight_decay=0.01)
    else:
        assert cfg.model.get('pretrained') is None
        assert (poly.power, poly.begin, len(cfg.param_scheduler)) == (0.9, 0, 1)
        decay = 0.05 if family == 'regionvit' else 1e-4
        assert dict(optimizer) == dict(type='AdamW', lr=1e-4, weight_decay=decay)


# By family and size: arch, channels, drop path.
CLASSIFIER_BACKBONES = {
    ('regionvit', 'ti'): ('tiny', 512, 0.1),
    ('regionvit', 's'): ('small', 768, 0.1),
    ('regionvit', 'm'): ('medium', 768, 0.1),
    ('regionvit', 'b'): ('base', 1024, 0.1),
    ('focal', 't'): ('tiny', 768, 0.2),
    ('focal', 's'): ('small', 768, 0.2),
    ('focal', 'b'): ('base', 1024, 0.3),
    ('rmt', 't'): ('tiny', 512, 0.1),
    ('rmt', 's'): ('small', 512, 0.15),
    ('rmt', 'b'): ('base', 512, 0.4),
    ('rmt', 'l'): ('large', 640, 0.5),
    ('rmt', 'swin_t'): ('swin_tiny', 768, 0.1),
    ('rmt', 'swin_s'): ('swin_small', 768, 0.15),
    ('vil', 't'): ('tiny', 384, 0.1),
    ('vil', 's'): ('small', 768, 0.1),
    ('vil', 'md'): ('medium_deep', 768, 0.1),
    ('vil', 'mw'): ('medium_wide', 768, 0.1),
    ('vil', 'bd'): ('base_deep', 768, 0.1),
    ('vil', 'bw'): ('base_wide', 1024, 0.1),
}


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifier(name):
    """Backbone, neck and head, as each paper has them."""
    _, family, size, variant, schedule = parts(name)
    arch, dims, drop_path = CLASSIFIER_BACKBONES[family, size]
    expected = dict(type=TYPES[family], out_indices=(3,), out_norm=None, drop_path_rate=drop_path)
    expected['arch'] = arch + ('_plus' if 'plus' in variant else '')
    neck = dict(type='NormAndPool', in_channels=dims)
    if family == 'regionvit':
        expected['outputs'] = 'regional'
    elif family == 'focal':
        neck['eps'] = 1e-5
        if variant == 'conv_embed':
            expected['use_conv_embed'] = True
    elif family == 'rmt':
        neck['type'] = 'ProjectAndPool'
    else:
        expected.update(position='ape', shift_mode=1)
    model = read(name).model.to_dict()
    if '384' in variant:
        expected['window_size'] = 24 if 'plus' in variant else 12
        file = Path(read(name).load_from)
        assert file.parts[:2] == ('work_dirs', name.replace('384_in1k', 'in21k'))
        assert file.stem == f'epoch_{read(file.parts[1]).train_cfg.max_epochs}'
    assert model['backbone'] == expected and model['neck'] == neck
    classes = 21841 if schedule == 'in21k' else 1000
    head = model['head']
    assert (head['type'], head['num_classes']) == ('LinearClsHead', classes)
    assert head['in_channels'] == (1024 if family == 'rmt' else dims)
    loss = head['loss']
    assert (loss['type'], loss['label_smooth_val']) == ('LabelSmoothLoss', 0.1)
    augments = {augment['type']: augment['alpha'] for augment in model['train_cfg']['augments']}
    assert augments == dict(Mixup=0.8, CutMix=1.0)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classification_recipe(name):
    """RegionViT: Table A1. Focal: Sec. 4.1. RMT: App. B. ViL: its rate and shifts, else DeiT's."""
    cfg = read(name)
    _, family, size, variant, schedule = parts(name)
    finetuned, side = '384' in variant, 384 if '384' in variant else 224
    train = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert train['RandomResizedCrop'].scale == side
    rand_augment = train['RandAugment']
    assert (rand_augment.num_policies, rand_augment.magnitude_level) == (2, 9)
    assert rand_augment.magnitude_std == 0.5
    assert ('RandomErasing' in train) == (family != 'focal')
    if 'RandomErasing' in train:
        assert train['RandomErasing'].erase_prob == 0.25
    loaders = [cfg.val_dataloader, cfg.test_dataloader]
    if schedule == 'in21k':  # which has no validation images
        assert loaders.pop(0) is cfg.val_evaluator is cfg.val_cfg is None
    for loader in loaders:
        test = {step.type: step for step in loader.dataset.pipeline}
        assert test['ResizeEdge'].scale == (384 if finetuned else 256)
        assert test['CenterCrop'].crop_size == side
    assert cfg.test_evaluator.topk == (1, 5)
    repeated = family == 'regionvit' and size != 'ti'
    sampler = 'RepeatAugSampler' if repeated else 'DefaultSampler'
    assert cfg.train_dataloader.sampler.type == sampler
    assert 'num_repeats' not in cfg.train_dataloader.sampler  # the sampler's own, three

    rate, decay, epochs, warmup, batch = dict(
        regionvit=(4e-3, 0.05, 300, 50, 4096),
        focal=(1e-3, 0.05, 300, 20, 1024),
        rmt=(1e-3, 0.05, 300, 5, 1024),
        vil=(5e-4, 0.05, 300, 5, 1024),
    )[family]
    if schedule == 'in21k':
        rate, decay, epochs, warmup = 1e-3, 0.01, 120, 5
    elif finetuned:
        rate, decay, epochs, warmup, batch = 2e-4, 1e-8, 30, 0, 1024
    gpus = 32 if family == 'regionvit' else 8
    assert cfg.train_dataloader.batch_size * gpus == cfg.auto_scale_lr.base_batch_size == batch
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', pytest.approx(rate))
    assert optimizer.weight_decay == decay and cfg.train_cfg.max_epochs == epochs
    *rise, cosine = cfg.param_scheduler
    assert cosine.type == 'CosineAnnealingLR' and cosine.get('begin', 0) == warmup
    assert [step.end for step in rise] == ([warmup] if warmup else [])
    assert cosine.eta_min == 1e-5
    if warmup:
        assert rise[0].start_factor * rate == pytest.approx(1e-5 if family == 'focal' else 1e-6)
    clip = cfg.optim_wrapper.get('clip_grad')
    assert (clip and clip.max_norm) == (5.0 if family == 'focal' else None)
    hooks = {hook.type: hook for hook in cfg.get('custom_hooks', [])}
    assert set(hooks) == dict(rmt={'EMAHook'}, vil={'RandomShiftHook'}).get(family, set())
    if family == 'vil':
        assert hooks['RandomShiftHook'].fraction == 0.75
    elif family == 'rmt':
        assert (hooks['EMAHook'].momentum, hooks['EMAHook'].update_buffers) == (4e-5, True)
        assert cfg.model_wrapper_cfg.broadcast_buffers


@pytest.mark.parametrize(
    'name, changes',
    [
        *((f'cls_{size}_in1k', {}) for size in ('regionvit_ti', 'focal_t', 'rmt_t', 'vil_t')),
        ('cls_vil_t_in1k', dict(position='rpb')),
    ],
)
def test_only_weights_of_classifiers_decay(name, changes):
    """As in DeiT: neither norms and biases nor tables, positions and global tokens."""
    cfg = read(name)
    cfg.model.backbone.update(changes)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    weighted = (torch.nn.Linear, torch.nn.Conv2d)
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            decays = leaf == 'weight' and (isinstance(module, weighted) or path.endswith('.pool'))
            group = groups[id(parameter)]
            assert group['weight_decay'] == (0.05 if decays else 0), f'{path}.{leaf}'
            assert group['lr'] == cfg.optim_wrapper.optimizer.lr


@pytest.mark.parametrize('name', [*SMALLEST, 'dyhead_focal_l_2x'])
def test_what_does_not_decay(name):
    """Norms; as in Swin, Focal's tables of position biases too. RMT's norms do in RetinaNet.

    Of ViL and of Semantic FPN no exceptions are known.
    """
    cfg = read(name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    settings = cfg.optim_wrapper.optimizer
    tables = set()
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            spared = isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm, _BatchNorm))
            all_decay = name == 'retinanet_rmt_t_1x' or 'semfpn' in name or 'vil' in name
            spared = spared and not all_decay
            if 'focal' in name and leaf == 'table':
                tables.add(path.rpartition('.')[2])
                spared = True
            group = groups[id(parameter)]
            assert group['weight_decay'] == (0 if spared else settings.weight_decay), path
            assert group['lr'] == settings.lr
    assert tables == ({'bias', 'surroundings', 'coarse_bias'} if 'focal' in name else set())


@pytest.mark.parametrize(
    'name', [name for name in SMALLEST if re.match('retina|maskrcnn|cascade', name)]
)
def test_all_of_the_backbone_learns(name):
    """Distributed training refuses parameters that get no gradient."""
    model = MODELS.build(read(name).model)
    maps = model.extract_feat(torch.randn(1, 3, 64, 96))
    sum(m.square().mean() for m in maps).backward()
    assert [n for n, p in model.backbone.named_parameters() if p.grad is None] == []


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
