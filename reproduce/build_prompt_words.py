"""src/learn_to_steer/prompts/wordnet_words.json: English words by what they can be, cut out of WordNet 3.0.

    python reproduce/build_prompt_words.py FOLDER     # seconds; FOLDER holds the index files, data.noun, ...

Debian's package wordnet-base has these files. Kept are words that WordNet's own corpus uses: nouns that name nothing
with a place ("argument", "presence"), verbs, adjectives that are never nouns, and irregular forms of verbs. WordNet's
licence (see NOTICE) permits this copy.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

from build_wordnet import closure, read_synsets, rows
from learn_to_steer.prompts import word_lists

OUT = Path(__file__).resolve().parents[1] / "src" / "learn_to_steer" / "prompts" / "wordnet_words.json"
# Lexicographer files. Abstract: act, attribute, cognition, communication, event, feeling, motive, process, quantity,
# relation, state, time. Tangible: tops, animal, artifact, body, food, group, location, object, person, plant, shape,
# substance. Phenomena ("fog") and possessions ("coin") are neither.
ABSTRACT = {4, 7, 9, 10, 11, 12, 16, 22, 23, 24, 26, 28}
TANGIBLE = {3, 5, 6, 8, 13, 14, 15, 17, 18, 20, 25, 27}
SENSES = 4  # a noun is abstract when none of its first senses is tangible
SEEN = ("written_communication", "visual_communication", "signal")  # "sign", "letter"
SEEN_VERBS = {29, 38, 39, 42, 43}
KINDS = {"1": "noun", "2": "verb", "3": "adjective", "4": "adverb", "5": "adjective"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    uses: dict[str, Counter[str]] = defaultdict(Counter)  # how often WordNet's corpus uses a word as what
    for key, _, count in rows(folder / "cntlist.rev"):
        word, sense = key.split("%")
        uses[word][KINDS[sense[0]]] += int(count)
    files, above = read_synsets(folder / "data.noun")
    senses = {line[0]: line[-int(line[2]) :] for line in rows(folder / "index.noun")}
    nouns = {word: [files[sense] for sense in its] for word, its in senses.items() if word.isalpha() and len(word) > 2}
    seen = {senses[name][0] for name in SEEN if name in senses}
    verbs = {line[0] for line in words(folder / "index.verb")}
    adjectives = {line[0] for line in words(folder / "index.adj")}
    irregular = {line[0] for line in words(folder / "verb.exc")}
    kinds_of_verbs, _ = read_synsets(folder / "data.verb")
    verb_kinds = {line[0]: kinds_of_verbs[line[-int(line[2])]] for line in words(folder / "index.verb")}
    # Verbs of body, creation, motion, perception, state and weather also when the corpus does not use them: "snooze".
    used_verbs = {
        verb for verb in verbs if uses[verb]["verb"] or (verb_kinds[verb] in SEEN_VERBS and not uses[verb]["noun"])
    }

    def mostly_verb(word: str) -> bool:
        return word not in nouns or uses[word]["verb"] >= 3 * uses[word]["noun"]

    classes = {
        "abstract nouns": {
            noun
            for noun, kinds in nouns.items()
            if uses[noun]["noun"]
            and kinds[0] in ABSTRACT
            and not TANGIBLE.intersection(kinds[:SENSES])
            and not seen & closure(set(senses[noun][:1]), above)
            and not (noun.endswith("s") and noun[:-1] in nouns)  # "shoes": whose fate one shares
        },
        "verbs": {verb for verb in used_verbs if not TANGIBLE.intersection(nouns.get(verb, [])) and mostly_verb(verb)},
        "verbs more than nouns": {v for v in used_verbs if v in nouns and uses[v]["verb"] > uses[v]["noun"]},
        "adjectives": {
            adjective
            for adjective in adjectives - nouns.keys() - verbs
            if uses[adjective]["adjective"] and not adjective.endswith(("ing", "ed"))
        },
        "irregular verb forms": {
            form
            for form in irregular - nouns.keys() - adjectives - word_lists.ADVERBS
            if not form.endswith(("ing", "ed"))
        },
    }
    classes["verbs more than nouns"] -= classes["verbs"]
    about = "Words cut from WordNet 3.0, Copyright 2006 by Princeton University; licence in NOTICE"
    lines = [f'"about": {json.dumps(about)}']
    lines += [f"{json.dumps(name)}: {json.dumps(' '.join(sorted(members)))}" for name, members in classes.items()]
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print({name: len(members) for name, members in classes.items()}, OUT.stat().st_size, "bytes")


def words(path: Path) -> list[list[str]]:
    """The lines of a database file that begin with a single word in letters."""
    return [line for line in rows(path) if line[0].isalpha() and len(line[0]) > 2]


if __name__ == "__main__":
    main()
