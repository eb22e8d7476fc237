_base_ = ['mmseg::_base_/default_runtime.py', './custom_imports.py']
