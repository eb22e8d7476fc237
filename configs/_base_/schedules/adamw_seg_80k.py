# Semantic FPN as PVT trains it, whose settings RMT's Sec. 4.3 follows: batch 16.
_base_ = 'mmseg::_base_/schedules/schedule_80k.py'

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=80000)]
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    checkpoint=dict(type='AtomicCheckpointHook'),
    randomness=dict(type='ReproducibleHook'),
)
