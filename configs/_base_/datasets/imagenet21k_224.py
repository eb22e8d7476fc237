# ImageNet-21K, augmented as ImageNet-1K, on which it is tested, as it has no validation images of
# its own: those numbers mean nothing.
_base_ = './imagenet_224_repeated.py'

data_root = 'data/imagenet21k'
data_preprocessor = dict(num_classes=21842)
train_dataloader = dict(dataset=dict(type='ImageNet21k', data_root='data/imagenet21k'))
