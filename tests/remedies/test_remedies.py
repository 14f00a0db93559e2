"""What a message tells to do works: the call, option, extra or command that it names exists, and the error goes away.

``REMEDIES`` lists every message that names one. A message with a remedy that is not listed fails a test here.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from learn_to_steer.cli.application import app
from learn_to_steer.errors import CaptureError, UnsupportedError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for top in ("src/learn_to_steer", "emoji_world/src") for path in sorted((ROOT / top).rglob("*.py"))]
PROMPT = "a dog to the left of a cat"
COMMANDS = typer.main.get_command(app).commands
OPTIONS = {option for command in COMMANDS.values() for p in command.params for option in (*p.opts, *p.secondary_opts)}


def messages() -> Iterator[tuple[str, int, str]]:
    """File, line and text of every message of an exception or a log; "{}" stands for a value.

    Constants of modules that are remedies count too: messages end in them.
    """
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = str(path.relative_to(ROOT))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and re.search(
                r"Error$|^log\.|_warn_once$|read_jsonl?$|_checked$", ast.unparse(node.func)
            ):
                text = " ".join(literal for argument in node.args for literal in literals(argument))
                yield name, node.lineno, text
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("AGAIN", "ANEW", "REPAIR"):
                yield from ((name, node.lineno, text) for text in literals(node.value) if " " in text)


def literals(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in part.values)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


MESSAGES = list(messages())


def test_options_that_messages_name_exist() -> None:
    named = {(file, option) for file, _, text in MESSAGES for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert len(named) > 30
    assert [one for one in sorted(named) if one[1] not in OPTIONS] == []


def test_extras_that_messages_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for path in SOURCES for extra in re.findall(r"learn-to-steer\[([\w-]+)\]", path.read_text())}
    assert {"lora", "quant", "nlp"} <= named
    assert named <= set(project["optional-dependencies"])


def test_verbs_that_messages_name_exist() -> None:
    named = {verb for _, _, text in MESSAGES for verb in re.findall(r"learn-to-steer ([a-z-]+)", text)}
    assert named and named <= set(COMMANDS)


def test_lists_that_messages_name_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    from learn_to_steer.cli import main

    named = {kind for _, _, text in MESSAGES for kind in re.findall(r"(?:see: )(?:learn-to-steer )?list (\w+)", text)}
    assert named
    for kind in named:
        assert main(["list", kind]) == 0 and capsys.readouterr().out


# What begins the part of a message that says what to do.
VERBS = (
    "add ask audit call choose collect compare convert correct delete describe download drop find generate give "
    "install label leave list load make move name parse pip put python reduce reinstall remove rename repair replace "
    "restore reword run save say score set shorten start switch train try turn uninstall update use wait write"
).replace(" ", "|")
REMEDY = re.compile(rf"(?:^|[;:,(] ?|\b(?:or|and|then|so) )(?:{VERBS})\b.*", re.DOTALL)
# What a message tells to do that the test below does not find here, and why, or the test that does it.
UNTRIED = {
    # A package index is needed.
    "pip install 'learn-to-steer[quant]'": "test_extras_that_messages_name_exist",
    "pip install 'learn-to-steer[lora]'": "test_extras_that_messages_name_exist",
    "pip install 'learn-to-steer[ray]'": "test_extras_that_messages_name_exist",
    "pip install 'learn-to-steer[nlp]', or parse without it": "parsing without it is what all tests do",
    "pip install 'learn-to-steer[serve]'": "test_extras_that_messages_name_exist",
    "pip install 'learn-to-steer[ray,serve]'": "the extra is looked for by tests of docs/serve.md",
    "python -m spacy download ": "needs the network",
    "small models to begin with are a package of their own: pip install ": "needs a package index",
    "load one with a tagger, e.g. en_core_web_sm": "needs spaCy's model; tests/prompts tries it with the marker nlp",
    "; reinstall it": "needs a damaged installation",
    # Weights of gigabytes or the hub are needed.
    "download them again": "needs the weights of a detector",
    "are neither a folder nor a hub id; name one of the two (owner/name)": "needs the weights of a detector",
    "; name others": "needs the weights of a detector",
    "name weights that were trained on COCO's instances": "needs the weights of a detector",
    "name a plug-in, or the folder or hub id of a model": "needs the weights of an embedder",
    # A GPU is needed.
    "pipe.enable_model_cpu_offload() (--offload model)": "needs a GPU",
    "load the model's own weights, quantised with --quantize 4bit if they are too large": "needs nunchaku and a GPU",
    "generate fewer or smaller images at once (--batch, --images, --height, --width), or reduce": "needs a GPU",
    "run it without torch.compile and with --dtype float32": "needs half precision that overflows",
    # It is in another function, or a value in the message.
    "give the {} of {}": "test_sets_that_need_a_file",
    "; give {}": "test_sources_of_boxes and test_sources_of_answers_and_lines",
    "delete it, and {}": "test_verified_folders_are_whole_after_the_command_is_run_again",
    # Nothing of ours gets there.
    "(turn off perturbed-attention guidance)": "as pag_scale=0, which is tried; only foreign pipelines get there",
    "after the evaluation (first: {}); run it again": "another process must remove files during the run",
}


def tried() -> set[str]:
    """The texts in the tests here that provoke an error with ``told`` or look for a message with ``tells``."""
    texts = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            called = {ast.unparse(one.func) for one in ast.walk(node) if isinstance(one, ast.Call)}
            if isinstance(node, ast.FunctionDef) and called & {"told", "tells"}:
                texts |= {text for statement in node.body for text in literals(statement) if "{}" not in text}
    return texts


def test_every_remedy_that_a_message_names_is_tried_here() -> None:
    known = {text for text in (*tried(), *UNTRIED) if " " in text and len(text) > 8} | set(CALLS)
    untried = []
    for file, line, text in MESSAGES:
        remedy = REMEDY.search(" ".join(text.split()))
        if remedy and not any(one in text and one[-12:] in remedy.group() for one in known):
            untried.append(f"{file}:{line}: {remedy.group()[:150]}")
    assert untried == []


def test_no_reason_is_kept_for_a_remedy_that_is_gone() -> None:
    assert [one for one in UNTRIED if not any(one in text for _, _, text in MESSAGES)] == []


# Calls in Python that a message names, and the test here that makes them.
CALLS = {
    "pipe.disable_attention_slicing()": "test_captured_after_sliced_attention",
    "pipe.unet.set_attn_processor(AttnProcessor2_0())": "test_captured_after_another_processor",
    'pipe.transformer.set_attention_backend("native")': "test_captured_after_another_backend",
    "{}.from_config(pipe.scheduler.config)": "test_steered_after_a_scheduler_that_can_be",
    "{}.from_pipe(pipe)": "test_steered_after_a_pipeline_that_can_be",
    "pipe.{}.disable_cache()": "test_steered_after_the_cache_is_off",
    "pipe.{}.merge_and_unload()": "test_steered_after_an_adapter_is_merged",
}


def test_every_call_that_a_message_names_is_tried_here() -> None:
    named = {
        call
        for _, _, text in MESSAGES
        for call in re.findall(r"(?:pipe\.|{}\.)[\w.{}]+\((?:[^()]|\([^()]*\))*\)", text)
    }
    assert set(CALLS) <= named
    assert all(test in globals() for test in CALLS.values())
    assert named - set(CALLS) == ELSEWHERE


# These need a GPU.
ELSEWHERE = {"pipe.enable_model_cpu_offload()"}


@pytest.fixture
def steered(random_classifier: Callable[..., Any]) -> Callable[[Any], Any]:
    from learn_to_steer.losses.learned import Learned
    from learn_to_steer.steering import Steerer, profile

    def call(pipe: Any) -> Any:
        config = profile("default").changed(passes=1, threshold=2.0)
        steerer = Steerer(Learned(random_classifier(pipe).requires_grad_(False)), config).on(pipe)
        return steerer(PROMPT, height=64, width=64, num_inference_steps=2, output_type="pt")

    return call


def test_captured_after_sliced_attention(tiny_sd: Any, steered: Callable[[Any], Any]) -> None:
    tiny_sd.enable_attention_slicing(1)
    with pytest.raises(CaptureError, match=re.escape("pipe.disable_attention_slicing()")):
        steered(tiny_sd)
    tiny_sd.disable_attention_slicing()
    steered(tiny_sd)


def test_captured_after_another_processor(tiny_sd: Any, steered: Callable[[Any], Any]) -> None:
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    tiny_sd.unet.set_attn_processor(AttnProcessor())
    with pytest.raises(CaptureError, match=re.escape("pipe.unet.set_attn_processor(AttnProcessor2_0())")):
        steered(tiny_sd)
    tiny_sd.unet.set_attn_processor(AttnProcessor2_0())
    steered(tiny_sd)


def test_captured_after_another_backend(tiny_flux: Any, steered: Callable[[Any], Any], monkeypatch: Any) -> None:
    """A backend that does not call torch's attention stands for those that need a GPU."""
    from diffusers.models import attention_dispatch as dispatch

    def plain(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        q, k, v = (part.transpose(1, 2) for part in (query, key, value))
        return ((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v).transpose(1, 2)

    backend = dispatch.AttentionBackendName("_native_math")
    monkeypatch.setitem(dispatch._AttentionBackendRegistry._backends, backend, plain)
    tiny_flux.transformer.set_attention_backend("_native_math")
    with pytest.raises(CaptureError, match=re.escape('pipe.transformer.set_attention_backend("native")')):
        steered(tiny_flux)
    tiny_flux.transformer.set_attention_backend("native")
    steered(tiny_flux)


def test_steered_after_an_adapter_is_merged(tiny_sd: Any, steered: Callable[[Any], Any]) -> None:
    from peft import LoraConfig, get_peft_model

    wrapped = LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=["to_q"])
    tiny_sd.unet = get_peft_model(tiny_sd.unet, wrapped)
    with pytest.raises(UnsupportedError, match=re.escape("(pipe.unet = pipe.unet.merge_and_unload())")) as told:
        steered(tiny_sd)
    assert "or load it with pipe.load_lora_weights" in str(told.value)  # tests/families/test_load.py does
    tiny_sd.unet = tiny_sd.unet.merge_and_unload()
    steered(tiny_sd)


@pytest.mark.parametrize("name", ["PNDMScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"])
def test_steered_after_a_scheduler_that_can_be(tiny_sd: Any, steered: Callable[[Any], Any], name: str) -> None:
    import diffusers

    tiny_sd.scheduler = getattr(diffusers, name).from_config(tiny_sd.scheduler.config)
    with pytest.raises(UnsupportedError) as told:
        steered(tiny_sd)
    statement = re.search(r"pipe\.scheduler = ([\w.]+\(pipe\.scheduler\.config\))", str(told.value))
    assert statement, told.value
    tiny_sd.scheduler = eval(statement[1], {**vars(diffusers), "pipe": tiny_sd})
    steered(tiny_sd)


def test_steered_after_a_pipeline_that_can_be(tiny_sd: Any, steered: Callable[[Any], Any]) -> None:
    import diffusers

    other = diffusers.StableDiffusionPanoramaPipeline(**tiny_sd.components, requires_safety_checker=False)
    with pytest.raises(UnsupportedError) as told:
        steered(other)
    statement = re.search(r"\((\w+\.from_pipe\(pipe\))\)", str(told.value))
    assert statement, told.value
    steered(eval(statement[1], {**vars(diffusers), "pipe": other}))


def test_steered_after_the_cache_is_off(tiny_flux: Any, steered: Callable[[Any], Any]) -> None:
    from diffusers import FirstBlockCacheConfig

    tiny_flux.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    with pytest.raises(UnsupportedError, match=re.escape("pipe.transformer.disable_cache()")):
        steered(tiny_flux)
    tiny_flux.transformer.disable_cache()
    steered(tiny_flux)


def test_steered_outside_inference_mode(tiny_sd: Any, steered: Callable[[Any], Any]) -> None:
    import torch

    with torch.inference_mode(), pytest.raises(UnsupportedError, match=r"outside torch\.inference_mode\(\)"):
        steered(tiny_sd)
    with torch.no_grad():
        steered(tiny_sd)


def test_trained_anew_after_the_checkpoint_is_deleted(tmp_path: Path) -> None:
    from learn_to_steer.errors import DataError
    from learn_to_steer.training import checkpoint

    (tmp_path / checkpoint.FILE).write_bytes(b"broken")
    with pytest.raises(DataError, match="delete it, and training starts again"):
        checkpoint.load(tmp_path, {})
    (tmp_path / checkpoint.FILE).unlink()
    assert checkpoint.load(tmp_path, {}) is None


@pytest.mark.parametrize(
    ("words", "remedy", "mended"),
    [
        (["list", "modles"], "'models'", ["list", "models"]),
        (["parse", " "], "'a dog to the left of a cat'", ["parse", "a dog to the left of a cat"]),
        (["export-prompts", "--benchmark", "oood"], "'ood'", ["export-prompts", "--benchmark", "ood"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands_work_once_they_are_mended(
    words: list[str], remedy: str, mended: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from learn_to_steer.cli import main

    out = ["--out", str(tmp_path / "out")] if words[0] == "export-prompts" else []
    assert main([*words, *out]) == 2
    assert remedy in capsys.readouterr().err
    assert main([*mended, *out]) == 0
