"""What napari sees: the manifest, layers of slide files, sample data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
import zarr
from npe2 import PluginManager, PluginManifest
from PIL import Image, ImageCms

from napari_genselfdiff import contributions, samples
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import Slide

PLUGIN = "napari-genselfdiff"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    """A plugin manager that knows this plugin alone."""
    manager = PluginManager()
    manager.register(PluginManifest.from_file(ROOT / "src" / "napari_genselfdiff" / "napari.yaml"))
    monkeypatch.setattr(PluginManager, "instance", classmethod(lambda cls: manager))
    return manager


def test_the_manifest_is_valid_and_linked() -> None:
    manifest = PluginManifest.from_distribution(PLUGIN)
    manifest.validate_imports()
    assert manifest.display_name == "GenSelfDiff"
    top = yaml.safe_load((ROOT / "napari.yaml").read_text())
    assert top == yaml.safe_load((ROOT / "src" / "napari_genselfdiff" / "napari.yaml").read_text())


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("a.svs", True),
        ("A.SVS", True),
        ("a.ndpi", True),
        ("a.mrxs", True),
        ("a.dcm", True),
        ("a.ome.tif", True),
        ("a.ome.tiff", True),
        ("a.ome.zarr.zip", True),
        ("a.ozx", True),
        ("a.tif", False),
        ("a.png", False),
        ("a.jpg", False),
    ],
)
def test_slide_formats_alone_are_claimed(
    plugins: PluginManager, tmp_path: Path, name: str, ours: bool
) -> None:
    path = tmp_path / name
    path.touch()
    assert bool(list(plugins.iter_compatible_readers([str(path)]))) is ours


def test_a_slide_dropped_on_the_viewer_is_a_layer_in_micrometres(
    plugins: PluginManager, cmu_slide: Path
) -> None:
    from napari.components import ViewerModel

    viewer = ViewerModel()
    viewer.open(cmu_slide, plugin=PLUGIN)
    (layer,) = viewer.layers
    assert layer.name == cmu_slide.name
    assert layer.rgb
    assert layer.multiscale
    assert tuple(layer.scale) == pytest.approx((0.499, 0.499))
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    slide = layer.metadata[contributions.SLIDE_KEY]
    assert isinstance(slide, Slide)
    assert layer.data[0].shape == (*slide.shape, 3)
    assert np.asarray(layer.data[-1]).std() > 5


def test_an_ome_zarr_folder_is_a_layer(plugins: PluginManager, tmp_path: Path) -> None:
    from napari.components import ViewerModel

    level = np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)
    path = tmp_path / "slide.ome.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("0", shape=level.shape, chunks=(64, 64, 3), dtype="u1")[...] = level
    axes = [{"name": name, "unit": "micrometer"} for name in "yx"] + [{"name": "c"}]
    scale = {"type": "scale", "scale": [0.25, 0.25, 1]}
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    viewer = ViewerModel()
    viewer.open(path, plugin=PLUGIN)
    assert tuple(viewer.layers[0].scale) == (0.25, 0.25)
    assert np.array_equal(np.asarray(viewer.layers[0].data[0]), level)


def test_a_slide_without_a_resolution_stays_in_pixels(data_dir: Path) -> None:
    path = str(data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs")
    ((_, options, kind),) = contributions.get_reader(path)(path)
    assert kind == "image"
    assert "scale" not in options
    assert "units" not in options


def test_several_slides_are_several_layers(data_dir: Path) -> None:
    paths = [str(data_dir / "slides" / name) for name in ("sm_image.dcm", "OS-1-detail.ome.tif")]
    layers = contributions.get_reader(paths)(paths)
    assert [options["name"] for _, options, _ in layers] == ["sm_image.dcm", "OS-1-detail.ome.tif"]


def test_a_damaged_slide_is_told(tmp_path: Path) -> None:
    path = tmp_path / "damaged.svs"
    path.write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(UserError, match=r"damaged\.svs"):
        contributions.get_reader(str(path))(str(path))


def test_sample_data_open(plugins: PluginManager, cmu_slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari.components import ViewerModel

    monkeypatch.setattr(samples, "fetch_cmu_slide", lambda *, confirm: cmu_slide)
    keys = {sample.key for _, found in plugins.iter_sample_data() for sample in found}
    assert keys == {"cmu_small_region", "ihc_pyramid"}
    viewer = ViewerModel()
    for key in sorted(keys):
        viewer.open_sample(PLUGIN, key)
    assert [layer.name for layer in viewer.layers] == [cmu_slide.name, "immunohistochemistry (IHC, not H&E)"]


def test_the_colour_profile_is_applied_when_preferences_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "a.png"
    Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(path, icc_profile=profile)
    settings = SimpleNamespace(slides=SimpleNamespace(use_colour_profile=False))
    monkeypatch.setattr("napari.settings.get_plugin_settings", lambda plugin: settings)
    assert contributions.open_as_preferred(path).icc_profile == profile
    settings.slides.use_colour_profile = True
    assert contributions.open_as_preferred(path).icc_profile is None
    Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(path, icc_profile=profile[:50])
    with pytest.warns(UserWarning, match=r"colour profile.*a\.png.*shown as they are"):
        assert contributions.open_as_preferred(path).shape == (40, 50)
