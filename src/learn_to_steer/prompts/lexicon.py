"""The closed word classes that the grammar knows, its adjectives, and turns of several words."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of ``text`` as a class."""
    return frozenset(text.split())


SINGULAR = words("a an one another each every this single")
PLURAL = words(
    "two three four five six seven eight nine ten eleven twelve dozen hundred hundreds thousand thousands million some"
    " several many few both all these those other"
)
DETERMINERS = SINGULAR | PLURAL | words("the any same my your his her its our their whose")
# Numbers so large that "over" before them counts instead of placing; digits from 10 on join them.
QUANTITIES = words("dozen hundred hundreds thousand thousands million")
# After one of these a noun phrase describes the noun before it: "a cup of tea", "a man in a suit".
ATTACHING = words(
    "of in on at from inside wearing through along across around round into onto upon against for like outside among"
    " amid amidst within during off toward towards about throughout out per via without"
)
# After one of these it stands beside that noun, and a relation may be about either.
BESIDE = words("to next near nearby by beside besides behind between alongside close adjacent beyond past opposite")
PREPOSITIONS = ATTACHING | BESIDE | words("with before after since until despite except than")
JOINS = words("and or while whilst but as when then plus , ; : & + / \u2014 \u2013 -")
STOPS = words(". ! ? |") | words(
    "it he she they them him me you i we us itself himself herself themselves there there's here here's it's something"
    " someone everything everyone nothing anything anyone others what whatever"
)
NEGATIONS = words("not no never without nor neither cannot none")
RELATIVES = words("that which who whom where")
COPULAS = words("is are was were be been being am seems seem appears appear remains remain becomes become")
AUXILIARIES = words("has have had does do did would could should may might must can will")
GLUE = RELATIVES | COPULAS | AUXILIARIES
# "a very above": never the noun that a phrase still lacks.
DEGREES = words("very almost quite so too rather slightly really extremely just even only")
ADVERBS = DEGREES | words(
    "left right also still far high low well up down away apart together alone outdoors outdoor indoors somewhere half"
    " now today always both straight diagonally asleep awake afloat aloft adrift upside instead visible halfway"
    " everywhere nearby partly midair overhead upwards upward downwards downward forward forwards backward backwards"
    " sideways once twice again ever soon back please side-by-side"
)
ADJECTIVES = words(
    "red yellow green blue purple pink brown black white gray grey cyan magenta beige teal turquoise golden crimson"
    " scarlet colorful colourful bright dark light pale big large huge giant small little tiny tall short long wide"
    " thin thick fat round square oval old new young modern vintage antique ancient medieval rustic fresh clean dirty"
    " shiny fluffy furry cute happy sad angry sleepy lazy grumpy playful curious beautiful pretty lovely friendly"
    " wooden metal metallic plastic stone marble gold silver leather woolen woollen velvet ceramic porcelain striped"
    " empty full open closed upper lower smooth rough soft hard heavy sharp blunt wet dry hot cold warm cool cozy cosy"
    " misty foggy rainy sunny snowy stormy cloudy windy dusty rusty mossy muddy sandy rocky grassy leafy woolly hairy"
    " curly wavy spiky bumpy glossy shabby creamy juicy tasty spicy noisy busy messy tidy fancy funny scary creepy"
    " spooky quiet calm serene majestic elegant delicate ornate intricate sleek slender slim chubby plump gigantic"
    " enormous massive miniature deep shallow narrow broad steep flat crooked bent cracked broken torn worn whimsical"
    " mysterious mystical magical surreal realistic photorealistic hyperrealistic abstract minimal minimalist cinematic"
    " dramatic vivid vibrant translucent transparent opaque bare lone lonely solitary twin huge proud brave wild tame"
    " ripe raw sweet sour bitter burnt frozen molten electric wise clever elderly blond blonde brunette bald asian"
    " african american european french english german italian japanese chinese indian victorian gothic futuristic"
)
# After a noun these are nouns themselves.
NOUNS_TOO = words("stone marble giant square light oval")
# Nouns that end like an adjective.
_NOUNS_LIKE = words(
    "puppy kitty bunny pony berry cherry strawberry blueberry raspberry candy city lady baby body teddy daisy lily"
    " jelly party story library factory bakery gallery balcony ferry fairy sky fly butterfly dragonfly ruby penny"
    " poppy canary trophy galaxy family cookie army diary dairy dictionary symphony buggy lorry navy ivy country county"
    " battery pantry pastry cemetery property laundry jewelry jewellery canopy copy entry lobby hobby belly fish dish"
    " radish goldish brush mechanic comic picnic music clinic fabric attic plastic mosaic garlic table cable vegetable"
    " stable bible marble parable plant elephant ant pant restaurant pendant giant student parent president serpent"
    " tent accident event cement chicken kitchen garden oven raven queen screen alien children citizen linen maiden"
    " olive detective locomotive hive dive"
)
_ADJECTIVE_ENDINGS = ("y", "ous", "ful", "less", "ish", "ic", "ive", "able", "ible", "some", "ant", "ent")
# Turns of several words, and the kind of item that each is as a whole.
IDIOMS = {
    ("all", "over"): "preposition",
    ("over", "and", "over"): "glue",
    ("over", "there"): "glue",
    ("over", "here"): "glue",
    ("over", "again"): "glue",
    ("on", "top"): "glue",
    ("side", "by", "side"): "glue",
    ("upside", "down"): "glue",
    ("right", "now"): "glue",
    ("over", "the", "moon"): "glue",
    ("under", "sail"): "glue",
    ("right", "of", "way"): "glue",
    ("left", "of", "center"): "glue",
    ("left", "of", "centre"): "glue",
    ("right", "of", "center"): "glue",
    ("right", "of", "centre"): "glue",
    ("in", "front", "of"): "preposition",
    ("instead", "of"): "preposition",
    ("as", "well", "as"): "join",
    ("such", "as"): "preposition",
    ("of", "course"): "glue",
}


def looks_adjective(word: str) -> bool:
    """Whether an unknown word ends as adjectives do: "mossy", "gracious"."""
    if word in _NOUNS_LIKE or word.endswith(("ey", "ay", "oy", "ty")):
        return False
    return word.endswith(_ADJECTIVE_ENDINGS)
