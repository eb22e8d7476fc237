_base_ = ['mmdet::_base_/default_runtime.py', './tta_coco.py']

default_hooks = dict(
    checkpoint=dict(type='AtomicCheckpointHook'),
    randomness=dict(type='ReproducibleHook'),
)
