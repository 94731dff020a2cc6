"""Put trained weights into the wheel, each with a JSON card.

    python benchmarks/bundle.py pretext runs/pretext.safetensors
    python benchmarks/bundle.py nuclei runs/nuclei.safetensors --scores runs/nuclei-held-out.json

The weights must have been trained on the split of ``split_nuinsseg.py``: NuInsSeg is the one set whose
licence allows it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from napari_genselfdiff.models.library import BUNDLED, SUFFIX
from napari_genselfdiff.models.weights import read_weights, save_weights, sha256_of

DATA = {
    "data": "NuInsSeg: H&E of 31 human and mouse organs, 40x (Mahbod et al., Scientific Data 11, 295, 2024)",
    "data_licence": "CC BY 4.0",
    "licence": "BSD-3-Clause",
    "split": (
        "by image, in contiguous blocks of 19 files; every fifth block is held out (133 of 665 images), from "
        "the pretext too (benchmarks/split_nuinsseg.py)"
    ),
    "use": "research only, not for diagnosis",
}
ABOUT: dict[str, dict[str, Any]] = {
    "pretext": {
        "about": "diffusion pretext of H&E, without labels (GenSelfDiff-HIS, arXiv 2309.01487)",
        "mpp_range": [0.25, 1.0],
    },
    "nuclei": {
        "about": "nuclei in H&E; the mean of two fine-tunes from the bundled pretext",
        "classes": ["background", "nucleus"],
        "mpp_range": [0.2, 0.6],
        "parent": "pretext",
    },
}
SCORES = ("dice", "iou", "precision", "sensitivity", "accuracy", "hd95")


def main() -> None:
    """Write ``NAME.safetensors`` and ``NAME.json`` into the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=list(ABOUT))
    parser.add_argument("weights", type=Path)
    parser.add_argument("--scores", type=Path, help="JSON of evaluate on the held-out images")
    arguments = parser.parse_args()
    tensors, card = read_weights(arguments.weights)
    card |= DATA | ABOUT[arguments.name] | {"name": arguments.name}
    if arguments.scores:
        result = json.loads(arguments.scores.read_text())
        card["scores"] = {
            "held-out NuInsSeg": {key: round(result["mean"][key], 4) for key in SCORES}
            | {"images": len(result["images"])}
        }
    path = BUNDLED / f"{arguments.name}{SUFFIX}"
    save_weights(path, tensors, card, half=True)
    card["sha256"] = sha256_of(path)
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    print(path, path.stat().st_size // 1024, "KiB")


if __name__ == "__main__":
    main()
