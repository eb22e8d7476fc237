# COCO with a short side of 480..800, tested at 800 x 1333.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'

resize = dict(type='RandomResize', scale=[(1333, 480), (1333, 800)], keep_ratio=True)
train_pipeline = [*_base_.train_pipeline[:2], resize, *_base_.train_pipeline[3:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
