# Table A1; the smallest one without repeated augmentation.
_base_ = './cls_regionvit_s_in1k.py'

model = dict(
    backbone=dict(arch='tiny'),
    neck=dict(in_channels=512),
    head=dict(in_channels=512),
)
train_dataloader = dict(sampler=dict(type='DefaultSampler'))
