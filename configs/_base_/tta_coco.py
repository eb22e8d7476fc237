# COCO at mmdetection's three scales, each also mirrored: tools/test.py --tta.
_base_ = './custom_imports.py'

custom_imports = dict(imports=['mmvitbackbones', 'mmvitbackbones.test_time_augs'])
tta_model = dict(
    type='InstanceTTAModel',
    tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
)
tta_scales = [(1333, 800), (666, 400), (2000, 1200)]
views = [
    [dict(type='Resize', scale=scale, keep_ratio=True) for scale in tta_scales],
    [dict(type='RandomFlip', prob=float(mirrored)) for mirrored in (False, True)],
    # Of boxes only, to draw them: not all data have masks.
    [dict(type='LoadAnnotations', with_bbox=True)],
    [
        dict(
            type='PackDetInputs',
            meta_keys=(
                *('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
                *('flip', 'flip_direction'),
            ),
        )
    ],
]
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=views)]
