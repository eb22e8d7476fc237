# RMT, Sec. 4.2 and Appendix B.
_base_ = './adamw_det_3x.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    _base_.param_scheduler[1],
]
