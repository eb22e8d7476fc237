"""A page to click through what backbones attend to: one file, no network."""

from __future__ import annotations

import base64
import html
import json
import zlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from ..files import write_whole
from .encoding import encode
from .subject import Subject

MOST = 4  # backbones
LIMIT = 20 * 10**6  # bytes of a page
_REST = 10**6  # of them for pictures and the page itself


def write_page(subjects: Sequence[Subject], point: Sequence[float], path: Path) -> None:
    """Write a page; its folder is made.

    Args:
        subjects (Sequence[Subject]): Up to four backbones, with the same picture.
        point (Sequence[float]): The first query's x and y, as parts of width and height.
        path (Path): The file.

    Raises:
        ValueError: If the attention of a backbone does not fit.
    """
    # What base64 makes of three bytes are four.
    limit = (LIMIT - _REST) * 3 // 4 // len(subjects)
    backbones = []
    for subject in subjects:
        for factor in (2, 1.5, 1):  # they are compressed, how far is not known before
            stages, weights = encode(subject, int(factor * limit))
            packed = zlib.compress(weights)
            if len(packed) <= limit:
                break
        backbones.append(
            dict(
                name=subject.name,
                family=type(subject.backbone).__name__,
                size=subject.size,
                picture=_as_url(subject.picture),
                stages=stages,
                weights=base64.b64encode(packed).decode(),
            )
        )
    colours = (matplotlib.colormaps['inferno'](np.arange(256))[:, :3] * 255).round().astype(int)
    data = json.dumps(
        dict(backbones=backbones, point=list(point), colours=colours.tolist()),
        separators=(',', ':'),
    )
    title = html.escape(' · '.join(subject.name for subject in subjects))
    page = files(__package__).joinpath('page.html').read_text(encoding='utf-8')
    # A name must not end the script.
    page = page.replace('{{title}}', title).replace('{{data}}', data.replace('<', '\\u003c'))
    write_whole(path, page.encode())


def _as_url(picture: np.ndarray) -> str:
    _, encoded = cv2.imencode('.jpg', np.ascontiguousarray(picture[..., ::-1]))
    return f'data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}'
