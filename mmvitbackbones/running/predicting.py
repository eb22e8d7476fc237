"""A trained model that predicts on any images."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, init_default_scope
from torch import nn

from ..checkpoints import is_published
from ..checkpoints.family import family_of
from .carried_config import carried_config, test_dataset
from .config import load_config
from .image_files import Image, ImageFile, reason
from .loading import load_complete, use_published
from .nodes import dicts
from .published import name_of

KINDS = dict(mmdet='detector', mmseg='segmenter', mmpretrain='classifier')


def kind_of(cfg: Config) -> str:
    """What a config's model is: one of ``KINDS``.

    Raises:
        ValueError: If its toolbox is none of them.
    """
    scope = cfg.get('default_scope')
    if scope not in KINDS:
        raise ValueError(
            f'the default_scope of a config must be one of {", ".join(KINDS)} for its model to '
            f'predict, got {scope!r}'
        )
    return KINDS[scope]


def build_with_own_backbone(cfg: Config, path: str) -> Any:
    """Build a config's model, without weights, in evaluation mode.

    Args:
        cfg (Config): The config, which stays as it is.
        path (str): Its file, or that which it is in, for messages.

    Raises:
        ValueError: If its toolbox is none that predicts, or its backbone none of this package.
    """
    kind = kind_of(cfg)
    init_default_scope(cfg.default_scope)
    settings = copy.deepcopy(cfg.model)  # building adds to it
    if kind == 'classifier':
        settings.pop('train_cfg', None)  # a log line of how batches would be mixed
    model: Any = MODELS.build(settings).eval()
    if family_of(model.backbone) is None:
        raise ValueError(
            f'{path} has the backbone {type(model.backbone).__name__}, this tool is for those of '
            'mmvitbackbones'
        )
    return model


@dataclass(frozen=True)
class Found:
    """What a model predicts on an image.

    Attributes:
        scores (np.ndarray): Of detections, the best first; of a classifier's classes.
        labels (np.ndarray, optional): Numbers of the detections' classes; for a segmenter of each
            pixel's class, (H, W).
        boxes (np.ndarray, optional): Detections' x1, y1, x2, y2, in pixels of the image.
        masks (np.ndarray, optional): Detections' masks, (N, H, W).
    """

    scores: np.ndarray
    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None
    masks: np.ndarray | None = None


def config_for(
    checkpoint: Mapping[str, Any],
    path: str,
    config: str | None,
    cfg_options: Mapping[str, Any] | None,
) -> Config:
    """The config of a checkpoint's model: the one that is named, else that in the checkpoint.

    Args:
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for messages.
        config (str, optional): The config's file or name.
        cfg_options (Mapping[str, Any], optional): Settings that override it.

    Returns:
        Config: With the settings of a published detector where it is one.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If there is none in the checkpoint, or it does not fit.
    """
    options = dict(cfg_options or {})
    if config:
        cfg = load_config(config, options)
    elif is_published(checkpoint):
        raise ValueError(f'{path} is a published file, without a config: name it by --config')
    else:
        carried = carried_config(checkpoint, path)
        if carried is None:
            raise ValueError(
                f'{path} carries no config: name the one it was trained with by --config'
            )
        carried.merge_from_dict(options)
        cfg = carried
    return use_published(cfg, checkpoint, path, options)


class Predictor:
    """A model, its weights, and what prepares images for it, by its toolbox's inferencer.

    Calling an inferencer would keep the predictions of all images until the last one, and end at
    the first broken one. So only its ``pipeline`` and its ``forward`` are called.

    Args:
        cfg (Config): The config.
        checkpoint (Mapping[str, Any]): What the checkpoint holds.
        path (str): The checkpoint's file, for messages.
        device (str): Where the model runs, e.g. 'cpu' or 'cuda:0'.
        score_thr (float): Detections below this score are left out.

    Raises:
        ValueError: If the checkpoint does not fit the config, or no toolbox predicts with it.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: Mapping[str, Any],
        path: str,
        device: str,
        score_thr: float = 0.3,
    ) -> None:
        self.kind = kind_of(cfg)
        scope = cfg.default_scope
        init_default_scope(scope)
        self.score_thr = score_thr
        dataset = test_dataset(cfg)
        if not dataset.get('pipeline'):
            raise ValueError('the config has no test_dataloader, whose pipeline prepares images')
        self.classes, self.palette = classes_and_colours(cfg, checkpoint, dataset)
        self._read = TRANSFORMS.build(_reader(dataset['pipeline']))
        build = _classifier if scope == 'mmpretrain' else _detector_or_segmenter
        self._inferencer, self._prepare, self._collate = build(
            _without_data(cfg, dataset),
            device,
            lambda model: load_complete(model, checkpoint, path),
        )

    def read(self, path: str) -> np.ndarray:
        """Read an image as the config does: BGR (H, W, 3), or grey (H, W)."""
        image: np.ndarray = self._read(dict(img_path=path))['img']
        return image

    def predict(
        self,
        images: Iterable[Image],
        batch_size: int,
        skip: Callable[[ImageFile, str], None],
    ) -> Iterator[tuple[Image, Found]]:
        """Predict on images, in their order; no more than a batch of them is kept.

        Args:
            images (Iterable[Image]): The images.
            batch_size (int): How many at once. Segmenters take images of one size together.
            skip (Callable[[ImageFile, str], None]): Told of what cannot be prepared, and why.

        Yields:
            tuple: An image, and what was found.
        """
        batch: list[tuple[Image, Any]] = []
        for image in images:
            try:
                item = self._prepare(image.pixels)
            except Exception as error:  # a width of no pixels after resizing, for example
                skip(image.file, reason(error))
                continue
            if batch and (len(batch) == batch_size or not self._together(batch[0][1], item)):
                yield from self._forward(batch)
                batch = []
            batch.append((image, item))
        if batch:
            yield from self._forward(batch)

    def _together(self, one: Any, other: Any) -> bool:
        """Whether two images can be in one batch: mmsegmentation pads none."""
        return self.kind == 'detector' or one['inputs'].shape == other['inputs'].shape

    def _forward(self, batch: Sequence[tuple[Image, Any]]) -> Iterator[tuple[Image, Found]]:
        samples = self._inferencer.forward(self._collate([item for _, item in batch]))
        for (image, _), sample in zip(batch, samples):
            yield image, self._found(sample)

    def _found(self, sample: Any) -> Found:
        if self.kind == 'classifier':
            return Found(_array(sample.pred_score))
        if self.kind == 'segmenter':
            return Found(np.empty(0), _array(sample.pred_sem_seg.data[0]))
        found = sample.pred_instances
        # A threshold before masks of whole images come from the GPU.
        found = found[found.scores >= self.score_thr]
        found = found[found.scores.argsort(descending=True, stable=True)]
        masks = _array(found.masks) if 'masks' in found else None
        return Found(_array(found.scores), _array(found.labels), _array(found.bboxes), masks)


