_base_ = ['mmpretrain::_base_/default_runtime.py', './custom_imports.py']

default_hooks = dict(
    checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3),
    randomness=dict(type='ReproducibleHook'),
)
