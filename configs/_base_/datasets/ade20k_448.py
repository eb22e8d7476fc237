# RegionViT, Appendix A.3: crops of 448 x 448, images with a long side of at most 1792.
_base_ = './ade20k_512.py'

crop_size = (448, 448)
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='RandomResize', scale=(1792, 448), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.train_pipeline[4:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=(1792, 448), keep_ratio=True),
    *_base_.test_pipeline[2:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
resizes = [
    dict(type='Resize', scale=(int(r * 1792), int(r * 448)), keep_ratio=True)
    for r in _base_.img_ratios
]
views = [resizes, *_base_.views[1:]]
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=views)]
