"""The model that a runner trains."""

from __future__ import annotations

from typing import Any

from mmengine.runner import Runner


def model_of(runner: Runner) -> Any:
    """A runner's model, without what wraps it when several processes train together."""
    return getattr(runner.model, 'module', runner.model)
