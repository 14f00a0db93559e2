"""An RRNet-like baseline for docs/tables.md: a small graph network shifts the end-of-text embedding for a relation.

    python reproduce/rrnet_like.py --steps 150 --limit 25       # about half an hour on two cores

Trains four networks on ``sd:emoji``, then measures the unsteered model with them, on the prompts, noise and dtype of
the rows of paper_tables.py.

Source: RRNet (relation rectification), arXiv 2403.20249. Kept are: a network per relation, over the nodes A, B, the
relation word, "a photo of A" and the sentence; two graph-attention layers with an attention per edge type; the loss, 10
times the error on an image of the sentence minus 2 times the error on one with the objects swapped; noisy times drawn
more often; and the offset, added to the first end-of-text token, times a weight selected on validation prompts.
Different are: rendered scenes of many seen pairs instead of a few reference images; sizes cut to this model's; a word
is the mean of its tokens, since many names share their first token here; no updates on images of the objects alone, and
no noise on the nodes. This is our implementation, not the authors'.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, Model, ModelConfig, evaluate, open_model
from learn_to_steer.evaluation.model import open_pipeline
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.geometry import BASIC
from learn_to_steer.prompts import Relation, indefinite_article, parse, relation_prompt
from learn_to_steer_emoji.scenes import Constraint, Scene, place, render
from learn_to_steer_emoji.sprites import object_names
from paper_tables import selection, weights
from table_page import keep
from table_rows import POSITION, Row

MODEL, NAME = "sd:emoji", "rrnet-like"
A, B, R, PHOTO, SENTENCE = range(5)
EDGES = {
    "self": ((A, A), (B, B)),
    "subject": ((A, R), (R, B)),
    "sentence": ((A, SENTENCE), (B, SENTENCE), (R, SENTENCE)),
    "photo": ((A, PHOTO),),
}
WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8)


class Attention(nn.Module):
    """A graph-attention layer from nodes (batch, 5, width) to (batch, 5, heads, out), summed over edge types."""

    def __init__(self, width: int, out: int, heads: int) -> None:
        super().__init__()
        self.heads, self.out = heads, out
        self.project = nn.ModuleDict({kind: nn.Linear(width, heads * out, bias=False) for kind in EDGES})
        self.score = nn.ParameterDict({kind: nn.Parameter(torch.randn(heads, 2 * out) * 0.1) for kind in EDGES})

    def forward(self, nodes: Tensor) -> Tensor:
        total = nodes.new_zeros(*nodes.shape[:2], self.heads, self.out)
        for kind, edges in EDGES.items():
            values = self.project[kind](nodes).unflatten(-1, (self.heads, self.out))
            for end in {end for _, end in edges}:
                starts = [start for start, other in edges if other == end]
                pairs = torch.cat([values[:, starts], values[:, [end] * len(starts)]], dim=-1)
                share = functional.leaky_relu((pairs * self.score[kind]).sum(-1), 0.2).softmax(dim=1)
                total[:, end] = total[:, end] + (share[..., None] * values[:, starts]).sum(dim=1)
        return total


class Rectifier(nn.Module):
    """Computes the offset (batch, width) of the end-of-text embedding from nodes (batch, 5, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Attention(width, width // 2, 2), Attention(width, width, 2)

    def forward(self, nodes: Tensor) -> Tensor:
        hidden = functional.relu(self.first(nodes)).flatten(2)
        return self.second(hidden).mean(dim=2)[:, SENTENCE]  # type: ignore[no-any-return]


def nodes_of(pipe: Any, relations: list[Relation], texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Embed relations and their texts.

    Returns:
        Nodes (n, 5, width), embeddings of the texts (n, 77, width), and the index of the first end-of-text token of
        each.
    """
    end = pipe.tokenizer.eos_token_id

    def embedded(prompts: list[str]) -> tuple[Tensor, Tensor]:
        ids = pipe.tokenizer(
            prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        return pipe.text_encoder(ids)[0], (ids == end).int().argmax(dim=1)

    rows = pipe.text_encoder.get_input_embeddings().weight

    def word(name: str) -> Tensor:
        return rows[pipe.tokenizer(name, add_special_tokens=False).input_ids].mean(dim=0)  # type: ignore[no-any-return]

    words = [torch.stack([word(name) for name in (r.subject, r.object, r.predicate)]) for r in relations]
    text, ends = embedded(texts)
    photo, photo_ends = embedded([f"this is a photo of {indefinite_article(r.subject)} {r.subject}" for r in relations])
    many = torch.arange(len(texts))
    parts = [*torch.stack(words).unbind(1), photo[many, photo_ends], text[many, ends]]
    return torch.stack(parts, dim=1), text, ends


def train(pipe: Any, predicate: str, options: argparse.Namespace) -> Rectifier:
    """Train the network of one relation on its sentences, images of them, and images with the objects swapped."""
    net = Rectifier(pipe.unet.config.cross_attention_dim)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-4, weight_decay=0.01)
    rng, names = np.random.default_rng([options.seed, BASIC.index(predicate)]), object_names("seen")
    density = 1 - 0.5 * torch.cos(torch.pi * torch.arange(1000) / 1000)
    began = time.monotonic()
    for step in range(options.steps):
        torch.manual_seed(step)
        pairs = [[names[i] for i in rng.choice(len(names), size=2, replace=False)] for _ in range(options.batch)]
        correct = [Scene(place(pair, rng, [Constraint(0, predicate, 1)]), "gray", 0) for pair in pairs]
        swapped = [Scene(place(pair, rng, [Constraint(1, predicate, 0)]), "gray", 0) for pair in pairs]
        texts = [relation_prompt(a, predicate, b) for a, b in pairs]
        with torch.no_grad():
            clean = FAMILY.encode(pipe, render([*correct, *swapped], 128)[0])
            nodes, text, ends = nodes_of(pipe, [Relation(a, predicate, b) for a, b in pairs], texts)
        shifted = text.clone()
        shifted[torch.arange(len(texts)), ends] = text[torch.arange(len(texts)), ends] + net(nodes)
        noise = torch.randn_like(clean[: len(texts)]).repeat(2, 1, 1, 1)
        times = torch.multinomial(density, len(texts), replacement=True).repeat(2)
        noisy = pipe.scheduler.add_noise(clean, noise, times)
        with torch.autocast("cpu", torch.bfloat16):
            guess = pipe.unet(noisy, times, shifted.repeat(2, 1, 1)).sample
        right, wrong = (guess.float() - noise).square().flatten(1).mean(1).chunk(2)
        loss = 10 * right.mean() - 2 * wrong.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 25 == 0:
            left = (time.monotonic() - began) / (step + 1) * (options.steps - step - 1)
            print(
                f"{predicate} {step + 1}/{options.steps}  loss {loss.item():.4f}  {left / 60:.0f} min left", flush=True
            )
    return net


@torch.no_grad()
def sensitivity(pipe: Any) -> float:
    """Measure the relative change of the denoiser's prediction when the end-of-text embedding is set to zero."""
    changes = []
    for predicate in BASIC:
        relation = Relation("dog", predicate, "cat")
        _, text, ends = nodes_of(pipe, [relation], [relation_prompt("dog", predicate, "cat")])
        blank = text.clone()
        blank[0, ends[0]] = 0
        torch.manual_seed(0)
        noise = torch.randn(1, pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
        plain, without = (pipe.unet(noise, torch.tensor([600]), words).sample for words in (text, blank))
        changes.append(((plain - without).norm() / plain.norm()).item())
    return sum(changes) / len(changes)  # type: ignore[no-any-return]


def rectified(nets: dict[str, Rectifier], weight: float, digest: str, dtype: str | None) -> Model:
    """Open the unsteered model; its encoding of prompts with one known relation gets the offset, times ``weight``."""
    model = open_model(ModelConfig(objective="none", device="cpu", dtype=dtype))
    pipe = model.pipe
    plain = type(pipe).encode_prompt

    @torch.no_grad()
    def encode(prompt: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        embeddings, negative = plain(pipe, prompt, *args, **kwargs)
        for row, text in enumerate([prompt] if isinstance(prompt, str) else prompt):
            relations = parse(text)
            if len(relations) == 1 and relations[0].predicate in nets:
                nodes, _, ends = nodes_of(pipe, [relations[0]], [text])
                offset = nets[relations[0].predicate](nodes.float())[0]
                embeddings[row, ends[0]] += weight * offset.to(embeddings)
        return embeddings, negative

    pipe.encode_prompt = encode
    return replace(model, fingerprints=model.fingerprints | {"rrnet-like": f"{weight} of {digest}"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="of training, for each of the four networks")
    parser.add_argument("--batch", type=int, default=12, help="scenes a step")
    parser.add_argument("--limit", type=int, default=25, help="prompts")
    parser.add_argument("--images", type=int, default=4, help="images of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--out", type=Path, default=Path("out/rrnet-like"))
    options = parser.parse_args()
    pipe, _ = open_pipeline(ModelConfig(device="cpu"))
    pipe.unet.requires_grad_(False)
    nets = {}
    for predicate in BASIC:
        path = options.out / f"{predicate}.safetensors"
        net = Rectifier(pipe.unet.config.cross_attention_dim)
        if path.exists():
            net.load_state_dict(storage.load_tensors(path)[0])
        else:
            net = train(pipe, predicate, options)
            storage.save_tensors(path, net.state_dict(), {"steps": str(options.steps), "batch": str(options.batch)})
        nets[predicate] = net.eval()
    paths = [options.out / f"{predicate}.safetensors" for predicate in BASIC]
    digest = " ".join(storage.sha256(path)[:12] for path in paths)

    def measure(weight: float, benchmark: str, images: int) -> tuple[float, Path]:
        folder = options.out / f"{benchmark}-{weight}"
        which = selection(options) | {"images": images}
        config = EvaluateConfig(objective="none", benchmark=benchmark, out=str(folder), batch=16, **which)
        summary = evaluate(config, model=rectified(nets, weight, digest, options.dtype))
        print(f"{benchmark:24}weight {weight}  correct {summary['accuracy']:.3f}", flush=True)
        return float(summary["accuracy"]), folder

    tried = {weight: measure(weight, "geneval-position-val", 1)[0] for weight in WEIGHTS}
    best = max(WEIGHTS[1:], key=lambda weight: tried[weight])  # even if none is better than no offset
    _, folder = measure(best, POSITION, options.images)
    training = {key: getattr(options, key) for key in ("steps", "batch")} | {"validation": tried}
    training["heeded"] = sensitivity(pipe)
    made = selection(options) | {"weights": weights(MODEL), "settings": {"weight": best}, "training": training}
    keep(MODEL, Row(NAME), folder, made)


if __name__ == "__main__":
    main()
