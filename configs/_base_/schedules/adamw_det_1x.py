# RegionViT, Appendix A.2 (90k iterations with steps at 60k and 80k are about 12 epochs of COCO with
# steps after 8 and 11), and Focal Transformer, Sec. 4.2, warmed up as Swin's detectors: batch 16,
# 8 GPUs with 2 each.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
optim_wrapper = dict(
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
