"""Merged boxes and masks against detectors' own predictions, merged the slow way."""

import copy
import zlib

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip('mmdet')

from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData
from narrow_configs import narrow_config

from mmvitbackbones.running.nodes import dicts

CLASSES = 3
LIMIT = 30  # boxes
KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
WITHOUT_SEMANTICS = {'model.roi_head.semantic_head': None}
MODELS_WITH_MASKS = [
    ('maskrcnn_rmt_s_1x', {}),
    ('cascade_maskrcnn_rmt_s_3x', {}),
    ('htc_rmt_s_1x', {}),
    ('htc_rmt_s_1x', WITHOUT_SEMANTICS),
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name, options=None, score_thr=0.0, nms='nms'):
    """A narrow detector, its weights random enough for boxes and masks to differ, and its TTA."""
    cfg = narrow_config(name, options)
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    roi_head = cfg.model.get('roi_head', cfg.model)
    for part in dicts([roi_head.get('bbox_head'), roi_head.get('mask_head')]):
        if 'num_classes' in part:
            part['num_classes'] = CLASSES
    test_cfg = cfg.model.test_cfg.get('rcnn', cfg.model.test_cfg)
    test_cfg.update(score_thr=score_thr, max_per_img=LIMIT)
    if 'rpn' in cfg.model.test_cfg:
        cfg.model.test_cfg.rpn.update(max_per_img=40)
    cfg.tta_model.tta_cfg.nms.type = nms
    if nms != 'nms':
        test_cfg.nms.type = nms
    cfg.tta_model.tta_cfg.max_per_img = LIMIT
    detector = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        for key, parameter in detector.named_parameters():
            if parameter.ndim > 1 and 'backbone' not in key:
                generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            if key.endswith(('conv_logits.weight', 'fc_cls.weight')):
                # What they see is positive: else all would be one class, masks full or empty.
                parameter -= parameter.mean(1, keepdim=True)
                parameter *= 8
    return detector, MODELS.build(dict(cfg.tta_model, module=detector)).eval()


