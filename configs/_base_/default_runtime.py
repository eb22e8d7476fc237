_base_ = 'mmdet::_base_/default_runtime.py'

# With it these configs also run from mmdet's own tools.
custom_imports = dict(imports=['mmvitbackbones'], allow_failed_imports=False)
