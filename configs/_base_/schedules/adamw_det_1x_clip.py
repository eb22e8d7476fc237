# ViL's detectors: all parameters decay, and gradients are clipped.
_base_ = './adamw_det_1x_warmup500.py'

optim_wrapper = dict(paramwise_cfg=None, clip_grad=dict(max_norm=0.5))