def _detector_or_segmenter(
    cfg: Config, device: str, fill: Callable[[nn.Module], None]
) -> tuple[Any, Callable[[np.ndarray], Any], Callable[[Sequence[Any]], Any]]:
    """An inferencer, what prepares an image for it, and what makes a batch."""
    name = 'DetInferencer' if cfg.default_scope == 'mmdet' else 'MMSegInferencer'
    base: Any = getattr(importlib.import_module(f'{cfg.default_scope}.apis'), name)

    class Inferencer(base):
        """Loads the weights by this package; needs no data set for its colours."""

        def _load_weights_to_model(self, model: Any, checkpoint: Any, cfg: Any) -> None:
            fill(model)
            model.dataset_meta = {}

        def _init_collate(self, cfg: Any) -> Any:
            return pseudo_collate  # it comes to that, after a warning

    inferencer = Inferencer(cfg, device=device)
    return inferencer, inferencer.pipeline, inferencer.collate_fn


def _classifier(
    cfg: Config, device: str, fill: Callable[[nn.Module], None]
) -> tuple[Any, Callable[[np.ndarray], Any], Callable[[Sequence[Any]], Any]]:
    """As :func:`_detector_or_segmenter`."""
    cfg.model.pop('train_cfg', None)  # a log line of how batches would be mixed
    model = MODELS.build(cfg.model)
    model._config = cfg
    fill(model)
    if device == 'cpu':
        model = revert_sync_batchnorm(model)
    apis = importlib.import_module('mmpretrain.apis')
    inferencer = apis.ImageClassificationInferencer(model, device=device)

    def prepare(pixels: np.ndarray) -> Any:
        # What its preprocess() makes of an image, which it reads in its own way, not the config's.
        shape = pixels.shape[:2]
        return inferencer.pipeline(dict(img=pixels, img_shape=shape, ori_shape=shape))

    return inferencer, prepare, default_collate


