"""Mixed precision on CPUs, through whole detectors and segmenters."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from narrow_configs import narrow_config
from running_tools import succeed, without_workers

from mmvitbackbones import BFloat16OptimWrapper, get_config

NARROW = [
    *('retinanet_regionvit_s_1x', 'maskrcnn_focal_t_1x', 'cascade_maskrcnn_rmt_s_3x'),
    *('htc_vil_s_1x', 'dyhead_focal_l_2x', 'sparsercnn_focal_t_3x', 'atss_focal_t_3x'),
    *('upernet_rmt_s_160k', 'semfpn_vil_s_80k'),
]
WHOLE = ['maskrcnn_regionvit_s_1x', 'maskrcnn_focal_t_1x', 'maskrcnn_rmt_s_1x', 'maskrcnn_vil_s_1x']


def batch(cfg, sizes):
    """Images and what is on them, as a data loader gives them."""
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        shapes = [[3, *size] for size in sizes]
        semantic = (cfg.model.get('roi_head') or {}).get('semantic_head')
        return demo_mm_inputs(
            len(sizes), shapes, num_classes=80, with_mask=True, with_semantic=bool(semantic)
        )
    from mmseg.structures import SegDataSample

    rng = np.random.default_rng(0)
    samples, images = [], []
    for size in sizes:
        labels = torch.from_numpy(rng.integers(0, 150, (1, *size)))
        samples.append(
            SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=size))
        )
        images.append(torch.from_numpy(rng.integers(0, 255, (3, *size), dtype=np.uint8)))
    return dict(inputs=images, data_samples=samples)


def step(cfg, sizes):
    """Losses and gradients of one step, and the types of what the backbone's linear layers give."""
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    types = []
    for layer in model.backbone.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda layer, inputs, output: types.append(output.dtype))
    wrapper = BFloat16OptimWrapper(optimizer=torch.optim.SGD(model.parameters(), 1e-6))
    data = model.data_preprocessor(batch(cfg, sizes), training=True)
    model.train()
    with wrapper.optim_context(model):
        losses = model(**data, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    return total, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}, types


def check(total, gradients):
    assert total.dtype is torch.float32 and torch.isfinite(total)
    missing = [name for name, gradient in gradients.items() if gradient is None]
    assert not missing
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}


@pytest.mark.parametrize('name', NARROW)
def test_losses_and_gradients(name):
    cfg = narrow_config(name)
    segments = cfg.default_scope == 'mmseg'
    total, gradients, types = step(cfg, [(96, 128)] * 2 if segments else [(96, 130), (64, 128)])
    assert set(types) == {torch.bfloat16}
    check(total, gradients)


@pytest.mark.sweep
@pytest.mark.parametrize('name', WHOLE)
def test_at_full_size(name):
    cfg = get_config(name)
    cfg.model.backbone.init_cfg = None
    total, gradients, _ = step(cfg, [(800, 1333)])
    check(total, gradients)


def test_the_tool(tmp_path):
    """A run is resumed and evaluated, too."""
    config = tmp_path / 'narrow.py'
    narrow_config('maskrcnn_vil_s_1x', {'demo.log_interval': 1}).dump(config)
    options = ['val_dataloader.dataset.indices=2', *without_workers('train', 'val')]
    for length, more in ((1, []), (2, ['--resume'])):
        log = succeed(
            *('train', config, '--demo', '--work-dir', tmp_path, '--amp', *more),
            options=[*options, f'demo.max_iters={length}'],
        )
        assert f'Iter(train) [{length}/{length}]' in log and 'coco/segm_mAP' in log
        assert 'loss: nan' not in log
