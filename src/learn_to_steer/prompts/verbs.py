"""Verbs as the grammar needs them: which words are verbs, and what a verb means for the nouns around it."""

from __future__ import annotations

from learn_to_steer.prompts import lexicon
from learn_to_steer.prompts.lexicon import words

# Said of a subject as they stand; their forms in -s are made below, those in -ing and -ed go by their ending.
_BASES = words(
    "sit stand lie lay hang fly float hover rest sleep jump run walk perch lean stay loom soar swim ride drive play eat"
    " hold wear look rise sail grow go nap doze lounge bask drift glow shine gleam flicker burn dance sing read wait"
    " watch chase kneel crouch climb crawl graze roam wander swing swoop circle glide roll slide spin tower stretch"
    " hide peek stare gaze smile laugh bark meow drink chew carry throw catch kick pull push chat chase curl streak"
    " dangle balance hunt cook work pose flow fall sparkle twinkle want need like love see face depict show contain"
    " feature include display belong live dwell settle land park wave nestle bloom blossom gather appear lurk sway pour"
    " place put set keep build make find draw paint create generate render imagine visualize visualise say says"
)
# Nouns too, and more often so in prompts.
_RATHER_NOUNS = words(
    "swing slide roll ride drive play nap look lounge glow shine dance drink stretch circle wave park land balance work"
    " tower face feature display show curl streak drift place paint sail kick graze like love need watch chat hide"
    " catch throw bloom blossom roam spin hunt fall burn smile laugh bark stare float perch lean stand"
    " parks swings slides rolls plays drinks looks works towers faces features displays shows curls streaks places"
    " paints lands watches rests naps circles balances dances lounges catches throws blooms blossoms burns smiles"
    " laughs barks kicks"
)
# All the same verbs after a noun: "the dog looks", "a row of birds perch".
_RATHER_VERBS = words(
    "play plays look looks float perch lean stand drives rides rests watches smiles laughs places drinks dances"
)
_PAST = words(
    "sat stood lay laid hung flew swam rode ran slept ate held wore rose grew went shone sang knelt swung spun hid fell"
    " drank threw caught"
)
_PARTICIPLES = words("seen shown put built kept made held found drawn hidden worn woven sewn clad lit grown laid")


def _third(verb: str) -> str:
    if verb.endswith(("ch", "sh", "ss", "x", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeo" else verb + "s"


_EVERY = _BASES | {_third(verb) for verb in _BASES} | _PAST
FINITE = _EVERY | lexicon.COPULAS | lexicon.AUXILIARIES
# Verbs and adverbs; where a noun phrase is still without its noun they are adjectives or that noun instead.
LOOSE = (_EVERY - _RATHER_NOUNS) | _RATHER_VERBS | _PARTICIPLES | lexicon.ADVERBS
# After "the" and a noun these could be either: "the car parks", "the city parks".
AMBIGUOUS = {word for word in _RATHER_NOUNS if word.endswith("s")} - _RATHER_VERBS
# After "a" and a noun these are the noun: "a fruit stand".
BASES = _BASES - words("set put")
# "a moss covered stone": such a form between a noun and a bare noun belongs to the second one.
COMPOUNDING = words("made built drawn woven sewn clad lit grown")
NAMING = words("named called titled labeled labelled nicknamed")
# At the beginning of a sentence: an order to the painter, not a thing.
ORDERS = words(
    "draw paint create generate make render imagine visualize visualise depict show give picture please want need"
    " sketch illustrate put place"
)
# "a shelf has a vase left of a lamp": the thing inside is the one that is placed.
CONTAINING = words(
    "has have had having contains contain containing features feature featuring shows show showing depicts depict"
    " depicting includes include including displays display displaying"
)
PLACING = words("places placing puts putting sets setting lays laying hangs hanging arranges arranging draws drawing")
# What is carried may be the one that is placed, or not: "a girl holding a balloon above a dog".
CARRYING = words(
    "holds hold holding held carries carry carrying carried lifts lift lifting raises raising throws throwing flies fly"
    " flying pulls pulling pushes pushing waves waving swings swinging balances balancing"
)
# Over what somebody does something to a thing, the thing is, not the doer: "dusts flour over a loaf"; unless they move.
MOVING = words("rides riding rode drives driving drove pilots piloting sails sailing wearing")
# "leaning over a desk", "draped over a chair": not above it, or not clearly.
OVER = words(
    "leans leaning leaned bends bending bent looks looking looked watches watching stoops stooping hunches hunched"
    " crouches crouching crouched towers towering presides presiding draped drapes draping slung spills spilling"
    " spilled spread spreads spreading folded pours pouring poured flows flowing wraps wrapped fights fighting argues"
    " arguing chats chatting talks talking laughs laughing bows bowing cries crying rules ruling reigns knocked knocks"
    " tipped tipping rolls turned turns takes taking pulled pulls crosses crossing thrown hung falls falling tucked"
)


def is_finite(word: str) -> bool:
    """Whether the word makes a sentence of its subject: "sits", but not "sitting"."""
    return word in FINITE or (word.endswith("s") and is_verb(word))


def is_verb(word: str) -> bool:
    """Whether a word between two nouns is a verb with a meaning of its own: not an adverb, not "is", not "that"."""
    if word in CONTAINING:
        return True
    other = word in lexicon.GLUE or word in lexicon.ADVERBS or word in lexicon.ADJECTIVES
    return word.isalpha() and not other and not word.endswith("ly")