def _without_data(cfg: Config, dataset: Mapping[str, Any]) -> Config:
    """What the inferencers need of a config: the model, and how images are prepared.

    They want a visualizer, too: one without a folder or a server to write to.
    """
    visualizer = 'SegLocalVisualizer' if cfg.default_scope == 'mmseg' else 'DetLocalVisualizer'
    model = dict(cfg.model)
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))  # as a Runner does
    loader = dict(dataset=dict(pipeline=dataset['pipeline']))
    settings = dict(model=model, default_scope=cfg.default_scope, test_dataloader=loader)
    return Config(dict(settings, visualizer=dict(type=visualizer)))


def _reader(pipeline: Sequence[ConfigDict]) -> dict[str, Any]:
    """The step of a pipeline that reads images, for pictures too: without floats.

    Raises:
        ValueError: If there is none.
    """
    for step in pipeline:
        if name_of(step['type']) == 'LoadImageFromFile':
            return {key: value for key, value in step.items() if key != 'to_float32'}
    raise ValueError('the test pipeline of the config has no LoadImageFromFile')


def classes_and_colours(
    cfg: Config, checkpoint: Mapping[str, Any], dataset: Mapping[str, Any]
) -> tuple[list[str], list[tuple[int, int, int]] | None]:
    """Names and colours of classes: the checkpoint's, else those of the config's data set.

    Args:
        cfg (Config): The config.
        checkpoint (Mapping[str, Any]): What the checkpoint holds.
        dataset (Mapping[str, Any]): The config's data set.

    Returns:
        tuple: The names, numbers where there are none; and the colours, RGB, if there are any.

    Raises:
        ValueError: If neither has as many as the model.
    """
    meta = checkpoint.get('meta')
    meta = (meta.get('dataset_meta') if isinstance(meta, Mapping) else None) or {}
    counts = {part['num_classes'] for part in dicts(cfg.model) if part.get('num_classes')}
    other = 0
    for info in (meta, _metainfo(dataset)):
        names = [' '.join(str(name).split()) for name in info.get('classes') or ()]
        if names and (not counts or len(names) in counts):
            palette = info.get('palette')
            if not isinstance(palette, (list, tuple)) or len(palette) < len(names):
                return names, None
            return names, [(int(red), int(green), int(blue)) for red, green, blue in palette]
        other = other or len(names)
    if other:
        raise ValueError(
            f'there are names of {other} classes, the model is for '
            f'{" or ".join(map(str, sorted(counts)))}: '
            '--cfg-options test_dataloader.dataset.metainfo.classes=a,b,c names them'
        )
    return [str(number) for number in range(max(counts, default=0))], None


def _metainfo(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a data set says of its classes, without its files."""
    metainfo = dataset.get('metainfo') or {}
    classes = metainfo.get('classes') or dataset.get('classes')
    if isinstance(classes, (list, tuple)):
        return dict(metainfo, classes=classes)
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return getattr(kind, 'METAINFO', {})


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
