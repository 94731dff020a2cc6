"""The same verbs without a window: parses, prints, exits.

Exit status: 0 when done; 2 for bad input, with one line on standard error that says what happened, to which
file, and what to do; 1 for failures; 130 when it was stopped with Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
import warnings

import typer

from napari_genselfdiff.cli.commands import app
from napari_genselfdiff.cli.terminal import PROGRAM, STOPPED, complain, warnings_shown
from napari_genselfdiff.errors import OutOfMemoryError, UserError

BAD_INPUT, FAILED = 2, 1
DEBUG = "--debug"
UsageError = typer.BadParameter.__bases__[0]  # typer carries its own click, or uses the other, by version


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        What follows the program's name; ``sys.argv`` by default.

    Returns
    -------
    int
        The exit status.
    """
    if argv is None:
        _quiet_libraries()
        argv = sys.argv[1:]
    debug = DEBUG in argv
    arguments = _repeated(
        [argument for argument in argv if argument != DEBUG], verb="pretrain", option="--images"
    )
    command = typer.main.get_command(app)
    try:
        with warnings_shown():
            status = command.main(
                arguments,
                prog_name=PROGRAM,
                standalone_mode=False,
                obj=shlex.join([PROGRAM, *argv]),  # For the model cards
            )
        sys.stdout.flush()
    except BrokenPipeError:  # such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        complain("stopped")
        return STOPPED
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line and a status
        if debug:
            traceback.print_exc()
        line, status = _explained(error)
        complain(line)
    return status if isinstance(status, int) else 0


def _explained(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit status."""
    if isinstance(error, UserError):
        return f"error: {error}", BAD_INPUT
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else PROGRAM
        what = getattr(error, "format_message", error.__str__)().rstrip(".")
        return f"error: {what[:1].lower()}{what[1:]} (see {command} --help)", BAD_INPUT
    if isinstance(error, OutOfMemoryError):
        return f"error: {error}", FAILED
    if isinstance(error, MemoryError):
        return "error: the computer ran out of memory, choose a smaller --region or close programs", FAILED
    kind = type(error).__name__
    return f"error: {kind}: {error} (again with {DEBUG} shows where it happened)", FAILED


def _repeated(arguments: list[str], *, verb: str, option: str) -> list[str]:
    """Write ``--images A B`` as ``--images A --images B``, which is what click knows."""
    if next((a for a in arguments if not a.startswith("-")), None) != verb:
        return arguments
    result: list[str] = []
    listing = False
    for index, argument in enumerate(arguments):
        if argument.startswith("-"):
            listing = argument == option or argument.startswith(f"{option}=")
        elif listing and arguments[index - 1] != option:
            result.append(option)
        result.append(argument)
    return result


def _quiet_libraries() -> None:
    """Keep what libraries say to developers off the user's terminal."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger().addHandler(logging.NullHandler())  # else loggers without a handler write to stderr
    if not sys.warnoptions and DEBUG not in sys.argv:
        warnings.simplefilter("ignore")


__all__ = ["main"]
