"""The configs are the papers' rows, and their options reach the backbone."""

from pathlib import Path

import golden_cases
import pytest
import torch
from mmengine.config import Config
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip('mmdet')

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from mmvitbackbones.running import load_config

CONFIGS = Path(__file__).parents[1] / 'configs'
# RegionViT, Table 5: millions of parameters, GMACs at 672 x 1120.
ROWS = {'maskrcnn_regionvit_s_1x': (50.1, 171.3), 'retinanet_regionvit_s_1x': (40.8, 192.6)}


def names():
    return sorted(path.stem for path in CONFIGS.glob('*.py'))


@pytest.fixture(autouse=True)
def scope():
    register_all_modules(init_default_scope=True)


@pytest.mark.parametrize('name', names())
def test_builds(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    model = MODELS.build(cfg.model)
    assert model.backbone.out_indices == (0, 1, 2, 3)
    assert list(model.neck.in_channels) == [
        norm.weight.numel() for norm in model.backbone.out_norms
    ]


@pytest.mark.parametrize('name', ROWS)
def test_published_size(name):
    """GMACs with attention products, for 1000 box regions and no mask region."""
    published_params, published_gmacs = ROWS[name]
    model = MODELS.build(Config.fromfile(CONFIGS / f'{name}.py').model).eval()
    params = sum(p.numel() for p in model.parameters()) / 1e6
    assert round(params, 1) == published_params
    model = model.to('meta')
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        maps = model.neck(model.backbone(torch.empty(1, 3, 672, 1120, device='meta')))
        if hasattr(model, 'rpn_head'):
            model.rpn_head(maps)
            model.roi_head.bbox_head(torch.empty(1000, 256, 7, 7, device='meta'))
        else:
            model.bbox_head(maps)
    assert counter.get_total_flops() / 2e9 == pytest.approx(published_gmacs, rel=0.005)


@pytest.mark.parametrize('name', ROWS)
def test_recipe(name):
    """Appendix A.2, and the published code's warm-up and drop path."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    assert cfg.model.backbone.drop_path_rate == 0.2
    assert cfg.train_dataloader.batch_size * 8 == 16  # 8 GPUs
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        resize = next(s for s in loader.dataset.pipeline if s.type == 'Resize')
        assert resize.scale == (1120, 672) and resize.keep_ratio
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (0.001, 1000, False)
    assert steps.milestones == [8, 11] and cfg.train_cfg.max_epochs == 12
    optimizer = cfg.optim_wrapper.optimizer
    assert dict(optimizer) == dict(type='AdamW', lr=1e-4, weight_decay=0.05)


def test_norms_do_not_decay():
    from mmengine.optim import build_optim_wrapper

    cfg = Config.fromfile(CONFIGS / 'maskrcnn_regionvit_s_1x.py')
    backbone = MODELS.build(cfg.model.backbone)
    wrapper = build_optim_wrapper(backbone, cfg.optim_wrapper)
    decay = {id(g['params'][0]): g['weight_decay'] for g in wrapper.optimizer.param_groups}
    for name, module in backbone.named_modules():
        for parameter in module.parameters(recurse=False):
            is_norm = isinstance(module, torch.nn.LayerNorm)
            assert decay[id(parameter)] == (0.0 if is_norm else 0.05), name


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


@pytest.mark.parametrize('name', ROWS)
@pytest.mark.parametrize('window', [7, 14])
def test_window_override_with_published_weights(name, window, tmp_path):
    path = tmp_path / 'RegionViT-S.pth'
    torch.save(published_small(), path)
    cfg = load_config(
        str(CONFIGS / f'{name}.py'),
        {
            'model.backbone.window_size': window,
            'model.backbone.init_cfg.checkpoint': str(path),
        },
    )
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    assert backbone.stem.regional.weight.shape[-1] == 4 * window
    weight = torch.load(path, weights_only=True)['model']['layers.2.block.3.attn.qkv.weight']
    assert torch.equal(backbone.stages[2].blocks[2].attn.qkv.weight, weight)
    with torch.no_grad():
        maps = backbone.eval()(torch.randn(1, 3, 70, 97))
    assert [tuple(m.shape[2:]) for m in maps] == [(18, 25), (9, 13), (5, 7), (3, 4)]
    assert all(m.isfinite().all() for m in maps)
