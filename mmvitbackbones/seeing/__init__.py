"""Pictures of what a backbone sees: ``tools/visualize.py``."""
