# The mean of the last stage's regional tokens is classified.
_base_ = './classifier.py'

model = dict(
    backbone=dict(type='RegionViT', outputs='regional', drop_path_rate=0.1),
)
