"""Train the emoji world's tokenizers, CLIP's and T5's kind, with vocabularies so small that many nouns are split.

    python training/train_tokenizer.py     # a minute

In real models an object's name often consists of several tokens. With a token for every word, code that handles such
names would never be tested.
"""

from __future__ import annotations

import argparse
import json
import math
import string
from collections import Counter

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5TokenizerFast

from learn_to_steer_emoji.captions import PHRASES, caption
from learn_to_steer_emoji.sprites import canonical_names
from learn_to_steer_emoji.world import random_scenes
from loop import MODELS

LETTERS = string.ascii_lowercase + string.digits + string.punctuation
CLIP = MODELS / "sd-emoji" / "tokenizer"
T5 = MODELS / "flux-emoji" / "tokenizer_2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=240, help="tokens that the trainer aims at")
    vocabulary = parser.parse_args().vocabulary
    rng = np.random.default_rng(0)
    corpus = [caption(scene, rng) for scene in random_scenes(4000, seed=0)]
    report(byte_pairs(corpus, vocabulary), corpus)
    report(sentence_pieces(corpus, vocabulary), corpus)


def byte_pairs(corpus: list[str], vocabulary: int) -> CLIPTokenizer:
    """Train and package CLIP's tokenizer."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = [c + end for c in LETTERS for end in ("", "</w>")]
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(vocab_size=vocabulary, end_of_word_suffix="</w>", show_progress=False),
    )
    merges = [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    pieces = list(dict.fromkeys([*letters, *(a + b for a, b in merges)]))
    vocab = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    CLIP.mkdir(parents=True, exist_ok=True)
    clip = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    clip.save_pretrained(CLIP)
    # These two files are read by every version of transformers.
    (CLIP / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (CLIP / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    return CLIPTokenizer.from_pretrained(CLIP)


def sentence_pieces(corpus: list[str], vocabulary: int) -> T5TokenizerFast:
    """Train and package T5's tokenizer: pieces from byte-pair merges, scored by their counts.

    T5's own way, the unigram trainer, leaves even frequent words such as "of" in single letters at this size.
    """
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.Metaspace()
    pairs.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False))
    used = Counter(piece for encoded in pairs.encode_batch(corpus) for piece in encoded.tokens)
    total = used.total()
    scores = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0}
    scores |= {piece: math.log(max(used[piece], 0.5) / total) for piece in pairs.get_vocab()}
    # Every prompt can be spelled, with capitals too, since T5 keeps them.
    scores |= {letter: -20.0 for letter in LETTERS + string.ascii_uppercase + "\u2581" if letter not in scores}
    T5.mkdir(parents=True, exist_ok=True)
    T5TokenizerFast(vocab=list(scores.items()), extra_ids=0, model_max_length=512).save_pretrained(T5)
    return T5TokenizerFast.from_pretrained(T5)


def report(tokenizer: CLIPTokenizer | T5TokenizerFast, corpus: list[str]) -> None:
    """Print how names and relations are split."""
    names = sorted(canonical_names())
    split = [n for n in names if len(tokenizer.tokenize(n)) > len(n.split())]
    relations = [w for phrases in PHRASES.values() for w in phrases]
    longest = max(len(tokenizer(c).input_ids) for c in corpus)
    print(f"{len(tokenizer)} pieces; {len(split)} of {len(names)} nouns ({len(split) / len(names):.0%}) are split")
    print({n: tokenizer.tokenize(n) for n in split})
    print({n: tokenizer.tokenize(n) for n in relations})
    again = tokenizer.decode(tokenizer("a photo of a teddy bear").input_ids)
    print(f"longest caption {longest} pieces; round trip: {again}")


if __name__ == "__main__":
    main()
