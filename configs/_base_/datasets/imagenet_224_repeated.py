# Each image three times in a batch, augmented anew.
_base_ = './imagenet_224.py'

train_dataloader = dict(sampler=dict(type='RepeatAugSampler', shuffle=True))
