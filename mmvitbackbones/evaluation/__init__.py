from .result_plots import ResultPlots

__all__ = ['ResultPlots']
