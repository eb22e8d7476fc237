"""Counting by the tool, and the comparison with what is published."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet')

from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from narrow_configs import narrow_config
from running_tools import ROOT, run

from mmvitbackbones.zoo import Convention, Paper, Row, Zoo
from mmvitbackbones.zoo.audit import disagreements, measure_row
from mmvitbackbones.zoo.complexity import _count, _plain_deformable_convolutions, measure


def count(*arguments):
    """Run the tool: its exit status, what it prints, and its errors."""
    done = run('complexity', *arguments)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    'published, params, gmacs, found',
    [
        (dict(params=40.8, gmacs=192.6), 41.2, 183.0, []),
        (dict(params=40.8, gmacs=192.6), 41.3, 203.0, ['41.30 M instead of 40.8 M, +1.2 %', 'G']),
        (dict(params=23), 22.51, 1.0, []),  # 2 %, but 23 when rounded
        (dict(params=23), 22.49, 1.0, ['M']),
        (dict(params=23.0), 22.51, 1.0, ['M']),  # its digits tell more
        (dict(gmacs=100), 1.0, 94.9, ['94.90 G instead of 100 G, -5.1 %']),
        ({}, 1.0, 1.0, []),
    ],
)
def test_tolerance(published, params, gmacs, found):
    row = Row('RMT', 'Table 2', [1, 1], dict(params=1, gmacs=1), 'RMT-T', published)
    differences = disagreements(row, params, gmacs)
    assert len(differences) == len(found)
    assert all(part in text for part, text in zip(found, differences))


def test_deformable_convolutions_count_as_plain_ones():
    from mmcv.ops import ModulatedDeformConv2d

    x, offset, mask = (torch.empty(1, n, 8, 10, device='meta') for n in (4, 18, 9))
    conv = ModulatedDeformConv2d(4, 6, 3, padding=1).to('meta')
    with torch.no_grad(), _plain_deformable_convolutions():
        y, counted = _count(conv, x, offset, mask)
    assert y.shape == (1, 6, 8, 10)
    assert counted[:3] == ((6 * 4 * 9 + 6) / 1e6, 8 * 10 * 6 * 4 * 9 / 1e9, 0)
    # Then they are themselves again: nothing is seen through a mask of zeros.
    x = torch.randn(1, 4, 8, 10)
    conv = ModulatedDeformConv2d(4, 6, 3, padding=1, bias=False)
    assert not conv(x, x.new_zeros(1, 18, 8, 10), x.new_zeros(1, 9, 8, 10)).any()


def test_products_are_told_apart():
    class Attention(nn.Module):
        def forward(self, q, k):
            return nn.functional.linear(q, k[0]) + q @ k.transpose(1, 2)

    with torch.device('meta'):
        _, counted = _count(Attention(), torch.empty(2, 5, 3), torch.empty(2, 7, 3))
    assert counted[:3] == (0, 2 * 5 * 7 * 3 / 1e9, 2 * 5 * 7 * 3 / 1e9)


def test_a_paper_may_leave_the_semantic_branch_out():
    cfg, name = narrow_config('htc_rmt_s_1x'), 'htc_some'
    convention = Convention(products=False, boxes=10, masks=10, semantic=False)
    paper = Paper('', '', 2021, 'RMT', dict(htc=convention))
    row = Row('Some Net', None, [64, 96], dict(params=1, gmacs=1))
    counted = measure_row(name, Zoo({'Some Net': paper}, {name: row}), cfg)
    assert cfg.model.roi_head.semantic_head  # the config stays as it is
    cfg.model.roi_head.semantic_head = None
    assert counted == measure(cfg, (64, 96), 10, 10)['model'][:2]


def test_a_backbone_that_reads_numbers_from_tensors():
    """Swin Transformer, as others of OpenMMLab's, does so with its rates while it is built."""
    cfg = narrow_config('retinanet_rmt_t_1x')
    cfg.model.backbone = dict(
        type='SwinTransformer', embed_dims=8, depths=[1] * 4, num_heads=[1] * 4
    )
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    with DefaultScope.overwrite_default_scope('mmdet'):
        params = sum(p.numel() for p in MODELS.build(cfg.model).parameters())
        with pytest.raises(RuntimeError, match='meta'), torch.device('meta'):
            MODELS.build(cfg.model)
    counted = measure(cfg, (64, 96))
    assert counted['model'].params == params / 1e6
    assert 0 < counted['backbone'].gmacs < counted['model'].gmacs


def test_shows_a_config_of_ones_own(tmp_path):
    path = tmp_path / 'mine.py'
    narrow_config('htc_rmt_s_1x').dump(path)
    status, _, error = count(path)
    assert status == 2 and 'give --shape HEIGHT WIDTH' in error
    totals = []
    for options in ([], ['--boxes', 10], ['--boxes', 10, '--masks', 0]):
        status, out, _ = count(path, '--shape', 64, 96, *options)
        assert status == 0 and 'mine at 64 x 96, 1' in out
        lines = {line.split()[0]: line.split() for line in out.splitlines()}
        totals.append(float(lines['model'][3]))
        assert float(lines['backbone'][1]) < float(lines['model'][1])
        assert float(lines['model'][4]) >= float(lines['model'][3])
    assert totals == sorted(totals, reverse=True) and len(set(totals)) == 3


def test_check_reads_the_file_that_is_named(tmp_path):
    status, out, _ = count('--check', 'maskrcnn_vil_t_1x', ROOT / 'configs/retinanet_rmt_t_1x.py')
    assert status == 0 and out.count(': fits ') == 2 and '2 fit what is published' in out
    path = tmp_path / 'retinanet_rmt_t_1x.py'
    path.write_text(
        f"_base_ = '{ROOT}/configs/retinanet_rmt_t_1x.py'\n"
        'model = dict(bbox_head=dict(stacked_convs=3))\n'
    )
    status, out, _ = count('--check', path)
    assert status == 1 and 'retinanet_rmt_t_1x: 21.84 M' in out and '1 errors' in out


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['maskrcnn_rmt_x_1x'], 'did you mean maskrcnn_rmt_'),
        (['--check', 'absent/maskrcnn_rmt_t_1x.py'], "there is no config 'absent/maskrcnn_rmt"),
        (['--check', 'demo_maskrcnn_regionvit'], 'is no row of the model zoo'),
        (['--check', '--masks', '0'], 'leave the other options out'),
        (['maskrcnn_rmt_t_1x', '--boxes', '-5'], 'numbers of at least 0'),
        (['maskrcnn_rmt_t_1x', '--shape', '8', '640'], 'at least 32 pixels'),
        ([], 'name at least one config'),
    ],
)
def test_bad_input(arguments, message):
    status, _, error = count(*arguments)
    assert status == 2 and message in error and 'Traceback' not in error
