"""The curves and the bars of the interactive benchmark, from its JSON.

python benchmarks/interactive_curves.py docs/benchmarks/interactive.json docs/benchmarks/interactive.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = {
    # Okabe and Ito's colours, told apart by the colour-blind.
    "pretext": ("second gear, from the pretext", "#D55E00", "o-"),
    "scratch": ("same network from scratch", "#0072B2", "s-"),
    "scratch-whole": ("from scratch, all of the way", "#0072B2", "s--"),
    "scratch-own": ("from scratch, its own errors", "#0072B2", "s:"),
    "forest": ("random forest", "#009E73", "x-"),
    "forest-own": ("random forest, its own errors", "#009E73", "x:"),
    "instant": ("first gear", "#56B4E9", "d-"),
    "instant-own": ("first gear, its own errors", "#56B4E9", "d:"),
    "suggested": ("second gear, suggested places", "#CC79A7", "^--"),
    "random": ("second gear, random places", "#E69F00", "v--"),
}
TITLES = {"glands": "Glands (GlaS)", "nuclei": "Nuclei (MoNuSeg)"}
DRAWS = 10_000
FROM_ROUND = 3
"""From here on the pretext must be above the forest."""
BY_ROUND = 7
"""By then suggested places must have what random ones have at the end."""

Rows = Sequence[dict[str, Any]]
Scores = NDArray[np.float64]


def table(rows: Rows, name: str, method: str) -> dict[tuple[int, int], tuple[list[str], Scores]]:
    """Dice of a method by project: patients of the images, and scores of shape (rounds, images)."""
    return {
        (row["fold"], row["seed"]): (row["groups"], np.array([one["dice"] for one in row["rounds"]]))
        for row in rows
        if (row["set"], row["method"]) == (name, method)
    }


def paired(rows: Rows, name: str, ours: str, theirs: str) -> tuple[list[str], Scores, Scores]:
    """Patients and scores, (rounds, images), of the projects that both methods have."""
    a, b = table(rows, name, ours), table(rows, name, theirs)
    both = sorted(a.keys() & b.keys())
    if not both:
        return [], np.zeros((0, 0)), np.zeros((0, 0))
    # A patient is held out in one fold; the same one in two projects stays one unit.
    groups = [group for key in both for group in a[key][0]]
    return groups, np.hstack([a[key][1] for key in both]), np.hstack([b[key][1] for key in both])


def resampled(groups: Sequence[str], values: Scores) -> Scores:
    """Means over images when patients are drawn with replacement; shape (draws, rounds)."""
    names = sorted(set(groups))
    member = np.array([[group == name for group in groups] for name in names], float)
    sums, counts = member @ values.T, member.sum(axis=1)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    return np.asarray(drawn @ sums / (drawn @ counts)[:, None])


def print_gains(rows: Rows, name: str, ours: str, theirs: str, first: int) -> None:
    """Differences of mean Dice round by round, with 95 % intervals, and whether the bar is met."""
    groups, a, b = paired(rows, name, ours, theirs)
    if not groups:
        return
    gains = a - b
    low, high = np.percentile(resampled(groups, gains), [2.5, 97.5], axis=0)
    means = gains.mean(axis=1)
    met = bool((means[first - 1 :] > 0).all())
    print(f"\n{name}: {ours} - {theirs}, {len(set(groups))} patients, from round {first}: ", end="")
    print("above in every round" if met else "NOT above in every round")
    for number, (mean, one, other) in enumerate(zip(means, low, high, strict=True), 1):
        scores = f"{a[number - 1].mean():.3f}  {b[number - 1].mean():.3f}"
        print(f"  round {number:2d}  {scores}  {mean:+.3f} ({one:+.3f} to {other:+.3f})")


def print_suggested(rows: Rows, name: str) -> None:
    """The round in which suggested places have what random ones have at the end."""
    groups, ours, random = paired(rows, name, "suggested", "random")
    if not groups:
        return
    goal = random[-1].mean()
    reached = first_above(ours.mean(axis=1)[None], np.array([goal]))[0]
    draws = first_above(resampled(groups, ours), resampled(groups, random)[:, -1])
    low, high = np.percentile(draws, [2.5, 97.5])
    print(f"\n{name}: random places end at {goal:.3f}; suggested ones have it in round {reached} ", end="")
    print(f"({low:.0f} to {high:.0f}); {np.mean(draws <= BY_ROUND):.0%} of the draws by round {BY_ROUND}")


def first_above(curves: Scores, goals: Scores) -> NDArray[np.int64]:
    """First round, from 1, of each curve at its goal; one more than there are rounds when it never is."""
    there = curves >= goals[:, None]
    return np.asarray(np.where(there.any(axis=1), there.argmax(axis=1) + 1, curves.shape[1] + 1))


def sets_of(rows: Rows) -> list[str]:
    """Sets that there are rows of."""
    return [name for name in TITLES if any(row["set"] == name for row in rows)]


def everything(rows: Rows, name: str) -> float:
    """Dice of calling everything foreground, on the images of all projects."""
    found = {(row["fold"], row["seed"]): row["everything"] for row in rows if row["set"] == name}
    return float(np.mean([value for values in found.values() for value in values]))


def draw(rows: Rows, path: Path) -> None:
    """Held-out Dice against rounds and seconds, and Dice on the rest of the corrected images."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = sets_of(rows)
    figure, panels = plt.subplots(
        3, len(names), figsize=(4.7 * len(names), 10), squeeze=False, layout="constrained"
    )
    for column, name in enumerate(names):
        projects = len({(row["fold"], row["seed"]) for row in rows if row["set"] == name})
        for method, (label, colour, style) in METHODS.items():
            runs = [row["rounds"] for row in rows if (row["set"], row["method"]) == (name, method)]
            if not runs:
                continue
            if len(runs) < projects:  # its mean is of other projects than that of the others
                label += f" ({len(runs)} of {projects} projects of {name})"
            held_out = np.array([[np.mean(one["dice"]) for one in run] for run in runs])
            rest = np.array([[np.mean(one["rest"]) for one in run] for run in runs])
            seconds = np.cumsum([[one["cpu"] for one in run] for run in runs], axis=1).mean(axis=0)
            rounds = np.arange(1, held_out.shape[1] + 1)
            for row, (x, y) in enumerate([(rounds, held_out), (seconds, held_out), (rounds, rest)]):
                panel = panels[row, column]
                panel.plot(x, y.mean(axis=0), style, color=colour, label=label, markersize=4)
                panel.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.08, linewidth=0)
        for panel in panels[:2, column]:
            panel.axhline(
                everything(rows, name), color="#999999", linestyle=":", label="everything foreground"
            )
        panels[0, column].set(title=TITLES[name], xlabel="rounds")
        panels[1, column].set(xlabel="processor seconds of learning", xscale="log")
        panels[2, column].set(xlabel="rounds")
    for row, label in enumerate(
        ("Dice, images never corrected",) * 2 + ("Dice, rest of the corrected images",)
    ):
        panels[row, 0].set_ylabel(label)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
    lines, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the bars, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("output", type=Path, nargs="?")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(arguments.rows.read_text())
    for name in sets_of(rows):
        print(f"\n{name}: everything foreground {everything(rows, name):.3f}")
        print_gains(rows, name, "pretext", "forest", FROM_ROUND)
        print_gains(rows, name, "pretext", "forest-own", FROM_ROUND)
        print_gains(rows, name, "pretext", "scratch", 1)
        print_gains(rows, name, "pretext", "scratch-whole", 1)
        print_gains(rows, name, "pretext", "scratch-own", 1)
        print_gains(rows, name, "instant", "forest", 1)
        print_suggested(rows, name)
    if arguments.output:
        draw(rows, arguments.output)


if __name__ == "__main__":
    main()
