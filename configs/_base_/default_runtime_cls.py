_base_ = ['mmpretrain::_base_/default_runtime.py', './custom_imports.py']
