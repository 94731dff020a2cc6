"""Training that goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from napari_genselfdiff.errors import TrainingError, UserError
from napari_genselfdiff.events import Event


def going_on(run: Callable[[bool], Iterator[Event]], unfinished: Path) -> Iterator[Event]:
    """Train on from what was stopped, or anew where that is of another beginning, or damaged.

    Parameters
    ----------
    run : callable
        Makes the training; told whether it goes on.
    unfinished : Path
        The checkpoint; need not exist.

    Yields
    ------
    Event
        The training's.
    """
    resume = unfinished.exists()
    try:
        try:
            yield from run(resume)
            return
        except UserError as error:
            if not resume or error.which != unfinished:
                raise
            unfinished.unlink(missing_ok=True)
        yield from run(False)
    except TrainingError:
        unfinished.unlink(missing_ok=True)  # going on from it would end in the same way
        raise
