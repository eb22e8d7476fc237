# Table 7: windows of 14, all else as it is.
_base_ = './maskrcnn_focal_t_1x.py'

model = dict(backbone=dict(window_size=14))
