"""Models as files that run without this package: ``torch.export`` and ONNX."""

from .comparison import Comparison, compare
from .files import OPSET, check_path, load_runner, needs, write_onnx, write_pt2
from .model import Normalisation, OutputModel
from .sizes import STEP, example_for, export_program, least_side

__all__ = [
    'OPSET',
    'STEP',
    'Comparison',
    'Normalisation',
    'OutputModel',
    'check_path',
    'compare',
    'example_for',
    'export_program',
    'least_side',
    'load_runner',
    'needs',
    'write_onnx',
    'write_pt2',
]
