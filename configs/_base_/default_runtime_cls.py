_base_ = ['mmpretrain::_base_/default_runtime.py', './custom_imports.py']

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
