from __future__ import annotations

import logging
from typing import Any

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor with one group for all parameters that share their settings.

    mmengine makes a group of each parameter, logs a line or two about each, and the optimizer then
    updates one at a time. Training is the same; the log has one line a group.
    """

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the groups of a module, in the order of their first parameters.

        Args:
            params (list[dict]): The groups, changed in place.
            module (nn.Module): The module.
            prefix (str): Its name in the model, '' for the model itself.
            is_dcn_module (int or float, optional): As in mmengine's constructor.
        """
        if prefix:
            super().add_params(params, module, prefix, is_dcn_module)
            return
        logger = MMLogger.get_current_instance()
        single: list[dict[str, Any]] = []
        logger.addFilter(_is_no_line_of_a_parameter)
        try:
            super().add_params(single, module, prefix, is_dcn_module)
        finally:
            logger.removeFilter(_is_no_line_of_a_parameter)
        groups: dict[str, tuple[dict[str, Any], list[nn.Parameter]]] = {}
        for settings in single:
            parameters = settings.pop('params')
            key = repr(sorted(settings.items()))
            groups.setdefault(key, (settings, []))[1].extend(parameters)
        for settings, parameters in groups.values():
            own = ', '.join(f'{key}={value}' for key, value in settings.items())
            logger.info(f'{len(parameters)} parameters with {own or "the common settings"}')
            params.append({'params': parameters, **settings})


def _is_no_line_of_a_parameter(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith('paramwise_options')
