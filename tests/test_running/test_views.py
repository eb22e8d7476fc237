"""Configs made to test on several views."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip('mmdet')

from narrow_configs import narrow_config

from mmvitbackbones.running import use_tta
from mmvitbackbones.running.nodes import dicts


def make_views(cfg, image):
    """What the config's own pipeline makes of an image, but for reading files."""
    (dataset,) = (part for part in dicts(cfg.test_dataloader) if 'pipeline' in part)
    init_default_scope(cfg.default_scope)
    views = dataset.pipeline[-1]
    views.transforms = [s for s in views.transforms if s[0].type != 'LoadAnnotations']
    shape = image.shape[:2]
    results = dict(img=image, img_id=1, img_path='', ori_shape=shape, img_shape=shape)
    return Compose([views])(results)


def sizes(views):
    return [tuple(x.shape[1:]) for x in views['inputs']]


def test_coco():
    cfg = narrow_config('maskrcnn_rmt_s_1x')
    detector = cfg.model
    use_tta(cfg)
    assert cfg.model.type == 'InstanceTTAModel' and cfg.model.module == detector
    views = make_views(cfg, np.zeros((240, 320, 3), np.uint8))
    each = [(800, 1067), (400, 533), (1200, 1600)]
    assert sorted(sizes(views)) == sorted(2 * each)
    flips = [(size, sample.flip) for size, sample in zip(sizes(views), views['data_samples'])]
    assert len(set(flips)) == 6


def test_ade20k_averages_probabilities():
    """At 0.5 to 1.75 of the size that is tested, mirrored too, through mmsegmentation's model."""
    pytest.importorskip('mmseg')
    cfg = narrow_config('semfpn_rmt_t_80k')
    use_tta(cfg)
    # A very long image is small: the long side is at most 2048.
    views = make_views(cfg, np.random.default_rng(0).integers(0, 255, (8, 128, 3), np.uint8))
    each = [(int(r * 128), int(r * 2048)) for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
    assert sorted(sizes(views)) == sorted(2 * each)

    # Enough of them: the two smallest, mirrored and not.
    chosen = [i for i, size in enumerate(sizes(views)) if size in each[:2]]
    views = pseudo_collate([{key: [value[i] for i in chosen] for key, value in views.items()}])
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        model.module.decode_head.conv_seg.weight.normal_()
        (found,) = model.test_step(copy.deepcopy(views))
        total = 0
        for i in range(4):
            view = {key: value[i] for key, value in copy.deepcopy(views).items()}
            (alone,) = model.module.test_step(view)
            total = total + alone.seg_logits.data.softmax(0)
    assert torch.equal(found.pred_sem_seg.data.squeeze(), total.argmax(0))
    assert (alone.pred_sem_seg.data != found.pred_sem_seg.data).any()


def test_config_without_views(tmp_path):
    path = tmp_path / 'plain.py'
    path.write_text("_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'")
    with pytest.raises(ValueError, match='tta_pipeline and tta_model, which .*plain.py') as caught:
        use_tta(Config.fromfile(path))
    assert 'tta_coco.py' in str(caught.value) and 'ade20k.py' in str(caught.value)
