"""``tools/test.py --plots``: of a detector, a segmenter and a classifier."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip('mmdet')

from narrow_configs import narrow_config
from running_tools import ROOT, run, succeed, without_workers

from mmvitbackbones.evaluation import ResultPlots
from mmvitbackbones.evaluation.matching import match, precision_by_recall
from mmvitbackbones.running import load_config

BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [50, 0, 60, 10]], float)


def test_matching():
    """A true object is found once; one of the right class goes first; the rest is unmatched."""
    true = np.array([3, 1, 2])
    assert match(BOXES, true, BOXES, true) == [(3, 3), (1, 1), (2, 2)]
    twice = BOXES[[0, 0, 1]]
    assert match(twice, np.array([3, 3, 0]), BOXES, true) == [(3, 3), (-1, 3), (1, 0), (2, -1)]
    both = np.array([[0, 0, 10, 10], [0, 1, 10, 10]], float)  # covered a little better, by another
    assert match(BOXES[:1], np.array([5]), both, np.array([4, 5])) == [(5, 5), (4, -1)]
    assert match(BOXES[:0], true[:0], BOXES, true) == [(3, -1), (1, -1), (2, -1)]
    # What lies in a crowd counts only if it finds an object.
    assert match(BOXES[:2], true[:2], BOXES[:1], true[:1], ignored=BOXES[:2]) == [(3, 3)]


def detections(scores, labels, boxes=BOXES, true_labels=(0, 1, 1), ignored=(0, 0, 0)):
    return dict(
        boxes=boxes,
        scores=np.array(scores),
        labels=np.array(labels),
        true_boxes=BOXES,
        true_labels=np.array(true_labels),
        true_ignored=np.array(ignored, bool),
    )


def test_precision_by_recall():
    """Class 0 is found; of class 1 one of two, after a false one; class 2 is nowhere."""
    images = [detections([0.9, 0.8, 0.7], [0, 1, 1], boxes=BOXES + [[0], [90], [0]])]
    thresholds, recall, precision = precision_by_recall(images, 3)
    assert thresholds[0] == 0.5 and precision.shape == (10, 101, 3)
    np.testing.assert_allclose(precision[0, :, 0], 1)
    np.testing.assert_allclose(precision[0, recall <= 0.5, 1], 0.5)
    assert (precision[0, recall > 0.5, 1] == 0).all() and np.isnan(precision[:, :, 2]).all()
    _, _, nothing = precision_by_recall([detections([], [], boxes=BOXES[:0])], 2)
    assert (nothing == 0).all()


def is_picture(path):
    pixels = cv2.imread(str(path))
    return pixels is not None and min(pixels.shape[:2]) > 100 and pixels.std() > 5


FOUR = ['best', 'confusion_matrix', 'precision_recall', 'worst']
KINDS = dict(
    detector=('mmdet', 'retinanet_vil_s_1x', FOUR),
    segmenter=('mmseg', 'semfpn_rmt_t_80k', ['best', 'confusion_matrix', 'worst']),
    classifier=('mmpretrain', 'demo_cls_vil', FOUR),
)


def untrained(name, folder):
    """A narrow config, and a checkpoint for it."""
    config = folder / 'narrow.py'
    lines = [f"_base_ = '{ROOT}/configs/{name}.py'"]
    if 'demo' not in name:
        cfg = narrow_config(name)
        lines += [f'model = {dict(_delete_=True, **cfg.model.to_dict())}']
    config.write_text('\n'.join(lines))
    cfg = load_config(str(config), demo=True)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'model.pth')
    return config, folder / 'model.pth'


@pytest.mark.parametrize('kind', KINDS)
def test_plots(kind, tmp_path):
    package, name, expected = KINDS[kind]
    pytest.importorskip(package)
    config, checkpoint = untrained(name, tmp_path)
    options = [*without_workers('test'), 'test_dataloader.dataset.indices=8', 'demo.size=64']
    plots = tmp_path / 'plots' / 'deep'
    arguments = ('test', config, checkpoint, '--demo', '--work-dir', tmp_path)
    assert f'Plots: {plots}' in succeed(*arguments, '--plots', plots, options=options)
    assert sorted(path.stem for path in plots.iterdir()) == expected
    assert all(map(is_picture, plots.iterdir()))
    done = run(*arguments, '--plots', checkpoint, options=options)
    assert done.returncode == 2 and 'is there already: name a new folder' in done.stderr


def test_worst_and_best_of_a_classifier(tmp_path, monkeypatch):
    """By the score of the true class."""
    pytest.importorskip('mmpretrain')
    drawn = {}
    keep = lambda self, name, figure: drawn.update({name: figure})  # noqa: E731
    monkeypatch.setattr(ResultPlots, '_save', keep)
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    metric = ResultPlots(str(tmp_path), 'classifier', num_images=1)
    metric.dataset_meta = dict(classes=['cat', 'dog'])
    scores = [(0.9, 0.1), (0.2, 0.8), (0.6, 0.4)]
    metric.process(
        None,
        [
            dict(pred_score=np.array(each), gt_label=[label], img_path=str(tmp_path / 'a.png'))
            for each, label in zip(scores, (0, 0, 1))
        ],
    )
    assert metric.compute_metrics(metric.results) == {}
    said = {name: drawn[name].axes[0].get_title(loc='left') for name in ('worst', 'best')}
    assert said == dict(worst='true cat: 0.20, found dog: 0.80', best='true cat: 0.90')
    texts = [text.get_text() for text in drawn['confusion_matrix'].axes[0].texts]
    assert texts == ['50', '50', '100']  # cats as cats and dogs, the dog as a cat


def test_without_the_truth(tmp_path):
    for kind, sample in dict(
        detector={}, segmenter={}, classifier=dict(pred_score=np.ones(2))
    ).items():
        with pytest.raises(ValueError, match='--plots needs'):
            ResultPlots(str(tmp_path), kind).process(None, [sample])
    with pytest.raises(ValueError, match="kind must be .*, got 'tracker'"):
        ResultPlots(str(tmp_path), 'tracker')
    plots = dict(type='mmvitbackbones.evaluation.ResultPlots', folder='x', kind='detector')
    built = Evaluator(plots)
    assert isinstance(built.metrics[0], ResultPlots)
