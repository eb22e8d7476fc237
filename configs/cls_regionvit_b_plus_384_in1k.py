_base_ = './cls_regionvit_b_384_in1k.py'

init_cfg = dict(type='Pretrained', checkpoint='checkpoints/RegionViT-B-plus-in21k.pth')
model = dict(backbone=dict(arch='base_plus', window_size=24, init_cfg=init_cfg))
