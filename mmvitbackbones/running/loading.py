"""Whole classifiers are loaded here instead of by mmengine, which knows no published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import Runner

from ..checkpoints import LoadReport, load_published
from ..hooks.runner_model import model_of


def load_classifier(
    runner: Runner, checkpoint: Mapping[str, Any], path: str, complete: bool = False
) -> LoadReport:
    """Load a whole classifier, as published or our own, before a run.

    For training call its ``init_weights`` before: mmengine's own call does nothing then.

    Args:
        runner (Runner): Has the model, an ``ImageClassifier``.
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for messages.
        complete (bool): Whether parts may not start new, such as a head for other classes.

    Returns:
        LoadReport: What was loaded.

    Raises:
        ValueError: As :func:`load_published`; or if the file is not complete.
    """
    model = model_of(runner)
    try:
        report = load_published(model, checkpoint, source=path)
    except ValueError as error:
        hint = '' if complete else '. Its backbone alone is taken by model.backbone.init_cfg'
        raise ValueError(f'{error}{hint}') from None
    if complete and report.new:
        raise ValueError(
            f'{path} does not fit the config: {", ".join(report.new)} would start new, untrained. '
            'Is model.head.num_classes that of the file?'
        )
    runner._load_from = None
    return report
