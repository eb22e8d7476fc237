# ImageNet-21K, augmented as ImageNet-1K.
_base_ = './imagenet_224_repeated.py'

data_root = 'data/imagenet21k'
data_preprocessor = dict(num_classes=21841)
train_dataloader = dict(dataset=dict(type='ImageNet21k', data_root='data/imagenet21k'))
