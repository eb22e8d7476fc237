"""Another size of images in all parts of a config at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config

from .nodes import dicts

_Part = dict[str, Any]  # a part of a config
LEAST = 32  # pixels: the stride of the last stage
# Steps that cut images or fill them up, and the setting that says to what size.
_CUT_OR_FILLED = dict(RandomCrop='crop_size', Pad='size', BatchFixedSizePad='size')


def set_image_size(cfg: Config, size: list[int]) -> str:
    """Resize images to another size in training, testing and test-time augmentation.

    Random sizes, crops, windows of sliding inference and paddings change in proportion.

    Args:
        cfg (Config): A detector's, segmenter's or classifier's config, changed in place.
        size (list[int]): Short and largest long side in pixels for a detector; the side of the
            square that is cropped for a segmenter or classifier.

    Returns:
        str: What was done.

    Raises:
        ValueError: If there are too many or too few numbers, or they are too small.
    """
    scope = cfg.get('default_scope')
    expected = 2 if scope == 'mmdet' else 1
    if len(size) != expected:
        words = 'SHORT LONG for a detector' if expected == 2 else 'SIDE for this kind of model'
        raise ValueError(f'--image-size takes {words}, got {" ".join(map(str, size))}')
    if min(size) < LEAST or size != sorted(size):
        raise ValueError(f'--image-size must be at least {LEAST}, and SHORT not above LONG')
    if scope == 'mmdet':
        return _of_detector(cfg, size[0], size[1])
    return (_of_segmenter if scope == 'mmseg' else _of_classifier)(cfg, size[0])


def fit_crops(cfg: Config, short_side: int) -> list[str]:
    """Take smaller crops for a segmenter where the images are smaller than the config's crops.

    Larger images stay as the config resizes them.

    Args:
        cfg (Config): A segmenter's config, changed in place.
        short_side (int): Of a usual image, in pixels.

    Returns:
        list[str]: What was done, if anything.
    """
    config_side = _crop_side(cfg)
    side = max(-(-short_side // LEAST) * LEAST, LEAST)
    if side >= config_side:
        return []
    said = set_image_size(cfg, [side])
    return [
        f'{said}, as half of the images have a side of at most {short_side} (by hand: --image-size '
        f"SIDE; the config's own is {config_side})"
    ]


def _of_detector(cfg: Config, short: int, long: int) -> str:
    old_short, old_long = sorted(_test_scale(cfg))

    def resized(scale: tuple[int, int]) -> tuple[int, ...]:
        many = round(max(scale) * long / old_long)
        few = min(round(min(scale) * short / old_short), many)
        return (few, many) if scale[0] <= scale[1] else (many, few)

    def cropped(sides: Any) -> tuple[int, ...]:
        return tuple(round(side * short / old_short) for side in sides)

    _change(cfg, resized, cropped)
    return f'images at {short} x {long} (short x long side)'


def _of_segmenter(cfg: Config, side: int) -> str:
    old = _crop_side(cfg)

    def changed(sides: Any) -> tuple[int, ...]:
        return tuple(round(each * side / old) for each in sides)

    _change(cfg, changed, changed)
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        preprocessor['size'] = changed(preprocessor['size'])
    test_cfg = cfg.model.get('test_cfg') or {}
    for key in ('crop_size', 'stride'):
        if test_cfg.get(key):
            test_cfg[key] = changed(test_cfg[key])
    return f'crops of {side} x {side}'


def _of_classifier(cfg: Config, side: int) -> str:
    crops = [*_steps(cfg, 'RandomResizedCrop'), *_steps(cfg, 'CenterCrop')]
    old = next((step.get('crop_size') or step['scale'] for step in crops), 224)
    for step in dicts(list(cfg.values())):
        kind = _kind(step)
        if kind in ('RandomResizedCrop', 'ResizeEdge', 'Resize') and isinstance(step['scale'], int):
            step['scale'] = round(step['scale'] * side / old)
        elif kind == 'CenterCrop':
            step['crop_size'] = round(step['crop_size'] * side / old)
    return f'images at {side} x {side}'


def _change(
    cfg: Config,
    resized: Callable[[Any], tuple[int, ...]],
    cropped: Callable[[Any], tuple[int, ...]],
) -> None:
    """Change the scales and crops of all pipelines; those that several share once."""
    seen: set[int] = set()
    for step in dicts(list(cfg.values())):
        kind = _kind(step)
        if id(step) in seen:
            continue
        seen.add(id(step))
        if kind == 'Resize' and step.get('scale'):
            step['scale'] = resized(step['scale'])
        elif kind in ('RandomResize', 'RandomChoiceResize'):
            key = 'scales' if kind == 'RandomChoiceResize' else 'scale'
            value = step[key]
            several = isinstance(value[0], (list, tuple))
            step[key] = [resized(each) for each in value] if several else resized(value)
        elif kind in _CUT_OR_FILLED and step.get(_CUT_OR_FILLED[kind]):
            step[_CUT_OR_FILLED[kind]] = cropped(step[_CUT_OR_FILLED[kind]])


def _crop_side(cfg: Config) -> int:
    """The side of a segmenter's crops, or of its whole images."""
    crop = next((step['crop_size'] for step in _steps(cfg, 'RandomCrop')), None)
    return min(crop or _test_scale(cfg))


def _test_scale(cfg: Config) -> tuple[int, int]:
    """The scale that images are tested at.

    Raises:
        ValueError: If the config does not say.
    """
    for step in dicts(cfg.get('test_dataloader')):
        if _kind(step) == 'Resize' and isinstance(step.get('scale'), (list, tuple)):
            return step['scale'][0], step['scale'][1]
    raise ValueError('--image-size needs a Resize with a scale in test_dataloader')


def _steps(cfg: Config, kind: str) -> Iterator[_Part]:
    return (step for step in dicts(cfg.get('train_dataloader')) if _kind(step) == kind)


def _kind(step: _Part) -> str:
    """A step's type without its scope."""
    return str(step.get('type', '')).rpartition('.')[2]
