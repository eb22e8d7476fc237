from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, VISUALIZERS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn

from ..datasets.digit_scenes import write_image
from ..seeing.colours import principal_colours
from .runner_model import model_of

SIDE = 256  # pixels a picture, each
TITLE = 24  # pixels above


@HOOKS.register_module()
class PredictionGridHook(Hook):
    """Draws what a detector finds on the same images while it trains, side by side in one file.

    A row for each image: the truth, the predictions at several times, and, from the last time,
    the backbone's first maps: the three directions in which they vary most, as red, green and blue.

    Args:
        fractions (Sequence[float]): The times, as fractions of the training.
        num_images (int): How many images, spread over the validation data.
        score_thr (float): The least score of what is drawn.
        file_name (str): The file, in the work folder; a PNG.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        fractions: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
        num_images: int = 4,
        score_thr: float = 0.3,
        file_name: str = 'progress.png',
    ) -> None:
        if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
            raise ValueError(f'fractions must be above 0 and at most 1, got {fractions!r}')
        self.fractions = sorted(fractions)
        self.num_images = num_images
        self.score_thr = score_thr
        self.file_name = file_name

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Read the images."""
        dataset = runner.val_loop.dataloader.dataset
        places = np.linspace(0, len(dataset) - 1, self.num_images).astype(int)
        self._samples = [dataset[int(place)] for place in places]
        self._visualizer = VISUALIZERS.build(
            dict(type=runner.cfg.visualizer.type, name='prediction_grid')
        )
        self._visualizer.dataset_meta = dataset.metainfo
        self._columns: list[np.ndarray] = []

    @master_only
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Draw and write at the given times."""
        done, total = runner.iter + 1, runner.max_iters
        if done not in {max(1, round(fraction * total)) for fraction in self.fractions}:
            return
        model = model_of(runner)
        predictions, features = _predict(model, self._samples)
        if not self._columns:
            truth = [_drawn(self._visualizer, sample, draw_gt=True) for sample in predictions]
            self._columns = [_column('truth', truth)]
        found = [
            _drawn(self._visualizer, sample, draw_pred=True, pred_score_thr=self.score_thr)
            for sample in predictions
        ]
        title = f'{100 * done / total:.0f} % of training'
        if not any((each.pred_instances.scores > self.score_thr).any() for each in predictions):
            title += ': none found'
        self._columns.append(_column(title, found))
        columns = self._columns
        if done == total:
            columns = [*columns, _column('first features', principal_colours(features))]
        path = Path(runner.work_dir, self.file_name)
        write_image(path, np.hstack(columns)[..., ::-1])
        runner.logger.info(f'Predictions so far: {path}')


@torch.no_grad()
def _predict(model: Any, samples: list[Any]) -> tuple[list[Any], list[torch.Tensor]]:
    """What the model finds, and the first map of its backbone, each in the shape of its image."""
    predictions, features = [], []

    def keep(module: nn.Module, inputs: Any, maps: Sequence[torch.Tensor]) -> None:
        features.append(maps[0][0])

    handle = model.backbone.register_forward_hook(keep)
    training = model.training
    model.eval()
    try:
        for sample in samples:
            predictions += model.test_step(pseudo_collate([sample]))
    finally:
        model.train(training)
        handle.remove()
    # Without what lies on the padding alone.
    for number, prediction in enumerate(predictions):
        sides = zip(features[number].shape[1:], prediction.img_shape, prediction.batch_input_shape)
        height, width = (math.ceil(whole * shown / padded) for whole, shown, padded in sides)
        features[number] = features[number][:, :height, :width]
    return predictions, features


def _drawn(visualizer: Visualizer, sample: Any, **what: Any) -> np.ndarray:
    """A picture of what is true or what is predicted, RGB (H, W, 3)."""
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    what = {'draw_gt': False, 'draw_pred': False, **what}
    visualizer.add_datasample('picture', image, sample, **what)
    return visualizer.get_image()


def _column(title: str, pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures below each other, all of one size, under a title; RGB."""
    bar = np.full((TITLE, SIDE, 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(bar, title, (4, TITLE - 7), font, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([bar, *(_square(picture) for picture in pictures)])


def _square(picture: np.ndarray) -> np.ndarray:
    """A picture enlarged or reduced to fit a white square."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (round(width * scale), round(height * scale))
    nearest = cv2.INTER_NEAREST if scale > 2 else cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.full((SIDE, SIDE, 3), 255, np.uint8)
    square[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=nearest)
    return square
