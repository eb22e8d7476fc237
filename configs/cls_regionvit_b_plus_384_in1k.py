_base_ = './cls_regionvit_b_384_in1k.py'

weights = 'work_dirs/cls_regionvit_b_plus_in21k/epoch_120.pth'
model = dict(
    backbone=dict(arch='base_plus', window_size=24, init_cfg=dict(checkpoint=weights)),
)
