"""The real models' layouts, known without their weights: full architectures on the meta device."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pytest

from learn_to_steer import registry, storage
from learn_to_steer.errors import DataError
from learn_to_steer.families import variants
from learn_to_steer.loading import skeleton


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        # map side -> number of channels, at 64 x 64 latents (the authors' checkpoints)
        ("sd:1.4", {8: 8, 16: 40, 32: 40, 64: 40}),
        ("sd:2.1", {8: 20, 16: 100, 32: 50, 64: 25}),
    ],
)
def test_stable_diffusions_channels_ascend_in_resolution(model: str, sizes: dict[int, int]) -> None:
    family, denoiser = skeleton(model)
    layers = family.layout(denoiser).layers
    found = {side: sum(x.heads for x in group) for side, group in groupby(layers, lambda x: x.size(64, 64)[0])}
    assert list(found.items()) == list(sizes.items())
    places = [layer.name.split(".")[0] for layer in layers if layer.size(64, 64)[0] == 32]
    assert places == ["down_blocks"] * 2 + ["up_blocks"] * 3


@pytest.mark.parametrize(("model", "guided"), [("flux:dev", True), ("flux:schnell", False)])
def test_flux_has_double_blocks_first(model: str, guided: bool) -> None:
    family, denoiser = skeleton(model)
    layout = family.layout(denoiser)
    assert layout.channels == 57 * 24 == 1368
    kinds = [layer.name.split(".")[0] for layer in layout.layers]
    assert kinds == ["transformer_blocks"] * 19 + ["single_transformer_blocks"] * 38
    assert denoiser.config.guidance_embeds is guided
    assert all(parameter.is_meta for parameter in denoiser.parameters())


def test_a_folder_without_a_known_denoiser_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no model family knows"):
        skeleton(str(tmp_path))


@pytest.mark.parametrize(("model", "step_size"), [("sd:1.4", 7.5), ("sd:2.1", 5.0)])
def test_a_folder_is_recognised_as_the_authors_model_of_its_kind(model: str, step_size: float) -> None:
    family, denoiser = skeleton(model)
    pipe = SimpleNamespace(unet=denoiser, vae_scale_factor=8)
    assert family.default_variant(pipe, "some/folder").step_size == step_size


def test_the_table_of_full_sizes_is_of_these_variants() -> None:
    folder = Path(__file__).resolve().parents[2] / "docs"
    rows, page = storage.read_json(folder / "results" / "full_size_table.json"), (folder / "full_size.md").read_text()
    real = {name: one for name, one in variants().items() if not one.source.startswith("package:")}
    assert set(rows) == set(real)
    for name, row in rows.items():
        variant = real[name]
        assert (row["source"], row["resolution"], row["steps"]) == (variant.source, variant.resolution, variant.steps)
        assert tuple(row["unconfirmed"]) == variant.unconfirmed and f"| `{name}` |" in page
    for name in ("pixart:sigma", "sana", "sd3.5:medium"):
        family, denoiser = skeleton(name)
        layout, parameters = family.layout(denoiser), sum(one.numel() for one in denoiser.parameters())
        found = len(layout.layers), layout.channels, parameters
        assert found == (rows[name]["layers"], rows[name]["maps"], rows[name]["parameters"])


def test_the_table_of_pipelines_has_no_faults() -> None:
    path = Path(__file__).resolve().parents[2] / "docs" / "results" / "pipelines.json"
    rows = storage.read_json(path)["pipelines"]
    assert len(rows) > 100 and {said.partition(":")[0] for said in rows.values()} == {"steered", "accepted", "refused"}
    accepted = {name for name, said in rows.items() if not said.startswith("refused")}
    tried = {name for plugin in registry.load_all("families").values() for name in plugin.FAMILY.pipelines}
    assert accepted == (tried & set(rows)) - {"StableDiffusionPAGPipeline"}  # refused as it is called by default
