"""RegionViT's published detectors, as their own code computes them."""

import numpy as np
import pytest
import torch
from golden_cases import GoldenCase
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from narrow_configs import CONFIGS, narrow_config
from published_files import RMT_FILES
from running_tools import own_instances

import mmvitbackbones

CASES = {
    'det_maskrcnn_regionvit_small_exact': 'maskrcnn_regionvit_s_1x',
    'det_maskrcnn_regionvit_small_padded': 'maskrcnn_regionvit_s_1x',
    'det_retinanet_regionvit_small_w14_peg': 'retinanet_regionvit_s_plus_peg_1x',
}


def image(height, width, seed):
    """The case's image, RGB."""
    random = np.random.RandomState(seed)
    small = random.randint(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(float)
    y, x = np.arange(height) / 16, np.arange(width) / 16
    top, left = y.astype(int), x.astype(int)
    y, x = (y - top)[:, None, None], (x - left)[None, :, None]
    rows = small[top] * (1 - y) + small[top + 1] * y
    return np.floor(rows[:, left] * (1 - x) + rows[:, left + 1] * x).astype(np.uint8)


def data_of(case):
    """What a data loader gives: the image in BGR, as it is read."""
    size = tuple(case.info['size'])
    pixels = image(*size, case.info['seed'])[..., ::-1].copy()
    sample = DetDataSample(
        metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), img_id=1)
    )
    return dict(inputs=[torch.from_numpy(pixels).permute(2, 0, 1)], data_samples=[sample])


@pytest.fixture(scope='module', params=CASES)
def case(request):
    return GoldenCase(request.param)


@pytest.fixture(scope='module')
def config(case):
    return Config.fromfile(CONFIGS / f'{CASES[case.name]}.py')


@pytest.fixture(scope='module')
def model(case, config):
    weights = dict(model=case.weights(), iteration=np.int64(3), __author__='theirs')
    cfg = mmvitbackbones.as_published(config, weights)
    if 'score_thresh' in case.info:
        cfg.model.test_cfg.rcnn.score_thr = case.info['score_thresh']
    with own_instances(), DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    report = mmvitbackbones.load_published(model, weights)
    assert report.kind == 'published RegionViT' and not report.new and not report.unused
    return model.eval()


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@torch.no_grad()
def test_equals_the_published_code(case, model, dtype, tolerance):
    model.to(dtype)
    data = model.data_preprocessor(data_of(case))
    inputs = data['inputs'].to(dtype)
    assert tuple(inputs.shape) == tuple(case.arrays['padded'])
    maps = model.extract_feat(inputs)
    first = 2 if 'maskrcnn' in case.name else 3
    for level, found in enumerate(maps, first):
        case.compare(f'fpn_p{level}', found, tolerance)
    head, prefix = (model.rpn_head, 'rpn_') if first == 2 else (model.bbox_head, '')
    for i, (scores, deltas) in enumerate(zip(*head(maps))):
        case.compare(f'{prefix}cls_{i}', scores, tolerance)
        case.compare(f'{prefix}box_{i}', deltas, tolerance)
    if first == 2:
        # detectron2 keeps boxes in float32.
        rois = bbox2roi([torch.from_numpy(case.arrays['boxes']).float().to(dtype)])
        boxes = model.roi_head._bbox_forward(maps, rois)
        masks = model.roi_head._mask_forward(maps, rois)['mask_preds']
        for name, found in (
            ('box_scores', boxes['cls_score']),
            ('box_deltas', boxes['bbox_pred'][:, :32]),
        ):
            expected = torch.from_numpy(case.arrays[name]).to(dtype)
            assert (found - expected).abs().max() <= tolerance * expected.std()
        case.compare('mask_logits', masks, tolerance)


@torch.no_grad()
def test_final_detections(case, model):
    """The best 30: in the published order, but for those whose scores are equal."""
    model.float()
    found = model.test_step(data_of(case))[0].pred_instances
    arrays = case.arrays
    assert len(found) == arrays['final_count']
    count = len(arrays['final_scores'])
    scores = found.scores[:count].numpy()
    assert np.abs(scores - arrays['final_scores']).max() <= 1e-4
    # Within 1e-4 the order may differ, so that the last of the 30 may be another detection.
    for box, score, label in zip(
        arrays['final_boxes'], arrays['final_scores'], arrays['final_classes']
    ):
        if score < scores[-1] + 1e-6:
            continue
        alike = (found.labels.numpy() == label) & (np.abs(found.scores.numpy() - score) <= 1e-4)
        distances = np.abs(found.bboxes.numpy()[alike] - box).max(1)
        assert distances.min(initial=np.inf) <= 1e-2


