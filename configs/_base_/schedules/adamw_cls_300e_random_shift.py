# ViL: half the learning rate; random shifts of the neighbouring windows for three quarters of the
# training, then all of them.
_base_ = './adamw_cls_300e.py'

optim_wrapper = dict(optimizer=dict(lr=5e-4))
custom_hooks = [dict(type='RandomShiftHook', fraction=0.75)]
