"""Layouts of data sets: each file finds the images and annotations of one and reads them."""
