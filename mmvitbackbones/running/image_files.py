"""Images to predict on: found, named, and read one by one."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import mmcv
import numpy as np

IMAGES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')


@dataclass(frozen=True)
class ImageFile:
    """An image's or a video's file.

    Attributes:
        path (str): Where it is.
        file_name (str): The path within the folder that all of them have in common.
        name (str): What its results are called: no other file has this name. Those of a video's
            frames have a number, too.
    """

    path: str
    file_name: str
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it holds frames."""
        return self.path.lower().endswith(VIDEOS)


@dataclass(frozen=True)
class Image:
    """An image, or a frame of a video.

    Attributes:
        file (ImageFile): Where it is from.
        name (str): What its results are called.
        pixels (np.ndarray): BGR (H, W, 3), or grey (H, W).
        frame (int, optional): Its number in the video, from 0.
    """

    file: ImageFile
    name: str
    pixels: np.ndarray
    frame: int | None = None


def find_images(places: Sequence[str]) -> tuple[list[ImageFile], list[str]]:
    """Find images and videos, each once, in the order of their names.

    Args:
        places (Sequence[str]): Files of any suffix, folders, and patterns. Below a folder, images
            count; what a pattern finds are images, videos and folders. Hidden files do not.

    Returns:
        tuple: The files, and the folders they were looked for in.

    Raises:
        FileNotFoundError: If there is no such file, or nothing in a folder.
    """
    paths: dict[str, None] = {}
    folders: list[str] = []
    roots = []
    for place in map(os.path.expanduser, places):
        is_pattern = not os.path.lexists(place)
        hits = sorted(glob.glob(place, recursive=True)) if is_pattern else [place]
        if not hits:
            raise FileNotFoundError(f'there is no image, video or folder {place!r}')
        found = []
        for hit in map(os.path.abspath, hits):
            if os.path.isdir(hit):
                folders.append(hit)
                roots.append(hit)
                found += _below(hit)
            elif not is_pattern or hit.lower().endswith((*IMAGES, *VIDEOS)):
                roots.append(os.path.dirname(hit))
                found.append(hit)
        if not found:
            raise FileNotFoundError(
                f'there is no image in {place!r} (their names end with {", ".join(IMAGES)})'
            )
        paths.update(dict.fromkeys(found))
    root = Path(os.path.commonpath(roots))
    relative = sorted((Path(path).relative_to(root).as_posix(), path) for path in paths)
    return _named(relative), folders


def read_images(
    files: Iterable[ImageFile],
    read: Callable[[str], np.ndarray],
    skip: Callable[[ImageFile, str], None],
) -> Iterator[Image]:
    """Read images one by one, when they are asked for.

    Args:
        files (Iterable[ImageFile]): Images and videos.
        read (Callable[[str], np.ndarray]): Reads an image's file.
        skip (Callable[[ImageFile, str], None]): Told what cannot be read, and why.

    Yields:
        Image: An image, or a frame.
    """
    for file in files:
        if file.is_video:
            yield from _frames(file, skip)
            continue
        try:
            pixels = read(file.path)
        except Exception as error:  # decoders raise errors of many kinds
            skip(file, reason(error))
            continue
        yield Image(file, file.name, pixels)


def read_pixels(path: str) -> np.ndarray:
    """Read one image, BGR (H, W, 3).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image.
    """
    pixels = mmcv.imread(path)
    if pixels is None:
        raise ValueError(f'{path} is no image')
    return pixels


def count_images(files: Iterable[ImageFile]) -> int:
    """How many images there are, frames included, as far as the videos say."""
    return sum(mmcv.VideoReader(file.path).frame_cnt if file.is_video else 1 for file in files)


def reason(error: Exception) -> str:
    """An error's first line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _frames(file: ImageFile, skip: Callable[[ImageFile, str], None]) -> Iterator[Image]:
    frame = 0
    with mmcv.VideoReader(file.path, cache_capacity=1) as video:
        for pixels in video if video.opened else ():
            yield Image(file, f'{file.name}_{frame:06d}', pixels, frame)
            frame += 1
    if frame == 0:
        skip(file, 'no frame of this video can be read')


def _below(folder: str) -> list[str]:
    """Images below a folder, through links too."""

    def fail(error: OSError) -> None:
        raise error

    found, seen = [], set()
    for path, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(path)
        if real in seen:  # a link may lead back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith('.')]
        found += [
            os.path.join(path, name)
            for name in names
            if name.lower().endswith(IMAGES) and not name.startswith('.')
        ]
    return found


def _named(relative: Sequence[tuple[str, str]]) -> list[ImageFile]:
    """Name results after files: without suffix, or with it where another file has that name."""
    used: set[str] = set()
    files = []
    for file_name, path in relative:
        name = next(name for name in _names(file_name) if name not in used)
        used.add(name)
        files.append(ImageFile(path, file_name, name))
    numbered = {name.rpartition('_')[0] for name in used}
    for number, file in enumerate(files):
        if file.is_video and file.name in numbered:  # an image may be called as a frame would be
            names = _names(file.file_name)
            name = next(name for name in names if name not in used and name not in numbered)
            used.add(name)
            files[number] = ImageFile(file.path, file.file_name, name)
    return files


def _names(file_name: str) -> Iterator[str]:
    """What a file's results may be called, the best first."""
    yield str(PurePosixPath(file_name).with_suffix(''))
    yield file_name
    number = 2
    while True:
        yield f'{file_name}_{number}'
        number += 1
