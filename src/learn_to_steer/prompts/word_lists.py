"""The words that the grammar knows, as sets: function words, adjectives and verbs. ``noun_lists`` has the nouns.

Each comment says what membership in a set means to the rules in ``tagging``, ``chunking`` and ``parser``.
"""

from __future__ import annotations

import json
from pathlib import Path


def word_set(text: str) -> frozenset[str]:
    """Return the set of the words in ``text``, which are separated by spaces."""
    return frozenset(text.split())


WORDNET = {
    kind: word_set(words)
    for kind, words in json.loads(Path(__file__).with_name("wordnet_words.json").read_text(encoding="utf-8")).items()
}

SINGULAR_DETERMINERS = word_set("a an one another each every this single")
PLURAL_DETERMINERS = word_set(
    "two three four five six seven eight nine ten eleven twelve dozen hundred hundreds thousand thousands million"
    " some several many few both all these those other"
)
COUNTING_DETERMINERS = SINGULAR_DETERMINERS | PLURAL_DETERMINERS  # not "the", nor "its"
NUMBERS = word_set("two three four five six seven eight nine ten eleven twelve")
DETERMINERS = SINGULAR_DETERMINERS | PLURAL_DETERMINERS | word_set("the any same my your his her its our their whose")
# After "over" these are an amount, not a place: "over a hundred birds". So are digits from 10 on.
LARGE_NUMBERS = word_set("dozen hundred hundreds thousand thousands million")
# After one of these a noun phrase describes the noun before it: "a cup of tea", "a man in a suit".
ATTACHING_PREPOSITIONS = word_set(
    "of in on at from inside wearing through along across around round into onto upon against for like outside among"
    " amid amidst within during off toward towards about throughout out per via without"
)
# After one of these it stands beside that noun, and a relation may be about either of the two.
BESIDE_PREPOSITIONS = word_set(
    "to next near nearby by beside besides behind between alongside close adjacent beyond past opposite"
)
PREPOSITIONS = (
    ATTACHING_PREPOSITIONS | BESIDE_PREPOSITIONS | word_set("with before after since until despite except than")
)
CONJUNCTIONS = word_set("and or while whilst but as when then plus , ; : & + / \u2014 \u2013 -")
SENTENCE_ENDS = word_set(". ! ? |")
STOPS = SENTENCE_ENDS | word_set(
    "it he she they them him me you i we us itself himself herself themselves there there's here here's it's"
    " something someone everything everyone nothing anything anyone others what whatever"
)
NEGATIONS = word_set("not no never without nor neither cannot none")
RELATIVE_PRONOUNS = word_set("that which who whom where")
COPULAS = word_set("is are was were be been being am seems seem appears appear remains remain becomes become")
AUXILIARIES = word_set("has have had does do did would could should may might must can will")
FUNCTION_WORDS = RELATIVE_PRONOUNS | COPULAS | AUXILIARIES
# Never taken for the noun that a phrase still lacks: "a very above".
DEGREE_ADVERBS = word_set("very almost quite so too rather slightly really extremely just even only")
ADVERBS = DEGREE_ADVERBS | word_set(
    "left right also still far high low well up down away apart together alone outdoors outdoor indoors somewhere"
    " half now today always both straight diagonally asleep awake afloat aloft adrift upside instead visible halfway"
    " everywhere nearby partly midair overhead upwards upward downwards downward forward forwards backward backwards"
    " sideways once twice again ever soon back please side-by-side"
)
_COMMON_ADJECTIVES = word_set(
    "own red yellow green blue purple pink brown black white gray grey cyan magenta beige teal turquoise golden"
    " crimson scarlet colorful colourful bright dark light pale big large huge giant small little tiny tall short"
    " long wide thin thick fat round square oval old new young modern vintage antique ancient medieval rustic fresh"
    " clean dirty shiny fluffy furry cute happy sad angry sleepy lazy grumpy playful curious beautiful pretty lovely"
    " friendly wooden metal metallic plastic stone marble gold silver leather woolen woollen velvet ceramic porcelain"
    " striped empty full open closed upper lower smooth rough soft hard heavy sharp blunt wet dry hot cold warm cool"
    " cozy cosy misty foggy rainy sunny snowy stormy cloudy windy dusty rusty mossy muddy sandy rocky grassy leafy"
    " woolly hairy curly wavy spiky bumpy glossy shabby creamy juicy tasty spicy noisy busy messy tidy fancy funny"
    " scary creepy spooky quiet calm serene majestic elegant delicate ornate intricate sleek slender slim chubby"
    " plump gigantic enormous massive miniature deep shallow narrow broad steep flat crooked bent cracked broken torn"
    " worn whimsical mysterious mystical magical surreal realistic photorealistic hyperrealistic abstract minimal"
    " minimalist cinematic dramatic vivid vibrant translucent transparent opaque bare lone lonely solitary twin proud"
    " brave wild tame ripe raw sweet sour bitter burnt frozen molten electric wise clever elderly blond blonde"
    " brunette bald asian african american european french english german italian japanese chinese indian victorian"
    " gothic futuristic"
)
ADJECTIVES = _COMMON_ADJECTIVES | (WORDNET["adjectives"] - ADVERBS)
# Adjectives that are nouns when they follow a noun: "a river stone".
ADJECTIVES_OR_NOUNS = word_set("stone marble giant square light oval metal plastic leather gold silver")
# Nouns that have an adjective's ending.
_NOUNS_LIKE = word_set(
    "puppy kitty bunny pony berry cherry strawberry blueberry raspberry candy city lady baby body teddy daisy lily"
    " jelly party story library factory bakery gallery balcony ferry fairy sky fly butterfly dragonfly ruby penny"
    " poppy canary trophy galaxy family cookie army diary dairy dictionary symphony buggy lorry navy ivy country"
    " county battery pantry pastry cemetery property laundry jewelry jewellery canopy copy entry lobby hobby belly"
    " fish dish radish goldish brush mechanic comic picnic music clinic fabric attic plastic mosaic garlic table"
    " cable vegetable stable bible marble parable plant elephant ant pant restaurant pendant giant student parent"
    " president serpent tent accident event cement chicken kitchen garden oven raven queen screen alien children"
    " citizen linen maiden olive detective locomotive hive dive"
)
_ADJECTIVE_ENDINGS = ("y", "ous", "ful", "less", "ish", "ic", "ive", "able", "ible", "some", "ant", "ent")
# Fixed phrases, and the tag (see ``tagging.Tag``) that each has as a whole.
FIXED_PHRASES = {
    ("all", "over"): "preposition",
    ("over", "and", "over"): "filler",
    ("over", "there"): "filler",
    ("over", "here"): "filler",
    ("over", "again"): "filler",
    ("on", "top"): "filler",
    ("side", "by", "side"): "filler",
    ("upside", "down"): "filler",
    ("mid", "air"): "filler",
    ("mid", "flight"): "filler",
    ("mid", "leap"): "filler",
    ("mid", "jump"): "filler",
    ("right", "now"): "filler",
    ("over", "the", "moon"): "filler",
    ("under", "sail"): "filler",
    ("right", "of", "way"): "filler",
    ("left", "of", "center"): "filler",
    ("left", "of", "centre"): "filler",
    ("right", "of", "center"): "filler",
    ("right", "of", "centre"): "filler",
    ("in", "front", "of"): "preposition",
    ("instead", "of"): "preposition",
    ("as", "well", "as"): "conjunction",
    ("such", "as"): "preposition",
    ("of", "course"): "filler",
}


