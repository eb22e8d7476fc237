# With COCO-stuff's maps of semantic classes; else as coco_instance_672.py.
_base_ = './coco_instance_672.py'

annotations = dict(type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=True)
train_pipeline = [_base_.train_pipeline[0], annotations, *_base_.train_pipeline[2:]]
train_dataloader = dict(
    dataset=dict(data_prefix=dict(seg='stuffthingmaps/train2017/'), pipeline=train_pipeline)
)
