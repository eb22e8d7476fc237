"""Files of exported programs: written, and run again."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from ..files import write_whole

INPUT = 'images'
OPSET = 20  # the first with GELU
_METADATA = 'metadata.json'
_LIMIT = 2**31  # bytes of an ONNX file

Runner = Callable[[np.ndarray], list[np.ndarray]]


def write_pt2(
    program: ExportedProgram, path: str, names: Sequence[str], metadata: Mapping[str, str]
) -> None:
    """Write a program for ``torch.export.load``.

    Args:
        program (ExportedProgram): The program.
        path (str): The file.
        names (Sequence[str]): Of its outputs.
        metadata (Mapping[str, str]): What is kept beside it, with the names, as the extra file
            'metadata.json'.
    """
    content = io.BytesIO()
    extra = json.dumps({'outputs': list(names), **metadata})
    torch.export.save(program, content, extra_files={_METADATA: extra})
    write_whole(path, content.getvalue())


def write_onnx(
    program: ExportedProgram,
    path: str,
    names: Sequence[str],
    metadata: Mapping[str, str],
    opset: int = OPSET,
) -> None:
    """Write a program as one ONNX file, of the standard's own operators.

    Args:
        program (ExportedProgram): The program.
        path (str): The file.
        names (Sequence[str]): Of its outputs; the input is called 'images'.
        metadata (Mapping[str, str]): Kept in the file, as its metadata properties.
        opset (int): Version of the operators, at least 18. Defaults to 20.

    Raises:
        ImportError: If onnx or onnxscript is missing.
        ValueError: If the file would be too large.
    """
    needs('onnx', 'onnxscript')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logging.getLogger('torch.onnx').setLevel(logging.ERROR)
        written: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=list(names),
            opset_version=opset,
            verbose=False,
        )
    written.model.metadata_props.update(metadata)
    proto = written.model_proto
    if proto.ByteSize() >= _LIMIT:
        raise ValueError(
            f'{path} would have {proto.ByteSize() / 2**30:.1f} GiB, an ONNX file takes 2: '
            '--half, or --format pt2'
        )
    write_whole(path, proto.SerializeToString())


def load_runner(path: str) -> Runner:
    """Load a file, to be run on the processor by as many threads as torch takes.

    Args:
        path (str): '.onnx', for onnxruntime, or '.pt2'.

    Returns:
        Callable: From images (B, C, H, W), float32, to the outputs.
    """
    if path.endswith('.pt2'):
        module = torch.export.load(path).module()

        def run(images: np.ndarray) -> list[np.ndarray]:
            with torch.no_grad():
                return [y.numpy() for y in module(torch.from_numpy(images))]

        return run
    (onnxruntime,) = needs('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return lambda images: session.run(None, {INPUT: images})


def needs(*packages: str) -> list[Any]:
    """Import packages of the extra 'export'.

    Raises:
        ImportError: If one is missing.
    """
    try:
        return [importlib.import_module(package) for package in packages]
    except ModuleNotFoundError as error:
        raise ImportError(
            f"ONNX needs {error.name}: pip install 'mmvitbackbones[export]', or onnx, onnxscript "
            'and onnxruntime'
        ) from error


def check_path(path: str, form: str | None) -> str:
    """The format of a file that is to be written.

    Args:
        path (str): The file.
        form (str, optional): 'onnx' or 'pt2'; None: as the file's name ends.

    Returns:
        str: 'onnx' or 'pt2'.

    Raises:
        ValueError: If the name does not end so.
        FileExistsError: If the file is there.
    """
    ending = os.path.splitext(path)[1].removeprefix('.')
    if ending not in ('onnx', 'pt2') or form not in (None, ending):
        raise ValueError(f'--out must end with .{form or "onnx or .pt2"}, got {path!r}')
    if os.path.lexists(path):
        raise FileExistsError(f'{path} is there already: name another file')
    return ending
