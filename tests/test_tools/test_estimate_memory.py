"""Memory on a GPU that is not there, and the check of what is here."""

import sys

import pytest
import torch
from running_tools import run

from mmvitbackbones import env, get_config
from mmvitbackbones.commands import estimate_memory
from mmvitbackbones.ops import backend
from mmvitbackbones.running.fake_cuda import peak_memory

CONFIGS = dict(
    RegionViT='maskrcnn_regionvit_s_1x',
    FocalTransformer='maskrcnn_focal_t_1x',
    RMT='maskrcnn_rmt_s_1x',
    VisionLongformer='maskrcnn_vil_s_1x',
)


def backbone(family, **options):
    config = get_config(CONFIGS[family]).model.backbone.to_dict()
    return {**config, 'init_cfg': None, **options}


@pytest.mark.parametrize('family', CONFIGS)
def test_every_family_runs_on_one_device(family):
    """Training and inference, by the kernel and by plain bodies: no tensor strays to the CPU."""
    base = backbone(family)['arch']
    config = backbone(family, arch=dict(base=base, depths=[1] * 4))
    before = backend.is_observed()
    found = {
        (train, kernels): peak_memory(config, (224, 260), 2, torch.bfloat16, train, kernels)
        for train in (True, False)
        for kernels in (True, False)
    }
    weights = sum(4 * p.numel() for p in estimate_memory.MODELS.build(config).parameters())
    assert weights < found[False, True] <= found[False, False] < found[True, True]
    # A few windows' masks are smaller than the kernel's one number a query.
    assert found[True, True] < 1.02 * found[True, False]
    assert backend.is_observed() == before and not backend._estimated


def test_memory_grows_with_each_image_by_the_same():
    config = backbone('FocalTransformer', arch=dict(base='tiny', depths=[1] * 4))
    one, two, four = (
        peak_memory(config, (224, 224), n, torch.float32, True, True) for n in (1, 2, 4)
    )
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)


@pytest.mark.sweep
@pytest.mark.parametrize(
    'family, train, forward',
    [
        ('RegionViT', 1.08, 0.80),
        ('FocalTransformer', 0.95, 0.80),
        ('VisionLongformer', 0.85, 0.80),
        ('RMT', 1.45, 0.80),
    ],
)
def test_the_kernel_takes_little(family, train, forward):
    """Against Swin-T, at the size of detectors."""
    pytest.importorskip('mmdet')
    swin = estimate_memory.backbone_of('mmdet.SwinTransformer')
    for is_training, most in ((True, train), (False, forward)):
        ours, theirs = (
            peak_memory(config, (800, 1344), 2, torch.bfloat16, is_training, True)
            for config in (backbone(family), swin)
        )
        assert ours <= most * theirs


@pytest.mark.parametrize(
    'words, said',
    [
        (['no_such_config'], 'no_such_config'),
        (['mmdet.Swin'], "no backbone 'Swin' in mmdet"),
        (['maskrcnn_rmt_s_1x', '--shape', '16', '64'], 'at least 32 pixels'),
    ],
)
def test_what_is_wrong_is_said(words, said):
    done = run('estimate_memory', *words)
    assert done.returncode == 2 and said in done.stderr


def test_what_is_here(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['env'])
    env.main()
    said = capsys.readouterr().out
    assert f'torch {torch.__version__.split("+")[0]}' in said
    for title in ('versions:', 'devices:', 'kernels:', 'compiled operations:'):
        assert title in said
    if torch.cuda.is_available():
        return
    assert 'cuda: none' in said
    monkeypatch.setattr(sys, 'argv', ['env', '--check-kernels'])
    with pytest.raises(SystemExit, match='needs a CUDA GPU'):
        env.main()
