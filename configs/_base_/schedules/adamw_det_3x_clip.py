# ViL's detectors, 36 epochs, with steps as mmdetection's; see adamw_det_1x_clip.py.
_base_ = './adamw_det_3x_warmup500.py'

optim_wrapper = dict(paramwise_cfg=None, clip_grad=dict(max_norm=0.5))
