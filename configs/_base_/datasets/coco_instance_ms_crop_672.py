# Multi-scale training of RegionViT: a short side of 480..896, a long one of at most 1120, and the
# crop of DETR in half of the cases; tested at 672 x 1120.
_base_ = ['./coco_instance_672.py', './detr_crop.py']

resize = dict(
    type='RandomChoiceResize',
    scales=[(side, 1120) for side in range(480, 897, 32)],
    keep_ratio=True,
)
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[[resize], [*_base_.detr_crop, resize]]),
    dict(type='PackDetInputs'),
]
# The schedule counts iterations.
train_dataloader = dict(sampler=dict(type='InfiniteSampler'), dataset=dict(pipeline=train_pipeline))
