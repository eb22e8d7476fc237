"""The model that a runner trains."""

from __future__ import annotations

from typing import Any

from mmengine.runner import Runner


def model_of(runner: Runner) -> Any:
    """A runner's model, without what wraps it for several processes or several views."""
    return unwrapped(runner.model)


def unwrapped(model: Any) -> Any:
    """A model without what wraps it."""
    while hasattr(model, 'module'):
        model = model.module
    return model
