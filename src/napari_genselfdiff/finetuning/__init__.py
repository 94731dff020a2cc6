"""Corrections become a better model: sampling, the loop, the acceptance gate."""
