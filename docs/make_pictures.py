"""Make the pictures of the README and the tutorial anew: the demo's, from a real window.

make docs-pictures
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from napari_genselfdiff.demo import run_demo

PICTURES = Path(__file__).parent / "pictures"


def main() -> None:
    """Run the demo and keep its pictures as JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        run_demo(None, Path(folder))
        for path in sorted(Path(folder).glob("*.png")):
            if path.stem != "labels":
                Image.open(path).convert("RGB").save(PICTURES / f"{path.stem}.jpg", quality=88)
        (PICTURES / "summary.json").write_text((Path(folder) / "summary.json").read_text())


if __name__ == "__main__":
    main()
