# ViL: random shifts of the neighbouring windows for three quarters of the training, then all of
# them. What the paper's text at hand does not give is DeiT's, but for repeated augmentation.
_base_ = './adamw_cls_300e_warmup5.py'

optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    # Nor do positions and global tokens decay, as in DeiT.
    paramwise_cfg=dict(
        custom_keys={
            '.position.': dict(decay_mult=0.0),
            '.global_tokens': dict(decay_mult=0.0),
            '.global_position': dict(decay_mult=0.0),
            '.global_bias.': dict(decay_mult=0.0),
        },
    ),
)
warmup, cosine = _base_.param_scheduler
param_scheduler = [dict(warmup, start_factor=2e-3), cosine]  # from 1e-6
custom_hooks = [dict(type='RandomShiftHook', fraction=0.75)]
