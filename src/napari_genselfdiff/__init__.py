"""Whole-slide histology in napari: segment, correct, fine-tune.

Importing this package is cheap on purpose: torch, dask and zarr are imported when a command runs.
"""

__version__ = "0.1.0"
