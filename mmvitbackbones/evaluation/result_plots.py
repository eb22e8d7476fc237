"""Pictures of a test's results: ``tools/test.py --plots FOLDER``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from ..running.pictures import draw
from ..running.predicting import Found
from ..seeing.drawing import save
from .figures import confusion_figure, pictures_figure, precision_recall_figure
from .matching import IOU, match, precision_by_recall

_BACKGROUND = 'nothing'
_CURVES = 30  # classes at most with a curve of their own
_POINTS = 2000  # of a curve
_Rows = list[tuple[str, list[np.ndarray]]]


@METRICS.register_module()
class ResultPlots(BaseMetric):
    """Draws precision by recall, the confusion matrix, and the worst and the best images.

    Args:
        folder (str): For the pictures, which are named ``confusion_matrix.png`` and alike.
        kind (str): 'detector', 'segmenter' or 'classifier'.
        score_thr (float): The least score of detections that count, but for precision by recall.
            Defaults to 0.3.
        num_images (int): How many worst and how many best images. Defaults to 6.
    """

    default_prefix = 'plots'

    def __init__(
        self, folder: str, kind: str, score_thr: float = 0.3, num_images: int = 6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if kind not in ('detector', 'segmenter', 'classifier'):
            raise ValueError(f'kind must be detector, segmenter or classifier, got {kind!r}')
        self.folder = Path(folder)
        self.kind = kind
        self.score_thr = score_thr
        self.num_images = num_images

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep of each image what the pictures need."""
        collect: Callable[[dict[str, Any]], dict[str, Any]] = getattr(self, f'_of_{self.kind}')
        self.results += [collect(sample) for sample in data_samples]

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Draw; no numbers come of it, the metrics have them."""
        classes = [str(name) for name in self.dataset_meta['classes']]
        plot: Callable[..., None] = getattr(self, f'_plot_{self.kind}')
        plot(results, classes)
        return {}

    def _save(self, name: str, figure: Any) -> None:
        save(figure, self.folder / f'{name}.png')

    def _save_extremes(
        self,
        results: list[dict[str, Any]],
        draw_one: Callable[[dict[str, Any]], tuple[str, list[np.ndarray]]],
        what: str,
    ) -> None:
        """The images of the lowest scores, and of the highest."""
        ranked = sorted(results, key=lambda result: result['score'])
        for name, chosen in (('worst', ranked), ('best', ranked[::-1])):
            rows = [draw_one(result) for result in chosen[: self.num_images]]
            self._save(name, pictures_figure(rows, f'The {name} images: {what}'))

    def _of_detector(self, sample: dict[str, Any]) -> dict[str, Any]:
        if 'gt_instances' not in sample:
            raise ValueError('--plots needs the truth: the test_pipeline has no LoadAnnotations')
        found, true = sample['pred_instances'], sample['gt_instances']
        ignored = sample.get('ignored_instances') or {}
        many = [(true, False)] + ([(ignored, True)] if len(ignored) else [])
        result = dict(
            path=sample['img_path'],
            boxes=_boxes(found['bboxes']),
            scores=_array(found['scores']),
            labels=_array(found['labels']),
            true_boxes=np.concatenate([_boxes(each['bboxes']) for each, _ in many]),
            true_labels=np.concatenate([_array(each['labels']) for each, _ in many]),
            true_ignored=np.concatenate(
                [np.full(len(_array(each['labels'])), flag) for each, flag in many]
            ),
        )
        order = np.argsort(-result['scores'], kind='stable')
        for key in ('boxes', 'scores', 'labels'):
            result[key] = result[key][order]
        kept, own = result['scores'] >= self.score_thr, ~result['true_ignored']
        result['pairs'] = match(
            result['boxes'][kept],
            result['labels'][kept],
            result['true_boxes'][own],
            result['true_labels'][own],
            result['true_boxes'][~own],
        )
        right = sum(one == other for one, other in result['pairs'])
        # F1: an image without objects, in which nothing is found, is right.
        count = sum(other != -1 for _, other in result['pairs']) + own.sum()
        result['score'] = 2 * right / count if count else 1.0
        return result

    def _plot_detector(self, results: list[dict[str, Any]], classes: list[str]) -> None:
        names = [*classes, _BACKGROUND]
        counts = np.zeros((len(names), len(names)), int)
        for result in results:
            for one, other in result['pairs']:
                counts[one, other] += 1
        self._save('confusion_matrix', confusion_figure(counts, names, names))
        thresholds, recall, precision = precision_by_recall(results, len(classes))
        seen = precision[:, :, ~np.isnan(precision).all((0, 1))]
        if seen.shape[2]:
            curves = {
                f'IoU {thr:.2f}: AP {values.mean():.3f}': (recall, values.mean(1))
                for thr, values in zip(thresholds, seen)
                if round(float(thr), 2) in (0.5, 0.75, 0.9)
            }
            curves[f'IoU 0.50 to 0.95: AP {seen.mean():.3f}'] = recall, seen.mean((0, 2))
            figure = precision_recall_figure(curves, 'Boxes, mean of classes')
            self._save('precision_recall', figure)

        def draw_one(result: dict[str, Any]) -> tuple[str, list[np.ndarray]]:
            pixels = mmcv.imread(result['path'])
            own, kept = ~result['true_ignored'], result['scores'] >= self.score_thr
            truth = Found(np.ones(own.sum()), result['true_labels'][own], result['true_boxes'][own])
            found = Found(*(result[key][kept] for key in ('scores', 'labels', 'boxes')))
            drawn = [draw(pixels, each, classes)[..., ::-1] for each in (truth, found)]
            return f'F1 {result["score"]:.2f}, {Path(result["path"]).name}', drawn

        what = f'F1 at IoU {IOU} and scores from {self.score_thr}; truth left, found right'
        self._save_extremes(results, draw_one, what)

    def _of_segmenter(self, sample: dict[str, Any]) -> dict[str, Any]:
        if 'gt_sem_seg' not in sample:
            raise ValueError('--plots needs the truth: the test_pipeline has no LoadAnnotations')
        found, true = (
            _array(sample[key]['data']).squeeze(0) for key in ('pred_sem_seg', 'gt_sem_seg')
        )
        ignored = sample.get('ignore_index', 255)
        count = len(self.dataset_meta['classes'])
        judged = (true != ignored) & (true < count)
        # mmsegmentation gives a binary model's labels as floating-point numbers.
        found = found.astype(np.int64)
        pairs, counts = np.unique(
            true[judged].astype(np.int64) * count + found[judged], return_counts=True
        )
        matrix = _matrix([(pairs, counts)], count)
        right, union = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        # Of the classes that are there, found or true.
        score = float((right[union > 0] / union[union > 0]).mean()) if union.any() else 1.0
        return dict(
            path=sample['img_path'],
            pairs=pairs,
            counts=counts,
            score=score,
            found=_packed(found),
            true=_packed(np.where(judged, true, count)),
        )

    def _plot_segmenter(self, results: list[dict[str, Any]], classes: list[str]) -> None:
        matrix = _matrix([(each['pairs'], each['counts']) for each in results], len(classes))
        self._save('confusion_matrix', confusion_figure(matrix, classes, classes))
        palette = self.dataset_meta.get('palette')
        palette = [tuple(colour) for colour in palette] if palette else None

        def draw_one(result: dict[str, Any]) -> tuple[str, list[np.ndarray]]:
            pixels = mmcv.imread(result['path'])
            drawn = []
            for key in ('true', 'found'):
                labels: Any = cv2.imdecode(result[key], cv2.IMREAD_UNCHANGED)
                found = Found(np.empty(0), labels.astype(np.int64))
                names, colours = [*classes, ''], palette and [*palette, (128, 128, 128)]
                drawn.append(draw(pixels, found, names, colours)[..., ::-1])
            return f'mIoU {result["score"]:.2f}, {Path(result["path"]).name}', drawn

        self._save_extremes(results, draw_one, 'mIoU of each; truth left, found right')

    def _of_classifier(self, sample: dict[str, Any]) -> dict[str, Any]:
        labels = _array(sample.get('gt_label', []))
        if len(labels) != 1:
            raise ValueError(f'--plots needs one true class for each image, got {len(labels)}')
        scores, true = _array(sample['pred_score']), int(labels[0])
        return dict(
            path=sample.get('img_path'), scores=scores, true=true, score=float(scores[true])
        )

    def _plot_classifier(self, results: list[dict[str, Any]], classes: list[str]) -> None:
        from sklearn.metrics import average_precision_score, precision_recall_curve

        scores = np.stack([result['scores'] for result in results])
        true = np.array([result['true'] for result in results])
        matrix = np.zeros((len(classes), len(classes)), int)
        np.add.at(matrix, (true, scores.argmax(1)), 1)
        self._save('confusion_matrix', confusion_figure(matrix, classes, classes))
        hits = true[:, None] == np.arange(len(classes))
        precision, recall, _ = precision_recall_curve(hits.ravel(), scores.ravel())
        few = slice(None, None, -(-len(recall) // _POINTS))
        curves = {'all images and classes': (recall[few], precision[few])}
        seen = [label for label in range(len(classes)) if hits[:, label].any()]
        for label in seen if len(seen) <= _CURVES else ():
            precision, recall, _ = precision_recall_curve(hits[:, label], scores[:, label])
            mean = average_precision_score(hits[:, label], scores[:, label])
            curves[f'{classes[label]}: AP {mean:.3f}'] = recall, precision
        self._save('precision_recall', precision_recall_figure(curves, 'One class against all'))

        def draw_one(result: dict[str, Any]) -> tuple[str, list[np.ndarray]]:
            label = int(result['scores'].argmax())
            said = f'true {classes[result["true"]]}: {result["score"]:.2f}'
            if label != result['true']:
                said += f', found {classes[label]}: {result["scores"][label]:.2f}'
            return said, [mmcv.imread(result['path'])[..., ::-1]]

        if all(result['path'] for result in results):
            self._save_extremes(results, draw_one, 'score of the true class')


def _matrix(pairs: Sequence[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """Pixels by true and found class, of numbers of pairs and how often each comes."""
    matrix = np.zeros(count * count, np.int64)
    for numbers, counts in pairs:
        matrix[numbers] += counts
    return matrix.reshape(count, count)


def _packed(labels: np.ndarray) -> np.ndarray:
    """Labels of pixels as PNG: those of all images are kept until the end."""
    return cv2.imencode('.png', labels.astype(np.uint16))[1]


def _boxes(boxes: Any) -> np.ndarray:
    return _array(getattr(boxes, 'tensor', boxes)).reshape(-1, 4)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, 'detach') else np.asarray(values)
