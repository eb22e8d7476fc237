# ViL's detectors: gradients are clipped. No exceptions from weight decay are known, and no warm-up:
# it is mmdetection's.
_base_ = './adamw_det_1x_warmup500.py'

optim_wrapper = dict(paramwise_cfg=None, clip_grad=dict(max_norm=0.5))
