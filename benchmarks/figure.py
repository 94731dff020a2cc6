"""The figure of the label-efficiency benchmark, drawn from its JSON.

python benchmarks/figure.py docs/benchmarks/label_efficiency.json docs/benchmarks/label-efficiency.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from label_efficiency import means

mpl.use("Agg")
from matplotlib import pyplot as plt

METHODS = {
    # Okabe and Ito's colours, told apart by the colour-blind.
    "pretext": ("fine-tuned from the pretext", "#D55E00", "o-"),
    "scratch": ("same network from scratch", "#0072B2", "s-"),
    "transfer": ("from the nuclei segmenter", "#CC79A7", "^--"),
    "paper": ("the paper's recipe", "#E69F00", "v--"),
    "frozen": ("frozen diffusion features", "#56B4E9", "d:"),
    "forest": ("random forest", "#009E73", "x:"),
}
TITLES = {"glands": "Glands (GlaS, 35 held-out images)", "nuclei": "Nuclei (MoNuSeg, 10 held-out images)"}


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--limit", default="300 steps", help="which rows")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(arguments.rows.read_text())
    rows = [row for row in rows if row["limit"] == arguments.limit and not row["strokes"]]
    figure, panels = plt.subplots(1, len(TITLES), figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, (name, title) in zip(panels, TITLES.items(), strict=True):
        counts = sorted({row["labels"] for row in rows if row["set"] == name})
        for method, (label, colour, style) in METHODS.items():
            points = []
            for place, count in enumerate(counts):
                key = {"set": name, "method": method, "labels": count}
                dice = [means(row)["dice"] for row in rows if key.items() <= row.items()]
                if dice:
                    points.append((place, np.mean(dice), min(dice), max(dice)))
            if not points:
                continue
            x, y, low, high = np.array(points).T
            panel.plot(x, y, style, color=colour, label=label, markersize=5)
            panel.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.set_xticks(range(len(counts)), [str(count) for count in counts])
        panel.set(title=title, xlabel="labelled images")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("Dice on held-out images")
    panels[0].legend(fontsize=8)
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
