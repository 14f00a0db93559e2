"""The closed word classes that the grammar knows, and the nouns of several words."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words(
    "a an the one two three four five six seven eight nine ten eleven twelve hundred some several many few both"
    " all any each every another other same this these those my your his her its our their single"
)
# After one of these a noun phrase describes the noun before it: "a cup of tea", "a man in a suit".
ATTACHING = _words("of in on at from inside wearing")
PREPOSITIONS = ATTACHING | _words(
    "to with near by beside besides behind between into onto upon against outside along across around round"
    " through among amid alongside off for like next close adjacent toward towards beyond past"
)
JOINS = _words("and or while but as when then plus , ; : & + / \u2014 \u2013 -")
STOPS = _words(". ! ? |") | _words(
    "it he she they them him me you i we us itself himself herself themselves there here something someone"
    " everything everyone nothing anything anyone"
)
NEGATIONS = _words("not no never without nor neither cannot")
GLUE = _words(
    "is are was were be been am being has have had does do did would could should may might must which who whose where"
)
# Verbs and adverbs; where a noun phrase is still without its noun they are adjectives or that noun instead.
LOOSE = _words(
    "sits sit sat stands stand stood lies lie lay lays laid hangs hang hung flies fly flew floats float hovers"
    " hover rests sleeps sleep jumps jump runs run walks walk perches perch leans lean stays stay remains appears"
    " appear looms soars swims rides drives plays eats holds wears looks rises sails grows goes can will set seen"
    " shown put built kept made held found drawn hidden left right just also still only far high low well up down"
    " away apart together alone outdoors outdoor indoors somewhere almost very half quite now today always both"
    " straight diagonally"
)
# Nouns that end like a verb or an adverb.
LOOKALIKES = _words(
    "painting building ring king queen wing thing string spring sling swing earring ceiling drawing railing"
    " awning pudding duckling viking wedding dumpling herring starling stocking clothing bling carving etching"
    " frosting icing lightning morning evening opening offspring sapling gosling sibling bedding flooring writing"
    " landing crossing scaffolding lemming mooring keyring covering bearing bed shed sled seed weed reed steed"
    " moped bobsled seabed flatbed breed feed tweed butterfly dragonfly firefly housefly jelly lily belly family"
    " ally holly bully doily potbelly"
)
ADJECTIVES = _words(
    "red yellow green blue purple pink brown black white gray grey cyan magenta beige teal turquoise golden"
    " colorful colourful bright dark light pale big large huge giant small little tiny tall short long wide thin"
    " thick fat round square old new young modern vintage antique fresh clean dirty shiny fluffy furry cute happy"
    " sad angry beautiful pretty lovely friendly wooden metal metallic plastic stone marble gold silver leather"
    " striped single empty full open closed upper lower"
)
PICTURES = _words(
    "photo photograph picture image painting drawing illustration rendering render sketch close-up closeup view"
    " scene shot cartoon animation snapshot portrait depiction poster watercolor artwork art"
)
# "a pair of skis" and "the top of a hill" are about skis and a hill.
PARTS = _words(
    "pair couple bunch group herd flock piece slice set kind type row stack pile lot number dozen top bottom side"
    " middle center centre edge corner front back rest"
)
# "left of the image" places one object, it relates no two; "under construction" places none.
FRAMES = _words("image picture photo photograph frame scene shot view background foreground composition")
NOT_OBJECTS = _words("construction repair control moonlight sunlight starlight lamplight average time zero")

_COMPOUNDS = """
traffic light, fire hydrant, stop sign, parking meter, sports ball, baseball bat, baseball glove, tennis racket,
tennis racquet, wine glass, hot dog, potted plant, dining table, computer mouse, tv remote, remote control,
computer keyboard, cell phone, mobile phone, hair drier, hair dryer, teddy bear, polar bear, tennis ball, soccer ball,
street light, street sign, traffic cone, fire truck, fire extinguisher, washing machine, rolling pin, swimming pool,
flying saucer, ice cream, french fries, christmas tree, guinea pig, sea lion, sea turtle, alarm clock, coffee maker,
vacuum cleaner, sewing machine, rocking chair, rubber duck, tea set, chess set, tv set, trash can, watering can,
soda can, tin can, music stand, cake stand, night stand, shopping cart, frying pan, cutting board, ironing board,
sleeping bag, light bulb, rain coat, space ship, pencil case, steering wheel, wrist watch, flower pot, palm tree,
"""


def _plural(noun: str) -> str:
    if noun.endswith(("s", "sh", "ch", "x")):
        return noun + "es"
    return noun.removesuffix("mouse") + "mice" if noun.endswith("mouse") else noun + "s"


_SINGULAR = [" ".join(name.split()) for name in _COMPOUNDS.split(",") if name.strip()]
COMPOUNDS: frozenset[tuple[str, ...]] = frozenset(
    tuple(form.split()) for name in _SINGULAR for form in (name, _plural(name))
)
"""Nouns of several words, singular and plural, as tuples of words."""
