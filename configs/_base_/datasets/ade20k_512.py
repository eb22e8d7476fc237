# ADE20K, crops of 512 x 512; 8 GPUs with 2 each are a batch of 16.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

train_dataloader = dict(batch_size=2)
# Ratios of the size that is tested, as the papers have it, not of the image's own.
views = [
    [
        dict(type='Resize', scale=(int(r * 2048), int(r * 512)), keep_ratio=True)
        for r in _base_.img_ratios
    ],
    [dict(type='RandomFlip', prob=float(mirrored)) for mirrored in (False, True)],
    [dict(type='LoadAnnotations')],
    [dict(type='PackSegInputs')],
]
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=views)]
