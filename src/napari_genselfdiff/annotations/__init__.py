"""What a person drew on a slide: label store, journal, undo, recovery, audit trail."""

from napari_genselfdiff.annotations.codes import classes_of, encode, is_accepted, is_edited, is_joined
from napari_genselfdiff.annotations.facade import Annotations
from napari_genselfdiff.annotations.history import Change

__all__ = ["Annotations", "Change", "classes_of", "encode", "is_accepted", "is_edited", "is_joined"]
