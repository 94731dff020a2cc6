"""Weights on disk: cards, versions, lineage, the bundled ones; safetensors only."""
