"""The downstream task: heads, losses, tiled inference, instances, metrics.

May use the network of ``diffusion``.
"""
