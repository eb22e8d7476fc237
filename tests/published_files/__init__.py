"""Each family's published files: how they are laid out, and which are odd."""

import golden_cases
import pytest

from .focal_transformer import FOCAL_TRANSFORMER
from .layout import bilinear, places, published_bias, same
from .regionvit import REGIONVIT
from .rmt import RMT_FILES
from .vision_longformer import VISION_LONGFORMER

FAMILIES = dict(
    RegionViT=REGIONVIT,
    FocalTransformer=FOCAL_TRANSFORMER,
    RMT=RMT_FILES,
    VisionLongformer=VISION_LONGFORMER,
)
every_golden_case = pytest.mark.parametrize(
    'files, case',
    [
        pytest.param(files, case, id=case)
        for files in FAMILIES.values()
        for case in golden_cases.names(files.golden)
    ],
)
every_family = pytest.mark.parametrize('files', FAMILIES.values(), ids=FAMILIES)


def cases(of):
    """Parametrise by family, ``files``, and ``case``: values of a dict that ``of`` a family."""
    return pytest.mark.parametrize(
        'files, case',
        [
            pytest.param(files, case, id=f'{name}-{title}')
            for name, files in FAMILIES.items()
            for title, case in of(files).items()
        ],
    )


__all__ = [
    'FAMILIES',
    'FOCAL_TRANSFORMER',
    'REGIONVIT',
    'RMT_FILES',
    'VISION_LONGFORMER',
    'bilinear',
    'cases',
    'every_family',
    'every_golden_case',
    'places',
    'published_bias',
    'same',
]
