"""Errors of a data pipeline name the image that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner


class SampleError(RuntimeError):
    """What went wrong with one image; one text, as a loader's process passes it on."""


class _Naming(Compose):
    """A pipeline whose errors name the image."""

    def __init__(self, pipeline: Compose) -> None:
        self.transforms = pipeline.transforms

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        path = data.get('img_path')  # steps may take it away
        try:
            return super().__call__(data)
        except SampleError:
            raise
        except Exception as error:
            raise SampleError(f'{path}: {type(error).__name__}: {error}') from error


@HOOKS.register_module()
class NameSampleHook(Hook):
    """Makes errors that end an epoch name the image that they are about.

    Of a broken image OpenCV says ``!buf.empty()``, of an annotation without a mask mmdetection
    says ``KeyError: 'mask'``, and neither says where. Before a loader starts to read, the pipelines
    of its data sets are put into one that adds the path; what the steps do stays the same.
    """

    def before_run(self, runner: Runner) -> None:
        """Wrap the pipelines of the training, before ReproducibleHook starts its workers."""
        if isinstance(runner._train_loop, BaseLoop):  # in a test there are only its settings
            _wrap(runner.train_dataloader)

    def before_val(self, runner: Runner) -> None:
        """Wrap the pipelines of the validation."""
        _wrap(runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        """Wrap the pipelines of the test."""
        _wrap(runner.test_dataloader)


def _wrap(loader: Any) -> None:
    for dataset in _datasets(getattr(loader, 'dataset', None)):
        pipeline = getattr(dataset, 'pipeline', None)
        # Those that mix several images have a list of steps, and the mixed ones are named.
        if type(pipeline) is Compose:
            dataset.pipeline = _Naming(pipeline)


def _datasets(dataset: Any) -> Iterator[Any]:
    """A data set, and those that it repeats, mixes or joins."""
    if dataset is None:
        return
    yield dataset
    yield from _datasets(getattr(dataset, 'dataset', None))
    for part in getattr(dataset, 'datasets', None) or []:
        yield from _datasets(part)
