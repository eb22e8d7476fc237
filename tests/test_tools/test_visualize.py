"""``tools/visualize.py``, as a user would run it."""

from types import SimpleNamespace

import cv2
import golden_cases
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip('mmdet')

from narrow_configs import narrow_config
from running_tools import load, run, succeed
from sklearn.datasets import load_sample_image

from mmvitbackbones.running import load_config
from mmvitbackbones.seeing.drawing import mark_query
from mmvitbackbones.seeing.page import LIMIT

CONFIGS = dict(
    RegionViT='maskrcnn_regionvit_s_1x',
    FocalTransformer='retinanet_focal_t_1x',
    RMT='semfpn_rmt_t_80k',
    VisionLongformer='demo_cls_vil',
)
WHAT = ('attention', 'grad_cam', 'pyramid', 'receptive_field')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A photo, and a checkpoint of each family, of a training of a toolbox's model."""
    place = tmp_path_factory.mktemp('seen')
    photo = load_sample_image('china.jpg')[..., ::-1]
    cv2.imwrite(str(place / 'photo.jpg'), cv2.resize(photo, (240, 160)))
    cv2.imwrite(str(place / 'tiny.png'), np.zeros((20, 300, 3), np.uint8))
    for family, name in CONFIGS.items():
        load = load_config if 'demo' in name else narrow_config
        cfg = load(name, demo=True)
        # So that a detector finds something, though it has learned nothing.
        for key in ('rcnn', 'score_thr'):
            if cfg.model.get('test_cfg') and key in cfg.model.test_cfg:
                test = cfg.model.test_cfg
                (test[key] if key == 'rcnn' else test)['score_thr'] = 0.0
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            torch.manual_seed(0)
            model = MODELS.build(cfg.model)
            model.init_weights()
        meta = dict(cfg=cfg.pretty_text, dataset_meta={})
        (place / family).mkdir()
        path = place / family / 'iter_1.pth'
        torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return place


def is_picture(path):
    pixels = cv2.imread(str(path))
    return pixels is not None and min(pixels.shape[:2]) > 200 and pixels.std() > 5


def test_four_families_at_once(folder, tmp_path):
    """A detector of two stages and one of one, a segmenter and a classifier."""
    files = [folder / family / 'iter_1.pth' for family in CONFIGS]
    page, gallery = tmp_path / 'new' / 'page.html', tmp_path / 'gallery.png'
    said = succeed(
        *('visualize', folder / 'photo.jpg', *files, '--out', tmp_path / 'out'),
        *('--html', page, '--gallery', gallery, '--size', 72, '--point', 0.3, 0.6),
    )
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {f'{family}_{what}.png' for family in CONFIGS for what in WHAT}, said
    assert all(map(is_picture, [gallery, *(tmp_path / 'out').iterdir()]))
    assert 10**4 < page.stat().st_size < LIMIT


def test_published_backbone_alone(tmp_path, folder):
    """For a config whose heads it does not have, so without Grad-CAM."""
    path = tmp_path / 'RMT-T.pth'
    torch.save(dict(model=golden_cases.GoldenCase('rmt_tiny_cls').weights()), path)
    arguments = ('visualize', folder / 'photo.jpg', path, '--out', tmp_path / 'out', '--size', 64)
    config = ('--config', 'configs/retinanet_rmt_t_1x.py')
    said = succeed(*arguments, *config, '--stage', 4, '--block', 1, '--head', 2)
    assert 'No Grad-CAM: the file holds a backbone alone' in said
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {f'RMT-T_{what}.png' for what in WHAT if what != 'grad_cam'}
    done = run(*arguments, *config)
    assert done.returncode == 2 and 'RMT-T_attention.png is there already' in done.stderr
    done = run(*arguments[:4], tmp_path / 'new', *config, '--class', 'dog')
    assert done.returncode == 2 and '--class needs a whole model: RMT-T' in done.stderr
    done = run(*arguments)
    assert done.returncode == 2 and 'name it by --config' in done.stderr


@pytest.mark.parametrize(
    'options, said',
    [
        ((), 'nothing to draw'),
        (('--out', 'x', '--stage', 5), '--stage is from 1 to 4 here, got 5'),
        (('--out', 'x', '--block', 0), '--block is from 1 to 1 here, got 0'),
        (('--out', 'x', '--head', 9), '--head is from 1 to'),
        (('--out', 'x', '--point', 1, 0.5), '--point takes two parts'),
        (('--out', 'x', '--class', 'unicorn'), '--class unicorn: RMT has'),
        (('--out', 'x', '--config', 'a', 'b'), 'one for each of the 1 checkpoints, got 2'),
        (('--html', 'page.htm'), '--html must end with .html'),
        (('--gallery', 'page.html'), '--gallery must end with .png or .jpg'),
        (('--gallery', 'docs/gallery.jpg'), '--gallery: docs/gallery.jpg is there already'),
        (('--html', 'x.html', '--stage', 9), '--class are for the pictures of --out'),
        (('--out', 'x', '--size', 20), 'backbones take at least 32 x 32'),
    ],
)
def test_bad_input(options, said, folder, tmp_path, monkeypatch):
    options = [tmp_path / 'x' if option == 'x' else option for option in options]
    done = run('visualize', folder / 'photo.jpg', folder / 'RMT' / 'iter_1.pth', *options)
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_names_that_no_other_backbone_has():
    subjects = [SimpleNamespace(name=name) for name in ('a', 'a', 'a_2', 'b')]
    load('visualize').named_apart(subjects)
    assert [subject.name for subject in subjects] == ['a_1', 'a_3', 'a_2', 'b']


def test_the_query_is_framed_as_it_is():
    """Tokens may be wider than they are high."""
    ax = Figure().subplots()
    mark_query(ax, (50, 150), (64, 160))
    assert {patch.get_bbox().bounds for patch in ax.patches} == {(0, 0, 160, 64)}


def test_bad_files(folder, tmp_path):
    checkpoint = folder / 'RMT' / 'iter_1.pth'
    out = ('--out', tmp_path)
    for arguments, said in (
        ((folder / 'none.jpg', checkpoint), 'none.jpg'),
        ((checkpoint, checkpoint), 'is no image'),
        ((folder / 'tiny.png', checkpoint), 'at least 32 x 32'),
        ((folder / 'photo.jpg', *[checkpoint] * 5), 'up to 4 checkpoints'),
    ):
        done = run('visualize', *arguments, *out)
        assert done.returncode == 2 and said in done.stderr, done.stderr
