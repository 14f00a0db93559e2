"""What ``bench`` prints and measures, and the random models that it can make."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from learn_to_steer import benchmarks, random_models
from learn_to_steer.classifier import load, save
from learn_to_steer.cli import main
from learn_to_steer.errors import DataError, UnknownNameError
from learn_to_steer.families import find
from learn_to_steer.loading import skeleton
from learn_to_steer.random_models import has_weights, random_pipeline
from learn_to_steer.speed import bench
from learn_to_steer.speed.clocks import FlopCounter, measured
from learn_to_steer.speed.config import BenchConfig
from learn_to_steer.speed.models import open_measured_model, random_classifier

SMALL = ("--limit", "1", "--steps", "2", "--device", "cpu")
PROMPT = "a dog to the left of a cat"


@pytest.fixture
def bench_json(capsys: pytest.CaptureFixture[str]) -> Any:
    """``bench_json(model, *options)``: what ``bench --json`` prints."""

    def command(model: Any, *options: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["bench", "--model", str(model), "--json", *SMALL, *options]) == 0
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return printed

    return command


def test_a_model_without_a_classifier(saved_sd, bench_json) -> None:
    result = bench_json(saved_sd, "--limit", "2", "--batch", "2")
    assert (result["weights"], result["classifier"], result["device"]) == ("trained", "random", "cpu")
    assert (result["depth"], result["layers"]) == (2, 7)
    assert any("random" in note and "first 2 of 7 layers" in note for note in result["notes"])
    assert result["passes"] == 2  # of two steps the first is steered, with two iterations
    assert result["threads"] == torch.get_num_threads()
    low, high = result["ratio_interval"]
    assert 0 < low <= result["ratio"] <= high
    assert result["unsteered_seconds"] > 0 and result["steered_seconds"] > 0
    assert result["peak_bytes"] is None or result["peak_bytes"] > 1e6
    flops = result["flops"]
    added = (flops["steered"] - flops["unsteered"]) / flops["forward"]
    assert flops["ratio"] > 1 and result["forwards_equivalent"] == pytest.approx(added)
    assert result["batch"]["images"] == 2 and result["batch"]["passes"] == 2
    assert "accuracy" not in result  # nothing is known to look at such images


def test_a_pass_that_ends_early_counts_less(saved_sd, bench_json) -> None:
    shallow, deep = (bench_json(saved_sd, "--depth", depth) for depth in ("1", "7"))
    assert (shallow["depth"], deep["depth"]) == (1, 7)
    assert shallow["flops"]["unsteered"] == deep["flops"]["unsteered"]
    assert 0 < shallow["forwards_equivalent"] < deep["forwards_equivalent"] / 2
    assert "batch" not in shallow


def test_the_models_own_classifier(saved_sd, bench_json) -> None:
    result = bench_json(saved_sd, "--classifier", str(saved_sd / "classifier"))
    assert (result["classifier"], result["depth"], result["notes"]) == ("trained", 7, [])


def test_a_folder_of_configs_alone(saved_sd, bench_json, capsys) -> None:
    assert has_weights(str(saved_sd))
    for path in saved_sd.glob("*/*.safetensors"):
        path.unlink()
    assert not has_weights(str(saved_sd))
    result = bench_json(saved_sd)
    assert (result["weights"], result["classifier"]) == ("random", "random")
    assert "weights are random" in result["notes"][0]
    assert main(["bench", "--model", str(saved_sd), *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("one image ") and "times (95 %" in line for line in lines)
    assert lines[-1].startswith("note ")


def test_text(saved_sd, run_text) -> None:
    lines = run_text("bench", "--model", saved_sd, *SMALL, "--loss", "for-spatial")
    assert [line[:9].strip() for line in lines][:4] == ["model", "device", "measured", "one image"]


def test_what_the_text_says(saved_sd, run_text) -> None:
    text = "\n".join(run_text("bench", "--model", saved_sd, *SMALL, "--depth", "1"))
    assert "an iteration ends after 1 of 7 layers" in text and "first 1 of 7 layers" in text


def test_operations_of_images_that_need_no_pass() -> None:
    counted = {"unsteered": 100.0, "steered": 130.0, "forward": 10.0}
    assert bench._forwards_equivalent(counted | {"passes": 2.0}, 4.0) == pytest.approx(6)
    assert bench._forwards_equivalent(counted | {"passes": 0.0}, 4.0) == pytest.approx(3)  # checks alone


@pytest.fixture
def run_text(capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*argv: Any) -> list[str]:
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 0
        return capsys.readouterr().out.splitlines()

    return command


def test_pairs_have_the_same_images_and_begin_with_either_call(saved_sd, monkeypatch) -> None:
    calls = []
    draw = bench.draw

    def noted(model: Any, jobs: Any, seed: int, *, steer: bool) -> Any:
        calls.append(([job.prompt for job in jobs], seed, steer))
        return draw(model, jobs, seed, steer=steer)

    monkeypatch.setattr(bench, "draw", noted)
    bench.measure_model(BenchConfig(model=str(saved_sd), limit=2, batch=1, steps=2, seed=3, device="cpu"))
    (a, *_), (b, *_) = calls[0], calls[2]  # the first four calls are counted
    assert calls[4:] == [(a, 3, False), (a, 3, True), (b, 3, True), (b, 3, False)] and a != b


@pytest.fixture
def of_one_relation(saved_sd, tmp_path) -> str:
    """A folder with the classifier of the model, which knows "left of" and not "right of"."""
    classifier = load(saved_sd / "classifier")
    classes = tuple("right" if name == "right of" else name for name in classifier.config.classes)
    classifier.config = replace(classifier.config, classes=classes)
    save(classifier, tmp_path / "own")
    return str(tmp_path / "own")


def test_prompts_that_cannot_be_steered_are_left_out(saved_sd, of_one_relation, monkeypatch) -> None:
    chosen = {one.relations[0].predicate: one for one in benchmarks.prompts(bench.BENCHMARK)}
    some = [chosen["right of"], chosen["left of"]]
    monkeypatch.setattr(bench, "_prompts", lambda opened, config: some)
    config = BenchConfig(model=str(saved_sd), classifier=of_one_relation, steps=2, device="cpu")
    result = bench.measure_model(config)
    assert result["prompts"] == 1 and "batch" not in result and result["passes"] > 0
    assert any("1 of 2 prompts are left out" in note and "'right of'" in note for note in result["notes"])


def test_a_detector_that_fails_does_not_lose_the_measurement(saved_sd, monkeypatch) -> None:
    """Also: images are scored where a detector is known, whatever steers."""

    def known(config: Any) -> Any:
        opened = open_measured_model(config)
        variant = replace(opened.model.variant, detector="emoji")
        return replace(opened, model=replace(opened.model, variant=variant))

    monkeypatch.setattr(bench, "open_measured_model", known)
    config = BenchConfig(model=str(saved_sd), limit=1, steps=2, device="cpu")
    result = bench.measure_model(config)
    assert (result["classifier"], result["detector"]) == ("random", "emoji")
    assert result["accuracy"] in (0, 1) and result["unsteered_accuracy"] in (0, 1)

    def broken(name: str) -> Any:
        raise DataError("its weights are missing")

    monkeypatch.setattr(bench, "load_scorer", broken)
    result = bench.measure_model(config)
    assert result["ratio"] > 0 and not {"accuracy", "unsteered_accuracy"} & result.keys()
    assert result["notes"][-1] == "the images are not scored: its weights are missing"
    assert "accuracy" not in bench.measure_model(replace(config, random=True))


def test_progress_ends_with_the_last_image(saved_sd) -> None:
    seen: list[tuple[int, int]] = []
    config = BenchConfig(model=str(saved_sd), limit=3, batch=2, steps=2, device="cpu")
    bench.measure_model(config, lambda *now: seen.append(now))
    assert seen[-1] == (16, 16)  # 3 are counted, 3 timed alone and 2 together, each without and with steering


def test_operations_are_torchs() -> None:
    heads = torch.randn(1, 2, 32, 16, requires_grad=True)
    layer = torch.nn.Linear(16, 5)
    with FlopCounter() as flops, flops.watched(layer):
        functional.scaled_dot_product_attention(heads, heads, heads).sum().backward()
        attention = flops.total
        layer(torch.randn(7, 16))
        layer(torch.randn(3, 16))
    shape = heads.shape
    assert attention == sdpa_flop_count(shape, shape, shape) + sdpa_backward_flop_count(shape, shape, shape, shape)
    assert flops.of_calls == [2 * 7 * 16 * 5, 2 * 3 * 16 * 5]
    assert flops.total == attention + sum(flops.of_calls)


def test_the_peak_is_that_of_the_work() -> None:
    cpu = torch.device("cpu")
    large = measured(lambda: torch.ones(2**26).sum(), cpu)[1]  # 256 MiB
    small = measured(lambda: torch.ones(2**10).sum(), cpu)[1]
    if large.peak is None or small.peak is None:
        pytest.skip("this system does not tell the peak")
    assert large.peak - small.peak > 2**27
    assert large.wall > 0 and large.seconds >= 0


def test_interval_of_a_median() -> None:
    values = [1.0, 1.1, 1.2, 1.3, 5.0]
    low, high = bench.median_interval(values, seed=1)
    assert low <= statistics.median(values) <= high <= 5.0 and low < high
    assert bench.median_interval(values, seed=1) == (low, high)
    assert bench.median_interval([2.0]) == (2.0, 2.0)


@pytest.mark.parametrize("model", ["sd:emoji", "flux:emoji", "flux:emoji-schnell"])
def test_random_weights_have_the_sizes_of_the_model(model, monkeypatch) -> None:
    monkeypatch.setattr(random_models, "_from_config", lambda kind, config: _empty(kind, config))
    pipe = random_pipeline(model)
    family, empty = skeleton(model)
    denoiser = getattr(pipe, family.denoiser)
    shapes = {name: value.shape for name, value in empty.state_dict().items()}
    assert {name: value.shape for name, value in denoiser.state_dict().items()} == shapes
    assert pipe.steering_variant.name == model and pipe.steering_defaults["height"] == 128
    assert not any(p.requires_grad for p in denoiser.parameters())


def _empty(kind: Any, config: Any) -> Any:
    """A component without data, which is made at once."""
    with torch.device("meta"):
        return kind.from_config(config).to_empty(device="cpu")


@pytest.mark.parametrize("kind", ["tiny_sd", "tiny_flux"])
def test_a_config_of_the_denoiser_is_enough(kind, request, tmp_path, monkeypatch) -> None:
    """What the folder lacks are stand-ins, and steering works with them."""
    small = request.getfixturevalue(kind)
    family = find(small)
    getattr(small, family.denoiser).save_config(tmp_path / family.denoiser)
    monkeypatch.setattr(random_models, "_vae", lambda channels: small.vae)
    pipe = random_pipeline(str(tmp_path))
    sampling = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "latent"}
    assert pipe(PROMPT, **sampling).images[0].isfinite().all()
    again = getattr(random_pipeline(str(tmp_path)), family.denoiser).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in getattr(pipe, family.denoiser).state_dict().items())
    assert family.token_indices(pipe, PROMPT, [(2, 5)], {})


def test_a_lacking_component_has_a_stand_in(saved_sd) -> None:
    shutil.rmtree(saved_sd / "tokenizer")
    assert random_pipeline(str(saved_sd)).tokenizer("a dog", padding="max_length")["input_ids"][:4] == [0, 2, 2, 1]


def test_a_scheduler_that_loses_the_update_is_replaced(saved_sd) -> None:
    path = saved_sd / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("DDIMScheduler", "PNDMScheduler"))
    index = saved_sd / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "PNDMScheduler"))
    assert type(random_pipeline(str(saved_sd)).scheduler).__name__ == "DDIMScheduler"
    euler = random_pipeline(str(saved_sd), scheduler="EulerDiscreteScheduler").scheduler
    assert type(euler).__name__ == "EulerDiscreteScheduler"
    with pytest.raises(UnknownNameError, match="PNDMScheduler"):
        random_pipeline(str(saved_sd), scheduler="PNDMScheduler")
    with pytest.raises(UnknownNameError, match="float64"):
        random_pipeline(str(saved_sd), dtype="float64")


def test_the_random_classifier_reads_what_runs_first(tiny_sd) -> None:
    family = find(tiny_sd)
    order = family.running_order(family.layout(tiny_sd.unet).layers)
    layout = random_classifier(tiny_sd, 3).layout
    assert layout is not None and set(layout.layers) == set(order[:3])


def test_settings_of_the_user_win_over_the_usual_iterations(saved_sd, tmp_path) -> None:
    config = BenchConfig(model=str(saved_sd), random=True, device="cpu", settings={"total_passes": 3})
    opened = open_measured_model(config)
    assert opened.model.steered is not None and opened.model.steered.config.max_iterations == 3
    with pytest.raises(DataError, match="no model family knows"):
        open_measured_model(BenchConfig(model=str(tmp_path)))


@pytest.mark.slow
def test_a_packaged_model_is_scored(bench_json) -> None:
    result = bench_json("flux:emoji", "--limit", "1", "--batch", "1")
    assert result["accuracy"] in (0, 1) and result["unsteered_accuracy"] in (0, 1)
    assert result["detector"] == "emoji" and result["notes"] == []
