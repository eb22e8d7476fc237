# What the demo's Mask R-CNNs share: narrow, and quick to learn from few scenes. Normalised neck and
# heads, boxes and masks of all digits by the same weights.
_base_ = './demo_narrow.py'

narrow_norm = dict(type='GN', num_groups=8)
narrow_roi_extractor = dict(out_channels=64, roi_layer=dict(sampling_ratio=1))
narrow_detector = dict(
    neck=dict(in_channels=_base_.narrow.dims, out_channels=64, norm_cfg=narrow_norm),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=narrow_roi_extractor,
        bbox_head=dict(in_channels=64, fc_out_channels=256, reg_class_agnostic=True),
        mask_roi_extractor=narrow_roi_extractor,
        mask_head=dict(
            in_channels=64, conv_out_channels=64, class_agnostic=True, norm_cfg=narrow_norm
        ),
    ),
)
narrow_optim_wrapper = dict(optimizer=dict(lr=2e-3, fused=True), clip_grad=dict(max_norm=1.0))
demo = dict(max_iters=750, batch_size=4, warmup=50, log_interval=10)
custom_hooks = [dict(type='PredictionGridHook')]
