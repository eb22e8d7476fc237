"""Multi-scale and flip testing."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from .nodes import dicts


def use_tta(cfg: Config) -> None:
    """Test on several views of each image: the config's ``tta_pipeline`` and ``tta_model``.

    Args:
        cfg (Config): The config, changed in place.

    Raises:
        ValueError: If it has no such settings.
    """
    missing = [name for name in ('tta_pipeline', 'tta_model') if not cfg.get(name)]
    if missing:
        raise ValueError(
            f'--tta needs {" and ".join(missing)}, which {cfg.filename} lacks. Detectors on COCO '
            "get both from configs/_base_/tta_coco.py; segmenters get them from mmsegmentation's "
            '_base_/default_runtime.py and _base_/datasets/ade20k.py; classifiers have none'
        )
    for part in dicts(cfg.test_dataloader):
        if 'pipeline' in part:
            part['pipeline'] = cfg.tta_pipeline
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)
