# Hybrid Task Cascade as mmdetection's htc_r50_fpn, with its semantic branch; without it:
# model.roi_head.semantic_head=None.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

semantic_head = dict(
    type='FusedSemanticHead',
    num_ins=5,
    fusion_level=1,
    seg_scale_factor=1 / 8,
    num_convs=4,
    in_channels=256,
    conv_out_channels=256,
    num_classes=183,
    loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.2),
)
model = dict(
    type='HybridTaskCascade',
    data_preprocessor=dict(pad_mask=False, pad_seg=True),
    roi_head=dict(
        type='HybridTaskCascadeRoIHead',
        interleaved=True,
        mask_info_flow=True,
        # The first mask head takes no features of another one.
        mask_head=[
            dict(
                type='HTCMaskHead',
                with_conv_res=with_conv_res,
                num_convs=4,
                in_channels=256,
                conv_out_channels=256,
                num_classes=80,
                loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
            )
            for with_conv_res in (False, True, True)
        ],
        semantic_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[8],
        ),
        semantic_head=semantic_head,
    ),
    train_cfg=dict(
        rcnn=[
            dict(stage, assigner=dict(stage.assigner, match_low_quality=True))
            for stage in _base_.model.train_cfg.rcnn
        ]
    ),
    test_cfg=dict(rcnn=dict(score_thr=0.001)),
)