def picture(height=45, width=83, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def views(image, scales, flips):
    """What a data loader makes of an image; a flip is a direction or None."""
    flips = [
        dict(type='RandomFlip', prob=float(flip is not None), direction=flip or 'horizontal')
        for flip in flips
    ]
    resizes = [dict(type='Resize', scale=scale, keep_ratio=True) for scale in scales]
    pack = dict(type='PackDetInputs', meta_keys=KEYS)
    pipeline = Compose([dict(type='TestTimeAug', transforms=[resizes, flips, [pack]])])
    shape = image.shape[:2]
    results = dict(img=image, img_id=1, img_path='', ori_shape=shape, img_shape=shape)
    return pseudo_collate([pipeline(results)])


def one_by_one(data):
    """The views as batches of a test without augmentation."""
    data = copy.deepcopy(data)
    return [dict(inputs=i, data_samples=s) for i, s in zip(data['inputs'], data['data_samples'])]


def predict(detector, batch):
    with torch.no_grad():
        return detector.test_step(copy.deepcopy(batch))[0].pred_instances


def mirror(box, shape, direction):
    """A box (x1, y1, x2, y2) in the image of shape (H, W) once that is mirrored."""
    x1, y1, x2, y2 = box
    if direction in ('horizontal', 'diagonal'):
        x1, x2 = shape[1] - x2, shape[1] - x1
    if direction in ('vertical', 'diagonal'):
        y1, y2 = shape[0] - y2, shape[0] - y1
    return [x1, y1, x2, y2]


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def merge(found, soft):
    """Non-maximum suppression of (score, label, box), one box after the other."""
    left, kept = list(found), []
    while left and len(kept) < LIMIT:
        left.sort(key=lambda item: -item[0])
        best, *left = left
        kept.append(best)
        overlaps = [iou(best[2], item[2]) * (best[1] == item[1]) for item in left]
        if soft:
            scores = [s * (1 - o) if o > 0.5 else s for (s, _, _), o in zip(left, overlaps)]
            left = [(s, *item[1:]) for s, item in zip(scores, left) if s >= 1e-3]
        else:
            left = [item for item, o in zip(left, overlaps) if o <= 0.5]
    return kept


def mask_probabilities(detector, view, boxes, labels):
    """Masks (N, H, W), rounded down to 1 / 255, of boxes of the original image in one view."""
    data = detector.data_preprocessor(copy.deepcopy(view))
    meta = data['data_samples'][0].metainfo
    direction = meta['flip_direction'] if meta['flip'] else None
    # Turned back below; mmdet's own way back is for numpy arrays.
    meta = dict(meta, flip=False)
    maps = detector.extract_feat(data['inputs'])
    extra = {}
    if hasattr(detector.roi_head, 'with_semantic'):
        with_semantic = detector.roi_head.with_semantic
        extra['semantic_heat'] = detector.roi_head.semantic_head(maps)[1] if with_semantic else None
    scale = torch.tensor(meta['scale_factor']).repeat(2)
    boxes = torch.tensor([mirror(b, meta['ori_shape'], direction) for b in boxes.tolist()]) * scale
    instances = InstanceData(bboxes=boxes, labels=labels, scores=torch.ones(len(labels)))
    test_cfg = detector.roi_head.test_cfg
    test_cfg.mask_thr_binary = -1  # probabilities instead of masks
    kwargs = dict(batch_img_metas=[meta], results_list=[instances], rescale=True, **extra)
    (found,) = detector.roi_head.predict_mask(maps, **kwargs)
    test_cfg.mask_thr_binary = 0.5
    axes = dict(horizontal=[2], vertical=[1], diagonal=[1, 2]).get(direction, [])
    return found.masks.flip(axes).double() / 255


@pytest.mark.parametrize(
    'name, options, nms',
    [
        *((*model, 'nms') for model in MODELS_WITH_MASKS),
        ('cascade_maskrcnn_rmt_s_3x', {}, 'soft_nms'),
        ('retinanet_rmt_t_1x', {}, 'nms'),
    ],
)
def test_one_view_is_the_plain_prediction(name, options, nms):
    detector, tta = build(name, options, nms=nms)
    data = views(picture(), [(110, 61)], [None])
    plain, ours = predict(detector, one_by_one(data)[0]), predict(tta, data)
    assert len(plain) == LIMIT
    torch.testing.assert_close(ours.bboxes, plain.bboxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours.scores, plain.scores)
    assert torch.equal(ours.labels, plain.labels)
    assert ('masks' in ours) == ('masks' in plain) == ('rmt_s' in name)
    if 'masks' in plain:
        assert ours.masks.dtype == torch.bool and ours.masks.shape == (LIMIT, 45, 83)
        assert plain.masks.any((1, 2)).sum() > LIMIT / 3  # not all are empty
        assert (ours.masks != plain.masks).float().mean() < 1e-3  # at the threshold itself


@pytest.mark.parametrize(
    'name, options, nms',
    [
        *((*model, 'nms') for model in MODELS_WITH_MASKS),
        ('maskrcnn_rmt_s_1x', {}, 'soft_nms'),
        ('retinanet_rmt_t_1x', {}, 'nms'),
    ],
)
def test_against_views_merged_one_by_one(name, options, nms):
    detector, tta = build(name, options, nms=nms)
    directions = [None, 'horizontal', 'vertical', 'diagonal']
    data = views(picture(), [(110, 61), (64, 64)], directions)
    ours = predict(tta, data)
    found = []
    for view in one_by_one(data):
        meta, seen = view['data_samples'][0].metainfo, predict_boxes(detector, view)
        direction = meta['flip_direction'] if meta['flip'] else None
        for box, score, label in zip(seen.bboxes, seen.scores, seen.labels):
            box = mirror(box.tolist(), meta['ori_shape'], direction)
            found.append((score.item(), label.item(), box))
    assert len(found) >= 8 * LIMIT and len({label for _, label, _ in found}) > 1
    scores, labels, boxes = zip(*merge(found, soft=nms == 'soft_nms'))
    torch.testing.assert_close(ours.scores, torch.tensor(scores), rtol=1e-4, atol=1e-5)
    assert ours.labels.tolist() == list(labels)
    torch.testing.assert_close(ours.bboxes, torch.tensor(boxes), rtol=1e-4, atol=1e-2)
    if 'masks' not in ours:
        return
    with torch.no_grad():
        seen = [
            mask_probabilities(detector, view, ours.bboxes, ours.labels)
            for view in one_by_one(data)
        ]
    assert max((view - seen[0]).abs().max() for view in seen) > 0.1  # views differ
    average = sum(seen) / len(seen)
    clear = (average - 0.5).abs() > 2 / 255  # they were rounded
    assert clear.float().mean() > 0.9
    assert torch.equal(ours.masks[clear], average[clear] >= 0.5)


def predict_boxes(detector, view):
    """The boxes of one view, a two-stage detector's before any suppression.

    Its masks are left out: mmdet's cascades predict none of mirrored images.
    """
    view = copy.deepcopy(view)
    (sample,) = view['data_samples']
    sample.set_metainfo(dict(flip=False))
    if not hasattr(detector, 'roi_head'):
        return predict(detector, view)
    detector = copy.deepcopy(detector)
    detector.roi_head.test_cfg.update(nms=dict(type='nms', iou_threshold=1.0), max_per_img=-1)
    return predict(detector, view)


@pytest.mark.parametrize('name, options', [MODELS_WITH_MASKS[0], MODELS_WITH_MASKS[2]])
def test_mirrored_images_give_mirrored_results(name, options):
    _, tta = build(name, options)
    image = picture()
    settings = dict(scales=[(110, 61), (90, 70)], flips=[None, 'horizontal'])
    here, there = (predict(tta, views(x, **settings)) for x in (image, image[:, ::-1].copy()))
    boxes = torch.tensor([mirror(box, (45, 83), 'horizontal') for box in there.bboxes.tolist()])
    torch.testing.assert_close(here.bboxes, boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(here.scores, there.scores)
    assert torch.equal(here.labels, there.labels)
    assert (here.masks != there.masks.flip(2)).float().mean() < 1e-3
    assert (here.masks != there.masks).any()


def test_every_image_of_a_batch_as_if_alone():
    _, tta = build('maskrcnn_rmt_s_1x')
    images = [picture(), picture(70, 40, seed=1)]
    data = [views(image, [(110, 61)], [None, 'horizontal']) for image in images]
    both = {key: [a + b for a, b in zip(data[0][key], data[1][key])] for key in data[0]}
    samples = tta.test_step(copy.deepcopy(both))
    for sample, alone in zip(samples, data):
        expected = predict(tta, alone)
        assert torch.equal(sample.pred_instances.bboxes, expected.bboxes)
        assert torch.equal(sample.pred_instances.masks, expected.masks)


def test_nothing_found():
    _, tta = build('htc_rmt_s_1x', score_thr=1.1)
    ours = predict(tta, views(picture(), [(110, 61)], [None, 'horizontal']))
    assert ours.bboxes.shape == (0, 4) and ours.masks.shape == (0, 45, 83)
    assert ours.masks.dtype == torch.bool


@pytest.mark.parametrize(
    'config, head',
    [
        ('mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', 'PointRendRoIHead'),
        ('mmdet::solo/solo_r50_fpn_1x_coco.py', 'SOLO'),
    ],
)
def test_masks_predicted_in_other_ways_are_refused(config, head, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = '{config}'")
    model = Config.fromfile(path).model
    model.backbone.init_cfg = None
    init_default_scope('mmdet')
    tta = narrow_config('maskrcnn_rmt_s_1x').tta_model
    with pytest.raises(TypeError, match=f'Mask R-CNN and HTC, got .*{head}'):
        MODELS.build(dict(tta, module=model))
