# UperNet for ADE20K's classes.
_base_ = 'mmseg::_base_/models/upernet_swin.py'

model = dict(decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=150))
