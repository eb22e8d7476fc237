"""Our counts against the papers': parameters and multiplications of each row."""

from __future__ import annotations

import copy

from mmengine.config import Config

from .complexity import measure
from .rows import Row, Zoo


def measure_row(name: str, zoo: Zoo, cfg: Config) -> tuple[float, float]:
    """Count a row of the model zoo in the way of its paper.

    Args:
        name (str): The row, the config's name.
        zoo (Zoo): The model zoo.
        cfg (Config): The config.

    Returns:
        tuple[float, float]: Parameters in millions, multiplications in thousand millions.
    """
    convention, cfg = zoo.convention(name), copy.deepcopy(cfg)
    if not convention.semantic:
        cfg.model.roi_head.semantic_head = None
    model = measure(cfg, zoo.rows[name].size, convention.boxes, convention.masks)['model']
    gmacs = model.gmacs
    if convention.products:
        gmacs += model.products - (0 if convention.beyond_map else model.masked)
    if not convention.depthwise:
        gmacs -= model.depthwise
    if not convention.classifier:
        return model.params, gmacs
    dims = cfg.model.neck.in_channels[-1]  # of the last stage
    return model.params + (2 * dims + (dims + 1) * 1000) / 1e6, gmacs


def disagreements(row: Row, params: float, gmacs: float) -> list[str]:
    """Say where a row's published numbers differ from ours.

    Args:
        row (Row): The row.
        params (float): Our parameters in millions.
        gmacs (float): Our multiplications in thousand millions.

    Returns:
        list[str]: Parameters that differ by more than 1 % and by more than the published digits
        tell, multiplications that differ by more than 5 %.
    """
    ours = dict(params=params, gmacs=gmacs)
    found = []
    for key, unit, tolerance in (('params', 'M', 0.01), ('gmacs', 'G', 0.05)):
        published = row.published.get(key)
        if published is None:
            continue
        digits = len(str(published).partition('.')[2])
        allowed = tolerance * published
        if key == 'params':
            allowed = max(allowed, 0.5 * 10**-digits)
        if abs(ours[key] - published) > allowed:
            found.append(
                f'{ours[key]:.2f} {unit} instead of {published} {unit}, '
                f'{100 * (ours[key] / published - 1):+.1f} %'
            )
    return found
