# The mean of the last stage's regional tokens is classified.
_base_ = './classifier.py'

model = dict(
    backbone=dict(
        type='RegionViT',
        outputs='regional',
        out_indices=(3,),
        out_norm=None,
        drop_path_rate=0.1,
    ),
)
