# Semantic FPN for ADE20K's classes.
_base_ = 'mmseg::_base_/models/fpn_r50.py'

model = dict(pretrained=None, decode_head=dict(num_classes=150))