@pytest.fixture(scope='module')
def weights():
    return GoldenCase('det_maskrcnn_regionvit_small_exact').weights()


def config_of(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def test_settings_are_named_and_the_config_is_left_as_it_was(weights):
    cfg = config_of('maskrcnn_regionvit_s_1x')
    before = cfg.pretty_text
    found = mmvitbackbones.as_published(cfg, weights)
    assert cfg.pretty_text == before
    assert len(found.published_settings) == 3
    assert found.model.data_preprocessor.mean == [103.53, 116.28, 123.675]
    assert found.model.backbone.regional_padding == 'published'
    for loader in (found.train_dataloader, found.val_dataloader, found.test_dataloader):
        assert [s.backend for s in loader.dataset.pipeline if s.type == 'Resize'] == ['pillow']
    retina = GoldenCase('det_retinanet_regionvit_small_w14_peg').weights()
    found = mmvitbackbones.as_published(config_of('retinanet_regionvit_s_plus_peg_3x'), retina)
    assert len(found.published_settings) == 5
    own = config_of('maskrcnn_rmt_t_1x')
    assert mmvitbackbones.as_published(own, {'backbone.x': torch.zeros(1)}).pretty_text == (
        own.pretty_text
    )


@pytest.mark.parametrize(
    'name, problem',
    [
        ('maskrcnn_regionvit_b_1x', 'another variant'),
        ('maskrcnn_regionvit_s_plus_1x', 'another variant'),
        ('maskrcnn_regionvit_s_plus_peg_1x', 'another variant'),
        ('maskrcnn_regionvit_s_without_regional_1x', 'another variant'),
        ('maskrcnn_rmt_t_1x', 'another variant'),
        ('retinanet_regionvit_s_1x', 'is a MaskRCNN, the config a RetinaNet'),
    ],
)
def test_what_does_not_fit_is_refused(name, problem, weights):
    with pytest.raises(ValueError, match=f'{problem}.*configs/maskrcnn_regionvit_s_1x.py'):
        mmvitbackbones.as_published(config_of(name), weights)


def test_the_file_of_a_row_names_its_config(weights):
    """Names tell the schedule and the larger images of the dagger, which tensors do not."""
    dagger = dict(weights)
    proj = 'backbone.bottom_up.model.cls_token.proj.weight'
    dagger[proj] = torch.zeros(128, 3, 56, 56)
    name = 'MaskRCNN_3x_RegionViT-B+peg_dagger.pth'
    with pytest.raises(ValueError, match='configs/maskrcnn_regionvit_s_1x.py'):
        mmvitbackbones.as_published(config_of('retinanet_regionvit_s_1x'), weights, 'mine.pth')
    names = (f'backbone.bottom_up.model.layers.2.block.{n}.x' for n in range(15))
    dagger |= {name: torch.zeros(1) for name in names}
    dagger['backbone.bottom_up.model.layers.0.block.1.peg.x'] = torch.zeros(1)
    with pytest.raises(ValueError, match='configs/maskrcnn_regionvit_b_plus_peg_896_3x.py'):
        mmvitbackbones.as_published(config_of('maskrcnn_regionvit_b_1x'), dagger, name)


def test_other_classes_are_refused_but_for_training(weights):
    cfg = config_of('maskrcnn_regionvit_s_1x')
    cfg.model.roi_head.bbox_head.num_classes = cfg.model.roi_head.mask_head.num_classes = 3
    with pytest.raises(ValueError, match='for 80 classes, the config, as it would run, for 3: '):
        mmvitbackbones.as_published(cfg, weights)
    assert mmvitbackbones.as_published(cfg, weights, new_heads=True).published_settings


def test_a_model_without_the_settings(capsys):
    """Anchors of another order give wrong boxes; the rest shifts numbers."""
    retina = GoldenCase('det_retinanet_regionvit_small_w14_peg').weights()
    with own_instances(), DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config_of('retinanet_regionvit_s_plus_peg_1x').model)
        with pytest.raises(ValueError, match='anchors in another order.*as_published gives'):
            mmvitbackbones.load_published(model, retina)
        model.bbox_head.prior_generator.scale_major = False
        mmvitbackbones.load_published(model, retina)
    assert 'which mmvitbackbones.as_published gives to a config' in capsys.readouterr().out


