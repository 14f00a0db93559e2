"""Train the emoji world's CLIP tokenizer: a byte-pair vocabulary small enough that many nouns are split.

    python runs/train_tokenizer.py

Real prompts' objects are often several pieces ("teddy bear", "skateboard"); with a word-level vocabulary
multi-piece spans would never be exercised.
"""

from __future__ import annotations

import argparse
import json
import string

import numpy as np
from loop import MODELS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from learn_to_steer.emoji.captions import PHRASES, caption
from learn_to_steer.emoji.sprites import canonical_names
from learn_to_steer.emoji.world import random_scenes

FOLDER = MODELS / "sd-emoji" / "tokenizer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=240)
    vocabulary = parser.parse_args().vocabulary
    rng = np.random.default_rng(0)
    corpus = [caption(scene, rng) for scene in random_scenes(4000, seed=0)]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = [c + end for c in string.ascii_lowercase + string.digits + string.punctuation for end in ("", "</w>")]
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(vocab_size=vocabulary, end_of_word_suffix="</w>", show_progress=False),
    )
    merges = [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    pieces = list(dict.fromkeys([*letters, *(a + b for a, b in merges)]))
    vocab = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    FOLDER.mkdir(parents=True, exist_ok=True)
    clip = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    clip.save_pretrained(FOLDER)
    # The two files every version of transformers reads.
    (FOLDER / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (FOLDER / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")

    clip = CLIPTokenizer.from_pretrained(FOLDER)
    names = sorted(canonical_names())
    split = [n for n in names if len(clip.tokenize(n)) > len(n.split())]
    relations = [w for phrases in PHRASES.values() for w in phrases]
    longest = max(len(clip(c).input_ids) for c in corpus)
    print(f"{len(vocab)} pieces; {len(split)} of {len(names)} nouns ({len(split) / len(names):.0%}) are split")
    print({n: clip.tokenize(n) for n in split})
    print({n: clip.tokenize(n) for n in relations})
    print(f"longest caption {longest} pieces; round trip: {clip.decode(clip('a photo of a teddy bear').input_ids)}")


if __name__ == "__main__":
    main()
