"""What the grammar knows of things: nouns of several words, and nouns that a relation cannot place."""

from __future__ import annotations

from learn_to_steer.prompts.lexicon import words

# Nouns that end like a verb or an adverb.
LOOKALIKES = words(
    "painting building ring king queen wing thing string spring sling swing earring ceiling drawing railing"
    " awning pudding duckling viking wedding dumpling herring starling stocking clothing bling carving etching"
    " frosting icing lightning morning evening opening offspring sapling gosling sibling bedding flooring writing"
    " landing crossing scaffolding lemming mooring keyring covering bearing bed shed sled seed weed reed steed"
    " moped bobsled seabed flatbed breed feed tweed butterfly dragonfly firefly housefly jelly lily belly family"
    " ally holly bully doily potbelly clearing lighting parking seating fledgling seedling nestling"
    " hatchling bread thread head assembly monopoly anomaly"
)
# Singular nouns that end in "s" without "ss", "us", "is" or "as".
SINGULAR_S = words(
    "sports arts crafts goods lens series species news mars paris trousers scissors binoculars glasses skis jeans"
    " pants headphones"
)
PEOPLE = words("people children men women mice geese sheep fish deer teeth feet oxen cattle police folk bison moose")
PICTURES = words(
    "photo photograph picture image painting drawing illustration rendering render sketch close-up closeup view"
    " scene shot cartoon animation snapshot portrait depiction poster watercolor watercolour artwork art still"
    " icon logo emblem sticker collage visualization"
)
# "a pair of skis" and "the top of a hill" are about skis and a hill.
PARTS = words(
    "pair couple bunch group herd flock piece slice set kind type row stack pile lot number dozen top bottom side"
    " middle center centre edge corner front back rest flight swarm crowd series collection variety sort handful sea"
)
# "left of the image" places one object, it relates no two.
FRAMES = words("image picture photo photograph frame scene shot view background foreground composition canvas screen")
# What has no place of its own to stand above, below or beside; "under construction" places nothing.
NOT_OBJECTS = words(
    "construction repair repairs renovation control moonlight sunlight starlight lamplight candlelight daylight light"
    " lights lighting average time zero sky skies night air rain snow snowfall weather dusk dawn twilight darkness"
    " stars sunset sunrise shade way left right object objects thing things item items thumb course years"
    " centuries decades weekend pressure attack siege arrest review surveillance influence duress gunfire freezing par"
    " guidance supervision leadership command spell name title assumption impression auspices"
    " budget percent hour hours minute minutes week weeks month months year age height limit accord sudden else"
    " twenty thirty forty fifty sixty seventy eighty ninety"
)
# Idioms where they stand bare: "under glass", "over coffee", but "under a glass", "over the coffee".
BARE = {
    "below": words("glass water cover fire deck ground protection heat wraps guard oath ice"),
    "above": words("coffee tea dinner lunch breakfast drinks wine beer ice rice toast cards backgammon chess"),
}
# How much, where they stand bare or counted above or below: "under ten dollars", "below sea level".
AMOUNTS = words("dollar dollars euro euros cents bucks degrees level price")
BODY = words(
    "shoulder shoulders arm arms head heads face eye eyes ear ears neck chest leg legs lap knee knees hand hands back"
    " body mouth nose forehead hip hips waist wrist ankle foot feet hair cheek chin brow lip lips heart"
)
WORN = words(
    "hat cap scarf coat jacket shirt t-shirt sweater dress skirt suit tie glasses sunglasses collar bow ribbon crown"
    " helmet necklace earring earrings boots boot shoes shoe gloves glove mask cape cloak robe apron bikini uniform"
    " vest hoodie jeans trousers pants shorts socks sock backpack bag purse beard mustache moustache freckles smile"
    " tattoo ponytail braid braids wings tail horns mane fur stripes spots umbrella cane sweatshirt raincoat blouse"
    " armor armour belt watch bracelet pigtails dreadlocks bandana headband goggles blanket saddle towel"
)
# "a room with a sofa left of a window": the sofa.
PLACES = words(
    "room kitchen bedroom bathroom office studio nook corner street road alley park garden beach forest field meadow"
    " city town village square plaza market shop store cafe restaurant bar library museum gallery hall hallway house"
    " cottage barn yard backyard courtyard patio balcony terrace table desk shelf counter countertop windowsill wall"
    " floor scene landscape interior view photo picture image painting illustration drawing workshop garage attic"
    " basement classroom stage harbor harbour lake river pond valley desert jungle playground tray workbench bookshelf"
    " mantelpiece mantel lawn nightstand dresser pier dock station platform temple church castle palace plate bowl"
    " basket box crate tent boat cabin"
)
# "on the left side of the road", "at the bottom of the sea": in it, not beside or below it.
INSIDE = words(
    "face head body chest neck back arm road street highway path room kitchen bedroom stage field court screen page"
    " sea ocean lake river pool pond stairs staircase garden valley canyon map"
)
# "at the bottom of a cup" alone is in it.
HOLLOW = words("glass cup bowl jar bottle box bag basket well bed list")
# "a few feet above": how far, and nothing that stands there.
MEASURES = words("foot feet meter meters metre metres inch inches bit little mile miles distance cm yard yards steps")

_COMPOUNDS = """
traffic light, fire hydrant, stop sign, parking meter, sports ball, baseball bat, baseball glove, tennis racket,
tennis racquet, wine glass, hot dog, potted plant, dining table, computer mouse, tv remote, remote control,
computer keyboard, laptop computer, tablet computer, desktop computer, cell phone, mobile phone, hair drier,
hair dryer, teddy bear, polar bear, tennis ball, soccer ball,
street light, street sign, traffic cone, fire truck, fire extinguisher, washing machine, rolling pin, swimming pool,
flying saucer, ice cream, french fries, christmas tree, guinea pig, sea lion, sea turtle, alarm clock, coffee maker,
vacuum cleaner, sewing machine, rocking chair, rubber duck, tea set, chess set, tv set, trash can, watering can,
soda can, tin can, music stand, cake stand, night stand, shopping cart, frying pan, cutting board, ironing board,
sleeping bag, light bulb, rain coat, space ship, pencil case, steering wheel, wrist watch, flower pot, palm tree,
floor lamp, table lamp, desk lamp, street lamp, lamp post, food truck, phone booth, hot air balloon, crystal ball,
grandfather clock, coffee table, picnic basket, spirit level,
top hat, rubber boot, bow tie, picture frame, phone box, rocking horse, record player,
spinning wheel, ferris wheel,
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
