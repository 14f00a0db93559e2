"""Train ``flux:emoji``'s T5 encoder on text alone. Afterwards it stays frozen, as FLUX's is.

    python training/train_text.py --minutes 15      # resumable; run it before train_flux.py

The encoder predicts masked words, in captions and in descriptions that state a layout twice ("a dog left of a cat; the
cat on the right"), so that one statement implies the other, as in real text. A head that predicts an object's side from
the object's own tokens makes this small encoder bind side words to objects; without it, models trained on the encoder
ignored relation words. The last lines printed tell how much of the variance of the *objects'* tokens the relation word
causes, in this encoder and in one with random weights: a classifier can mistake that trace for the layout (paper,
section 3.2).
"""

from __future__ import annotations

import argparse
import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import T5TokenizerFast

from flux_emoji import COLUMNS, FOLDER, start_packaged, t5_encoder, tokenizers
from learn_to_steer.geometry import BASIC
from learn_to_steer.prompts import indefinite_article, parse, token_indices
from learn_to_steer_emoji.captions import PHRASES, caption
from learn_to_steer_emoji.sprites import object_names
from learn_to_steer_emoji.world import random_scenes
from loop import DEVICE, fast_copy, train
from sides import SIDES, SideHead, described, marked

MASK = 2  # <unk>, which no caption of the emoji world holds
DIRECTIONS = {word for texts in (*PHRASES.values(), SIDES.values()) for text in texts for word in text.split()}
DIRECTIONS -= {"to", "the", "of", "on"}
LONGEST = 80  # pieces of two statements
ORDINARY, STATED = 0.15, 0.7  # shares of words masked: of all, and of those that the other statement implies


class Speller(nn.Module):
    """The encoder, a head that predicts every piece, and one that predicts an object's side; heads are not packaged."""

    def __init__(self, tokenizer: T5TokenizerFast) -> None:
        super().__init__()
        self.encoder = t5_encoder(tokenizer)
        # Three layers add little to embeddings as large as T5's own; the 24 of the real one outgrow them.
        self.encoder.shared.weight.data.mul_(0.1)
        self.what = nn.Linear(self.encoder.config.d_model, len(tokenizer))
        self.where = SideHead(self.encoder.config.d_model)


def batch(
    tokenizer: T5TokenizerFast, captions: list[str], rng: np.random.Generator, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw texts: ids of their pieces (count, LONGEST) with some masked, the true ids, and the sides of the pieces."""
    texts, spots, placed = [], [], []
    for number in range(count):
        if number % 3 == 0:
            texts.append(captions[rng.integers(len(captions))])
            spots.append((0, 0))
            continue
        layout = described(rng)
        start = "a photo of " if rng.random() < 0.3 else ""
        # Half of the layouts are stated once, as in prompts: nothing implies their relation word, so it is not masked.
        twice = number % 3 == 1
        texts.append(f"{start}{layout.statement}; {layout.other}" if twice else f"{start}{layout.statement}")
        stated = layout.statement if rng.random() < 0.5 else layout.other
        spots.append((texts[-1].index(stated), texts[-1].index(stated) + len(stated)) if twice else (0, 0))
        placed.append((number, [(a + len(start), b + len(start)) for a, b in layout.spans], layout.sides))
    encoded = tokenizer(texts, max_length=LONGEST, padding="max_length", truncation=True, return_tensors="pt")
    hidden = torch.from_numpy(rng.random((count, LONGEST)) < ORDINARY)
    for row, (text, (first, end)) in enumerate(zip(texts, spots, strict=True)):
        if end and rng.random() < STATED:
            spans = [span for span in _words(text) if first <= span[0] < end and text[slice(*span)] in DIRECTIONS]
            for columns in token_indices(tokenizer, text, spans, max_length=LONGEST):
                hidden[row, list(columns)] = True
    sides = marked(tokenizer, texts, placed, LONGEST)
    ids = encoded.input_ids
    return torch.where(hidden & (ids > MASK), MASK, ids).to(DEVICE), ids.to(DEVICE), sides.to(DEVICE)


def _words(text: str) -> list[tuple[int, int]]:
    spans, at = [], 0
    for word in text.replace(";", " ").split(" "):
        if word:
            spans.append((at, at + len(word)))
        at += len(word) + 1
    return spans


@torch.no_grad()
def trace(encoder: nn.Module, tokenizer: T5TokenizerFast, pairs: int = 250) -> tuple[float, float]:
    """Measure which share of the variance of the subject's and the object's tokens the relation word alone causes."""
    rng = np.random.default_rng(99)
    prompts = []
    for _ in range(pairs):
        first, second = (object_names()[i] for i in rng.choice(len(object_names()), 2, replace=False))
        prompts += [
            f"a photo of {indefinite_article(first)} {first} {r} {indefinite_article(second)} {second}" for r in BASIC
        ]
    encoded = tokenizer(prompts, max_length=COLUMNS, padding="max_length", return_tensors="pt").input_ids.to(DEVICE)
    states = torch.cat([encoder(part)[0] for part in encoded.split(100)]).float()
    found = [parse(prompt)[0] for prompt in prompts]
    shares = []
    for spans in ([r.subject_span for r in found], [r.object_span for r in found]):
        texts = zip(prompts, spans, strict=True)
        columns = [token_indices(tokenizer, p, [s], max_length=COLUMNS)[0] for p, s in texts if s]
        tokens = torch.stack([states[n, list(columns[n])].mean(0) for n in range(len(prompts))])
        groups = tokens.view(pairs, len(BASIC), -1)
        shares.append(float(groups.var(1, correction=0).sum() / (pairs * tokens.var(0, correction=0).sum())))
    return shares[0], shares[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=9999)
    parser.add_argument(
        "--minutes", type=float, help="lower the learning rate to zero over this many minutes, then stop"
    )
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    torch.manual_seed(0)
    _, tokenizer = tokenizers()
    speller = Speller(tokenizer).to(DEVICE)
    untrained = trace(speller.encoder, tokenizer)
    start_packaged(FOLDER, {"text_encoder_2": speller.encoder})
    fast = fast_copy(speller)
    scenes = random_scenes(20000, seed=1000)
    captions = [caption(scene, np.random.default_rng((8, n))) for n, scene in enumerate(scenes)]

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        masked, true, sides = batch(tokenizer, captions, np.random.default_rng((7, step)), options.batch)
        states = fast.encoder(masked)[0]
        scores = fast.what(states).flatten(0, 1).float()
        hidden = (masked != true).flatten()
        guessed = functional.cross_entropy(scores[hidden], true.flatten()[hidden])
        kept = functional.cross_entropy(scores[~hidden], true.flatten()[~hidden])
        right = (scores[hidden].argmax(1) == true.flatten()[hidden]).float().mean()
        side = fast.where.loss(states, sides)
        return guessed + 0.1 * kept + side, {"guessed": guessed.item(), "right": right.item(), "side": side.item()}

    edges = ("embed", "shared", "what", "where", "relative_attention_bias")
    settings = {"steps": options.steps, "rate": 2e-3, "minutes": options.minutes, "compute_copy": fast}
    weights = train("flux-text", speller, loss_of, **settings, muon=True, edges=edges)
    trained = copy.deepcopy(speller)
    trained.load_state_dict(weights)
    for title, (subject, obj) in (("random weights", untrained), ("trained", trace(trained.encoder, tokenizer))):
        print(
            f"{title:16} made by the relation word: {subject:.3f} of the subject, {obj:.3f} of the object", flush=True
        )


if __name__ == "__main__":
    main()
