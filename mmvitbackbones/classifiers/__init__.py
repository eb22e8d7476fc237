"""What turns a backbone's last map into the input of mmpretrain's linear classifier."""

from .necks import NormAndPool, ProjectAndPool

__all__ = ['NormAndPool', 'ProjectAndPool']
