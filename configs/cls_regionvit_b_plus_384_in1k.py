_base_ = './cls_regionvit_b_384_in1k.py'

model = dict(backbone=dict(arch='base_plus', window_size=24))
load_from = 'work_dirs/cls_regionvit_b_plus_in21k/epoch_120.pth'