def test_a_backbone_alone_takes_its_part(weights):
    backbone = MODELS.build(dict(type='RegionViT', arch='small'))
    report = mmvitbackbones.load_published(backbone, weights)
    assert not report.new and 'rpn_head.rpn_conv.weight' in report.unused
    expected = weights['backbone.bottom_up.model.norm3.weight'].flatten()
    assert torch.equal(backbone.out_norms[3].weight, expected)


def test_a_damaged_file_changes_nothing(weights):
    with own_instances(), DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config_of('maskrcnn_regionvit_s_1x').model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fewer = {n: t for n, t in weights.items() if n != 'roi_heads.mask_head.deconv.bias'}
    with pytest.raises(ValueError, match=r'1 missing \(roi_head.mask_head.upsample.bias\)'):
        mmvitbackbones.load_published(model, fewer)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_heads_for_other_classes_start_new(weights):
    cfg = config_of('maskrcnn_regionvit_s_1x')
    cfg.model.roi_head.bbox_head.num_classes = cfg.model.roi_head.mask_head.num_classes = 3
    with own_instances(), DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(mmvitbackbones.as_published(cfg, weights, new_heads=True).model)
        state = dict(weights, pixel_mean=torch.zeros(3), names=np.array(['not', 'a tensor']))
        report = mmvitbackbones.load_published(model, state)
    assert 'pixel_mean' in report.unused
    assert report.classes == (80, 3)
    layers = ('bbox_head.fc_cls', 'bbox_head.fc_reg', 'mask_head.conv_logits')
    assert {*report.new} == {
        f'roi_head.{layer}.{leaf}' for layer in layers for leaf in ('weight', 'bias')
    }


@pytest.mark.parametrize(
    'name',
    [
        *('maskrcnn_rmt_t_1x', 'cascade_maskrcnn_rmt_s_3x', 'retinanet_rmt_t_1x'),
        *('semfpn_rmt_t_80k', 'upernet_rmt_s_160k'),
    ],
)
def test_published_rmt_models(name):
    """Those of mmdetection 2 and mmsegmentation 0: only the backbone has other names."""
    cfg = narrow_config(name)
    cfg.model.backbone.update(arch=RMT_FILES.arch, out_norm='output')
    dims = RMT_FILES.arch['dims']
    (cfg.model.get('neck') or cfg.model.decode_head).in_channels = dims
    if cfg.model.get('auxiliary_head'):
        cfg.model.auxiliary_head.in_channels = dims[2]
    with own_instances(), DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    theirs, classifier = RMT_FILES.state(out_norm='output'), RMT_FILES.layout().classifier
    state = {f'backbone.{n}': tensor for n, tensor in theirs.items() if n not in classifier}
    others = {n: t for n, t in model.state_dict().items() if not n.startswith('backbone.')}
    state |= {name: tensor + 1 for name, tensor in others.items()}
    file = dict(state_dict=state, meta=dict(mmdet_version='2.11.0'), optimizer={})
    assert mmvitbackbones.as_published(cfg, file).pretty_text == cfg.pretty_text
    report = mmvitbackbones.load_published(model, file)
    assert report.kind == 'published RMT' and not report.new
    # Constants, and norms of stages that a RetinaNet does not take.
    assert all('.Relpos.' in n or n.startswith('out_norms.0.') for n in report.unused)
    indices = cfg.model.backbone.get('out_indices')
    alone = RMT_FILES.build(out_norm='output', out_indices=indices)
    mmvitbackbones.load_published(alone, theirs)
    expected = {f'backbone.{name}': tensor for name, tensor in alone.state_dict().items()}
    expected |= {name: state[name] for name in others}
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
