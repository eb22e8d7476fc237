# What DETR does to half of the training images before the last resizing.
detr_crop = [
    dict(
        type='RandomChoiceResize',
        scales=[(side, 1333) for side in (400, 500, 600)],
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=(384, 600),
        allow_negative_crop=True,
    ),
]