def looks_like_adjective(word: str) -> bool:
    """Return whether an unknown word has an adjective's ending: "mossy", "gracious"."""
    if word in _NOUNS_LIKE or word.endswith(("ey", "ay", "oy", "ty")):
        return False
    return word.endswith(_ADJECTIVE_ENDINGS)


# Nouns that have the ending of a verb or an adverb.
NOUNS_LIKE_VERBS = word_set(
    "painting building ring king queen wing thing string spring sling swing earring ceiling drawing railing awning"
    " pudding duckling viking wedding dumpling herring starling stocking clothing bling carving etching frosting"
    " icing lightning morning evening opening offspring sapling gosling sibling bedding flooring writing landing"
    " crossing scaffolding lemming mooring keyring covering bearing bed shed sled seed weed reed steed moped bobsled"
    " seabed flatbed breed feed tweed butterfly dragonfly firefly housefly jelly lily belly family ally holly bully"
    " doily potbelly clearing lighting parking seating fledgling seedling nestling hatchling bread thread head"
    " assembly monopoly anomaly bunting grating cladding paneling panelling fencing tubing matting legging leggings"
    " dwelling outbuilding seaweed shoestring plumbing siding"
)
# Base forms. The forms in -s are derived below; those in -ing and -ed are known by their ending.
_ALL_BASE_VERBS = word_set(
    "sit stand lie lay hang fly float hover rest sleep jump run walk perch lean stay loom soar swim ride drive play"
    " eat hold wear look rise sail grow go nap doze lounge bask drift glow shine gleam flicker burn dance sing read"
    " wait watch chase kneel crouch climb crawl graze roam wander swing swoop circle glide roll slide spin tower"
    " stretch hide peek stare gaze smile laugh bark meow drink chew carry throw catch kick pull push chat curl streak"
    " dangle balance hunt cook work pose flow fall sparkle twinkle want need like love see face depict show contain"
    " feature include display belong live dwell settle land park wave nestle bloom blossom gather appear lurk sway"
    " pour place put set keep build make find draw paint create generate render imagine visualize visualise say says"
)
# Also nouns, and in prompts more often nouns than verbs.
USUALLY_NOUNS = word_set(
    "swing slide roll ride drive play nap look lounge glow shine dance drink stretch circle wave park land balance"
    " work tower face feature display show curl streak drift place paint sail kick graze like love need watch chat"
    " hide catch throw bloom blossom roam spin hunt fall burn smile laugh bark stare float perch lean stand parks"
    " swings slides rolls plays drinks looks works towers faces features displays shows curls streaks places paints"
    " lands watches rests naps circles balances dances lounges catches throws blooms blossoms burns smiles laughs"
    " barks kicks waves hides hunts falls likes sails render renders"
)
# Of these, verbs nevertheless when they follow a noun: "the dog looks", "a row of birds perch".
_VERBS_AFTER_NOUNS = word_set(
    "play plays look looks float perch lean stand drives rides rests watches smiles laughs places drinks dances"
)
_PAST_FORMS = word_set(
    "cast sat stood lay laid hung flew swam rode ran slept ate held wore rose grew went shone sang knelt swung spun hid"
    " fell drank threw caught"
)
_PARTICIPLES = word_set(
    "seen shown put built kept made held found drawn hidden worn woven sewn clad lit grown laid spread"
    " stuck strung bound sunk"
)


