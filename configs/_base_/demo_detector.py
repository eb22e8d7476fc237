# What the demo's Mask R-CNNs share: shallow, narrow, and quick to learn from few scenes. They tell
# the digits apart before they look for them. Neck and heads are normalised, all digits share the
# weights of their boxes and masks, and anchors fit digits of 18 to 83 pixels.
_base_ = './demo_narrow.py'

demo = dict(max_iters=1060, batch_size=4, warmup=50, log_interval=10, size=192)
custom_hooks = [
    dict(type='ClassesFirstHook', fraction=0.2),
    dict(type='PredictionGridHook'),
]
find_unused_parameters = True  # while only the classes are learnt

depths = [1, 1, 1, 1]
shallow = dict(_base_.narrow, depths=depths)
shallow_rmt = dict(_base_.narrow_rmt, depths=depths)

narrow_norm = dict(type='GN', num_groups=8)
narrow_roi_extractor = dict(out_channels=64, roi_layer=dict(sampling_ratio=1))
narrow_detector = dict(
    neck=dict(in_channels=_base_.narrow.dims, out_channels=64, norm_cfg=narrow_norm),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4, 5.66], ratios=[1.0, 2.0]),
    ),
    roi_head=dict(
        bbox_roi_extractor=narrow_roi_extractor,
        bbox_head=dict(
            type='ConvFCBBoxHead',
            in_channels=64,
            num_shared_convs=2,
            conv_out_channels=64,
            num_shared_fcs=1,
            fc_out_channels=256,
            norm_cfg=dict(type='BN'),
            reg_class_agnostic=True,
        ),
        mask_roi_extractor=narrow_roi_extractor,
        mask_head=dict(
            num_convs=2,
            in_channels=64,
            conv_out_channels=64,
            class_agnostic=True,
            norm_cfg=narrow_norm,
        ),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=48, pos_fraction=0.5))),
)
narrow_optim_wrapper = dict(optimizer=dict(lr=1.5e-3, fused=True), clip_grad=dict(max_norm=1.0))
