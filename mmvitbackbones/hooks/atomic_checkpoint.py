"""Checkpoints that a run always leaves a good one of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..checkpoints.newest import LAST, newest_checkpoint
from ..files import remove_unfinished, write_whole

_BACKEND = 'whole_files'


class WholeFilesBackend(LocalBackend):
    """Files of this machine, each there whole or not at all."""

    def put(self, obj: bytes, filepath: str | os.PathLike[str]) -> None:
        """Write a file, as :func:`~mmvitbackbones.files.write_whole`."""
        write_whole(filepath, obj)


register_backend(_BACKEND, WholeFilesBackend, force=True)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's hook, with another order: write beside, move into place, then remove older ones.

    mmengine's removes an older checkpoint first and writes the new one in place, so that a run
    which is killed then, or finds the disk full, may leave none.

    ``last_checkpoint`` is written likewise. It names a file relative to its folder, which may move.
    A run that is resumed finds the newest checkpoint that can be read, in OpenMMLab's own tools
    too.

    Args:
        **kwargs: As mmengine's ``CheckpointHook``. Where ``out_dir`` or ``backend_args`` name
            another kind of storage, it is up to that how files are written.
    """

    backend_args: dict[str, Any] | None
    file_backend: Any

    def before_run(self, runner: Runner) -> None:
        """Find what to resume from.

        Raises:
            UnreadableCheckpointError: If there are checkpoints, and none can be read.
        """
        if runner._resume and runner._load_from is None:
            runner._load_from, remarks = newest_checkpoint(runner.work_dir)
            runner._resume = runner._load_from is not None
            for remark in remarks:
                runner.logger.warning(remark)

    def before_train(self, runner: Runner) -> None:
        """See where checkpoints go, and remove what a killed run has left unfinished."""
        here = '://' not in str(self.out_dir or '')
        if here and self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend=_BACKEND)
        super().before_train(runner)
        self._here = isinstance(self.file_backend, WholeFilesBackend)
        if self._here:
            self._clean()

    @master_only
    def _clean(self) -> None:
        remove_unfinished(self.out_dir)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        file_name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, file_name)
        older: list[int] = []
        if self.max_keep_ckpts > 0:
            # The new best of an evaluation writes the checkpoint of its step again.
            kept = [each for each in self.keep_ckpt_ids if each != step] + [step]
            older, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(kept)
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            file_name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._name_last(runner)
        for each in older:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(each)))

    @master_only
    def _name_last(self, runner: Runner) -> None:
        name = str(self.last_ckpt)
        if self._here:
            name = os.path.relpath(name, runner.work_dir)
        write_whole(Path(runner.work_dir, LAST), name.encode())

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        backend = self.file_backend
        self.file_backend = later = _RemovingLater(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        for path in later.paths:
            self._remove(path)

    @master_only
    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)


class _RemovingLater:
    """A backend that only notes what shall be removed."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.paths: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.paths.append(path)
