"""Tiny random instances of the detectors' real networks, as folders that ``load`` reads."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
# A name of VOC at a number of COCO, as in the hub's files: names must not be used.
LABELS = {i: {0: "person", 4: "aeroplane", 79: "toothbrush"}.get(i, f"thing{i}") for i in range(80)}
WORDS = ("a", "dog", "and", "cat", "bus", "teapot")


def swin(stages: tuple[str, ...]) -> Any:
    from transformers import SwinConfig

    sizes = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
    return SwinConfig(out_features=list(stages), **sizes)


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(files("learn_to_steer_emoji").joinpath("data", "sd-emoji", "tokenizer")))


def clip_parts(image_size: int, patch_size: int, length: int) -> dict[str, Any]:
    tokenizer = clip_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": length, **ends, **SMALL}
    return {"text_config": text, "vision_config": {"image_size": image_size, "patch_size": patch_size, **SMALL}}


def saved(folder: Path, model: Any, tokenizer: Any = None) -> Path:
    with torch.no_grad():  # a random network's own answer is nearly flat
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def mask2former_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved from transformers' own class, whose loss asks for SciPy although it uses none of it."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation
    from transformers.models.mask2former import modeling_mask2former

    sizes = {
        **dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32),
        **dict.fromkeys(("encoder_feedforward_dim", "dim_feedforward"), 16),
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_attention_heads": 2,
        "num_queries": 8,
    }
    stages = ("stage1", "stage2", "stage3", "stage4")
    numbers = {name: i for i, name in LABELS.items()}
    config = Mask2FormerConfig(backbone_config=swin(stages), id2label=LABELS, label2id=numbers, **sizes)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(1)
        patch.setattr(modeling_mask2former, "requires_backends", lambda *_: None)
        model = Mask2FormerForUniversalSegmentation(config)
        return saved(tmp_path_factory.mktemp("mask2former"), model)


@pytest.fixture(scope="session")
def owlv2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = Owlv2ForObjectDetection(Owlv2Config(**clip_parts(64, 16, 16), projection_dim=16))
        return saved(tmp_path_factory.mktemp("owlv2"), model, clip_tokenizer())


@pytest.fixture(scope="session")
def clipseg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    small = {"projection_dim": 16, "extract_layers": [0, 1], "reduce_dim": 8, "decoder_num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = CLIPSegConfig(**clip_parts(64, 16, 77), **small, decoder_intermediate_size=16)
        return saved(tmp_path_factory.mktemp("clipseg"), CLIPSegForImageSegmentation(config), clip_tokenizer())


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPModel

    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = CLIPModel(CLIPConfig(**clip_parts(32, 16, 77), projection_dim=16))
        return saved(tmp_path_factory.mktemp("clip"), model, clip_tokenizer())


@pytest.fixture(scope="session")
def grounding_dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its code knows BERT's numbers of [CLS], [SEP], "." and "?", so the vocabulary has these at their places."""
    from transformers import BertConfig, BertTokenizer, GroundingDinoConfig, GroundingDinoForObjectDetection

    folder = tmp_path_factory.mktemp("grounding-dino")
    places = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    words = [places.get(i, f"[unused{i}]") for i in range(1030)] + list(WORDS)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer.from_pretrained(str(folder))
    sizes = {
        **dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 32),
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
        "num_queries": 12,
        "num_feature_levels": 4,
    }
    text = BertConfig(vocab_size=len(words), max_position_embeddings=256, **SMALL)
    config = GroundingDinoConfig(backbone_config=swin(("stage2", "stage3", "stage4")), text_config=text, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return saved(folder, GroundingDinoForObjectDetection(config), tokenizer)


@pytest.fixture
def noise():
    """``noise(width, height)``: an image of random pixels."""

    def draw(width: int, height: int) -> Image.Image:
        rng = np.random.default_rng(width * height)
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return draw
