"""The pretext: noise schedules, the U-Net, objectives, pretraining, sampling.

Knows nothing of segmentation.
"""