def _third(verb: str) -> str:
    if verb.endswith(("ch", "sh", "ss", "x", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeo" else verb + "s"


def _forms(verbs: str) -> frozenset[str]:
    """All regular forms of verbs."""
    return frozenset(form for verb in verbs.split() for form in (verb, _third(verb), _past(verb), _participle(verb)))


def _past(verb: str) -> str:
    stem = verb + verb[-1] if _doubles(verb) else verb
    return verb[:-1] + "ied" if verb[-1] == "y" and verb[-2] not in "aeo" else stem.removesuffix("e") + "ed"


def _participle(verb: str) -> str:
    return (verb + verb[-1] if _doubles(verb) else verb.removesuffix("e")) + "ing"


def _doubles(verb: str) -> bool:
    """Whether the last letter is doubled: "tipping"."""
    return len(verb) < 5 and verb[-1] in "pntbg" and verb[-2] in "aeiou" and verb[-3] not in "aeiou"


_OTHER_BASE_VERBS = WORDNET["verbs"] - _ALL_BASE_VERBS - USUALLY_NOUNS
_PLURALS_LIKE_VERBS = word_set("shelves calves halves leaves lives wolves thieves grooves")
_OTHER_VERB_FORMS = (
    _OTHER_BASE_VERBS | {_third(verb) for verb in _OTHER_BASE_VERBS} | WORDNET["irregular verb forms"]
) - _PLURALS_LIKE_VERBS
# Verbs in a form that a noun may have as well: before a noun they describe it ("a travel poster"), after "of" they are
# the noun ("a mountain of presents").
LIKE_NOUNS = (_OTHER_BASE_VERBS | {_third(verb) for verb in _OTHER_BASE_VERBS}) - ADVERBS
_VERB_FORMS = _ALL_BASE_VERBS | {_third(verb) for verb in _ALL_BASE_VERBS} | _PAST_FORMS | _OTHER_VERB_FORMS
FINITE_VERBS = _VERB_FORMS | COPULAS | AUXILIARIES
# In a noun phrase that has no noun yet, one of these is an adjective or the noun itself.
VERBS_AND_ADVERBS = (_VERB_FORMS - USUALLY_NOUNS) | _VERBS_AFTER_NOUNS | _PARTICIPLES | ADVERBS
# After "the" and a noun these can be a verb or a noun: "the car parks", "the city parks".
AMBIGUOUS_IN_S = {word for word in USUALLY_NOUNS if word.endswith("s")} - _VERBS_AFTER_NOUNS
# After "a" and a noun these are the head noun: "a fruit stand".
BASE_VERBS = (_ALL_BASE_VERBS & USUALLY_NOUNS) - WORDNET["verbs"]
# Also nouns, yet verbs between a noun and a relation: "their dog digs under", "sparks drift over".
_MOTIONS = word_set(
    "dig dart drift glow roar wheel circle bow streak swirl whirl sway hang float flow flutter glide sail fly swing"
    " spin roll rise climb swoop leap sit stand jut loom tower shine gleam sparkle trot gallop swim dance jump peek"
    " lean rest hover soar march drip trail wind dip sag curl coil billow pile stack heap tumble cascade bob hop flap"
    " stream pulse seep blow nap lounge dive plunge dash"
)
# Before "over" and "under" these say more of the direction: "juts out over".
PARTICLES = word_set("in out off around along across round about")
VERBS_IN_S = {_third(verb) for verb in _MOTIONS | _OTHER_BASE_VERBS}
PLURAL_VERBS = _MOTIONS | _OTHER_BASE_VERBS | WORDNET["verbs more than nouns"] | (_ALL_BASE_VERBS - USUALLY_NOUNS)
# Between two nouns such a form describes the second one: "a moss grown stone".
COMPOUNDING_PARTICIPLES = word_set("made built drawn woven sewn clad lit grown")
# After a noun, with a preposition, these describe it: "a table made of oak".
DESCRIBING_PARTICIPLES = word_set(
    "made built carved woven filled covered decorated adorned crafted painted dressed wrapped lined topped full set"
    " formed composed sculpted cast forged knitted sewn surrounded lit draped crowned dusted cluttered littered"
)
# In "points at a crane over a site" the relation is about the crane.
POINTING_VERBS = word_set(
    "points pointing looks looking gazes gazing stares staring glances glancing smiles smiling waves waving aims aiming"
)
# "is pinned above" tells where a picture is, not what it shows.
MOUNTING_PARTICIPLES = word_set("hung pinned mounted taped tacked nailed placed propped displayed")
NAMING_VERBS = word_set("named called titled labeled labelled nicknamed")
# At the beginning of a sentence these are a request, not an object: "draw a dog".
REQUEST_VERBS = word_set(
    "draw paint create generate make render imagine visualize visualise depict show give picture please want need"
    " sketch illustrate put place"
)
# "a shelf has a vase left of a lamp": the relation is about the contained object.
CONTAINING_VERBS = word_set(
    "has have had having contains contain containing features feature featuring shows show showing depicts depict"
    " depicting includes include including displays display displaying"
)
# What they cast is no object: "the lamp casts a glow over the desk".
CASTING_VERBS = word_set(
    "cast casts casting shed sheds shedding throws throwing threw spreads spreading pours pouring sends sending"
    " radiates lends lending brings bringing keeps keeping kept"
)
PLACING_VERBS = word_set(
    "places placing puts putting sets setting lays laying hangs hanging arranges arranging draws drawing"
)
# The relation may be about the carrier or the carried object: "a girl holding a balloon above a dog".
CARRYING_VERBS = word_set(
    "holds hold holding held carries carry carrying carried lifts lift lifting raises raising throws throwing flies"
    " fly flying pulls pulling pushes pushing waves waving swings swinging balances balancing"
)
# Before "over" the doer of these is the subject ("drives a car over a bridge"); of other verbs it is not clear who is
# over the object ("dusts flour over a loaf").
MOVING_VERBS = word_set("rides riding rode drives driving drove pilots piloting sails sailing wearing")
# With these, "over" does not clearly mean above: "leaning over a desk", "draped over a chair", "ruling over a land".
VERBS_WITH_OVER = _forms(
    "lean look watch stoop hunch crouch tower preside drape spill fold pour flow wrap fight argue chat talk laugh"
    " rule reign knock tip roll turn pull cross fall tuck crawl creep climb lap wash settle scatter sprinkle dust"
    " drizzle stretch extend linger brood ponder quarrel bicker squabble debate mourn worry fuss gloat triumph"
    " agonize pore muse haggle negotiate compete gaze stare peer glance peep stream cascade trickle smear paint coat"
    " drip stumble trip trail blanket huddle whisper gossip smile grin drool peek drum slant scrape"
) | word_set(
    "bends bending bent leaned strewn spread spreads spreading bows bowing slung thrown hung takes taking swept"
    " sweeps sweeping grows growing grown grew laid flung fought fell fallen wept weeps weeping sprawled sprawls"
    " sprawling plastered layered"
)


def is_finite_verb(word: str) -> bool:
    """Return whether ``word`` is a finite verb: "sits", but not "sitting"."""
    return word in FINITE_VERBS or (word.endswith("s") and is_content_verb(word))


def is_content_verb(word: str) -> bool:
    """Return whether ``word``, between two nouns, is a content verb: no adverb, auxiliary or relative pronoun."""
    if word in CONTAINING_VERBS:
        return True
    other = word in FUNCTION_WORDS or word in ADVERBS or word in ADJECTIVES
    return word.isalpha() and not other and not word.endswith("ly")


def singulars(noun: str) -> tuple[str, ...]:
    """Return the noun and what may be its singular: "glass" and "glasse" for "glasses"."""
    forms = (noun, noun.removesuffix("s"), noun.removesuffix("es"), noun.removesuffix("ies") + "y")
    return forms if noun.endswith("s") else (noun,)
