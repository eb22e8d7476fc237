# With it these configs also run from the tools of mmdet and mmseg.
custom_imports = dict(imports=['mmvitbackbones'], allow_failed_imports=False)
