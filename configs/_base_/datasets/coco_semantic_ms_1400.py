# HTC++: a short side of 400..1400, a long one of at most 1600, InstaBoost (which the package
# instaboostfast brings), and COCO-stuff's maps of semantic classes.
_base_ = './coco_semantic_800.py'

train_pipeline = [
    _base_.train_pipeline[0],
    dict(type='InstaBoost'),
    _base_.train_pipeline[1],
    dict(type='RandomResize', scale=[(1600, 400), (1600, 1400)], keep_ratio=True),
    *_base_.train_pipeline[3:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
