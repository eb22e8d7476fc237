"""What turns a backbone's last map into the input of mmpretrain's linear classifier."""

from .pooling import NormAndPool, ProjectAndPool

__all__ = ['NormAndPool', 'ProjectAndPool']
