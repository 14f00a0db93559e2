"""The words that the grammar knows, as sets: function words, adjectives, nouns and verbs.

Each comment says what membership in a set means to the rules in ``tagging``, ``chunking`` and ``parser``.
"""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """Return the set of the words in ``text``, which are separated by spaces."""
    return frozenset(text.split())


SINGULAR_DETERMINERS = word_set("a an one another each every this single")
PLURAL_DETERMINERS = word_set(
    "two three four five six seven eight nine ten eleven twelve dozen hundred hundreds thousand thousands million some"
    " several many few both all these those other"
)
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
STOPS = word_set(". ! ? |") | word_set(
    "it he she they them him me you i we us itself himself herself themselves there there's here here's it's something"
    " someone everything everyone nothing anything anyone others what whatever"
)
NEGATIONS = word_set("not no never without nor neither cannot none")
RELATIVE_PRONOUNS = word_set("that which who whom where")
COPULAS = word_set("is are was were be been being am seems seem appears appear remains remain becomes become")
AUXILIARIES = word_set("has have had does do did would could should may might must can will")
FUNCTION_WORDS = RELATIVE_PRONOUNS | COPULAS | AUXILIARIES
# Never taken for the noun that a phrase still lacks: "a very above".
DEGREE_ADVERBS = word_set("very almost quite so too rather slightly really extremely just even only")
ADVERBS = DEGREE_ADVERBS | word_set(
    "left right also still far high low well up down away apart together alone outdoors outdoor indoors somewhere half"
    " now today always both straight diagonally asleep awake afloat aloft adrift upside instead visible halfway"
    " everywhere nearby partly midair overhead upwards upward downwards downward forward forwards backward backwards"
    " sideways once twice again ever soon back please side-by-side"
)
ADJECTIVES = word_set(
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
# Adjectives that are nouns when they follow a noun: "a river stone".
ADJECTIVES_OR_NOUNS = word_set("stone marble giant square light oval")
# Nouns that have an adjective's ending.
_NOUNS_LIKE = word_set(
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
    "painting building ring king queen wing thing string spring sling swing earring ceiling drawing railing"
    " awning pudding duckling viking wedding dumpling herring starling stocking clothing bling carving etching"
    " frosting icing lightning morning evening opening offspring sapling gosling sibling bedding flooring writing"
    " landing crossing scaffolding lemming mooring keyring covering bearing bed shed sled seed weed reed steed"
    " moped bobsled seabed flatbed breed feed tweed butterfly dragonfly firefly housefly jelly lily belly family"
    " ally holly bully doily potbelly clearing lighting parking seating fledgling seedling nestling"
    " hatchling bread thread head assembly monopoly anomaly"
)
# Singular nouns that end in "s" without "ss", "us", "is" or "as".
SINGULAR_IN_S = word_set(
    "sports arts crafts goods lens series species news mars paris trousers scissors binoculars glasses skis jeans"
    " pants headphones"
)
IRREGULAR_PLURALS = word_set(
    "people children men women mice geese sheep fish deer teeth feet oxen cattle police folk bison moose"
)
IMAGE_NOUNS = word_set(
    "photo photograph picture image painting drawing illustration rendering render sketch close-up closeup view"
    " scene shot cartoon animation snapshot portrait depiction poster watercolor watercolour artwork art still"
    " icon logo emblem sticker collage visualization"
)
# "a pair of skis" and "the top of a hill" are about skis and a hill.
PART_NOUNS = word_set(
    "pair couple bunch group herd flock piece slice set kind type row stack pile lot number dozen top bottom side"
    " middle center centre edge corner front back rest flight swarm crowd series collection variety sort handful sea"
)
# "left of the image" places one object; it does not relate two.
FRAME_NOUNS = word_set(
    "image picture photo photograph frame scene shot view background foreground composition canvas screen"
)
# Nothing can be above, below or beside one of these: "under construction".
NOT_OBJECTS = word_set(
    "construction repair repairs renovation control moonlight sunlight starlight lamplight candlelight daylight light"
    " lights lighting average time zero sky skies night air rain snow snowfall weather dusk dawn twilight darkness"
    " stars sunset sunrise shade way left right object objects thing things item items thumb course years"
    " centuries decades weekend pressure attack siege arrest review surveillance influence duress gunfire freezing par"
    " guidance supervision leadership command spell name title assumption impression auspices"
    " budget percent hour hours minute minutes week weeks month months year age height limit accord sudden else"
    " twenty thirty forty fifty sixty seventy eighty ninety"
)
# Idioms without a determiner: "under glass", "over coffee", but not "under a glass", "over the coffee".
BARE_IDIOMS = {
    "below": word_set("glass water cover fire deck ground protection heat wraps guard oath ice"),
    "above": word_set("coffee tea dinner lunch breakfast drinks wine beer ice rice toast cards backgammon chess"),
}
# Amounts, when bare or counted: "under ten dollars", "below sea level".
AMOUNT_NOUNS = word_set("dollar dollars euro euros cents bucks degrees level price")
BODY_PARTS = word_set(
    "shoulder shoulders arm arms head heads face eye eyes ear ears neck chest leg legs lap knee knees hand hands back"
    " body mouth nose forehead hip hips waist wrist ankle foot feet hair cheek chin brow lip lips heart"
)
WORN_ITEMS = word_set(
    "hat cap scarf coat jacket shirt t-shirt sweater dress skirt suit tie glasses sunglasses collar bow ribbon crown"
    " helmet necklace earring earrings boots boot shoes shoe gloves glove mask cape cloak robe apron bikini uniform"
    " vest hoodie jeans trousers pants shorts socks sock backpack bag purse beard mustache moustache freckles smile"
    " tattoo ponytail braid braids wings tail horns mane fur stripes spots umbrella cane sweatshirt raincoat blouse"
    " armor armour belt watch bracelet pigtails dreadlocks bandana headband goggles blanket saddle towel"
)
# In "a room with a sofa left of a window" the relation is about the sofa, not about one of these.
PLACE_NOUNS = word_set(
    "room kitchen bedroom bathroom office studio nook corner street road alley park garden beach forest field meadow"
    " city town village square plaza market shop store cafe restaurant bar library museum gallery hall hallway house"
    " cottage barn yard backyard courtyard patio balcony terrace table desk shelf counter countertop windowsill wall"
    " floor scene landscape interior view photo picture image painting illustration drawing workshop garage attic"
    " basement classroom stage harbor harbour lake river pond valley desert jungle playground tray workbench bookshelf"
    " mantelpiece mantel lawn nightstand dresser pier dock station platform temple church castle palace plate bowl"
    " basket box crate tent boat cabin"
)
# Their sides are inside: "on the left side of the road" is on the road, "at the bottom of the sea" in the sea.
NOUNS_WITH_SIDES_INSIDE = word_set(
    "face head body chest neck back arm road street highway path room kitchen bedroom stage field court screen page"
    " sea ocean lake river pool pond stairs staircase garden valley canyon map"
)
# Only their bottom is inside: "at the bottom of a cup".
HOLLOW_NOUNS = word_set("glass cup bowl jar bottle box bag basket well bed list")
# Distances, not objects: "a few feet above".
MEASURE_NOUNS = word_set(
    "foot feet meter meters metre metres inch inches bit little mile miles distance cm yard yards steps"
)

# Nouns of several words.
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
COMPOUND_NOUNS: frozenset[tuple[str, ...]] = frozenset(
    tuple(form.split()) for name in _SINGULAR for form in (name, _plural(name))
)


# Base forms. The forms in -s are derived below; those in -ing and -ed are known by their ending.
_ALL_BASE_VERBS = word_set(
    "sit stand lie lay hang fly float hover rest sleep jump run walk perch lean stay loom soar swim ride drive play eat"
    " hold wear look rise sail grow go nap doze lounge bask drift glow shine gleam flicker burn dance sing read wait"
    " watch chase kneel crouch climb crawl graze roam wander swing swoop circle glide roll slide spin tower stretch"
    " hide peek stare gaze smile laugh bark meow drink chew carry throw catch kick pull push chat chase curl streak"
    " dangle balance hunt cook work pose flow fall sparkle twinkle want need like love see face depict show contain"
    " feature include display belong live dwell settle land park wave nestle bloom blossom gather appear lurk sway pour"
    " place put set keep build make find draw paint create generate render imagine visualize visualise say says"
)
# Also nouns, and in prompts more often nouns than verbs.
_USUALLY_NOUNS = word_set(
    "swing slide roll ride drive play nap look lounge glow shine dance drink stretch circle wave park land balance work"
    " tower face feature display show curl streak drift place paint sail kick graze like love need watch chat hide"
    " catch throw bloom blossom roam spin hunt fall burn smile laugh bark stare float perch lean stand"
    " parks swings slides rolls plays drinks looks works towers faces features displays shows curls streaks places"
    " paints lands watches rests naps circles balances dances lounges catches throws blooms blossoms burns smiles"
    " laughs barks kicks"
)
# Of these, verbs nevertheless when they follow a noun: "the dog looks", "a row of birds perch".
_VERBS_AFTER_NOUNS = word_set(
    "play plays look looks float perch lean stand drives rides rests watches smiles laughs places drinks dances"
)
_PAST_FORMS = word_set(
    "sat stood lay laid hung flew swam rode ran slept ate held wore rose grew went shone sang knelt swung spun hid fell"
    " drank threw caught"
)
_PARTICIPLES = word_set("seen shown put built kept made held found drawn hidden worn woven sewn clad lit grown laid")


def _third(verb: str) -> str:
    if verb.endswith(("ch", "sh", "ss", "x", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeo" else verb + "s"


_VERB_FORMS = _ALL_BASE_VERBS | {_third(verb) for verb in _ALL_BASE_VERBS} | _PAST_FORMS
FINITE_VERBS = _VERB_FORMS | COPULAS | AUXILIARIES
# In a noun phrase that has no noun yet, one of these is an adjective or the noun itself.
VERBS_AND_ADVERBS = (_VERB_FORMS - _USUALLY_NOUNS) | _VERBS_AFTER_NOUNS | _PARTICIPLES | ADVERBS
# After "the" and a noun these can be a verb or a noun: "the car parks", "the city parks".
AMBIGUOUS_IN_S = {word for word in _USUALLY_NOUNS if word.endswith("s")} - _VERBS_AFTER_NOUNS
# After "a" and a noun these are the head noun: "a fruit stand".
BASE_VERBS = _ALL_BASE_VERBS - word_set("set put")
# Between two nouns such a form describes the second one: "a moss grown stone".
COMPOUNDING_PARTICIPLES = word_set("made built drawn woven sewn clad lit grown")
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
PLACING_VERBS = word_set(
    "places placing puts putting sets setting lays laying hangs hanging arranges arranging draws drawing"
)
# The relation may be about the carrier or the carried object: "a girl holding a balloon above a dog".
CARRYING_VERBS = word_set(
    "holds hold holding held carries carry carrying carried lifts lift lifting raises raising throws throwing flies fly"
    " flying pulls pulling pushes pushing waves waving swings swinging balances balancing"
)
# Before "over" the doer of these is the subject ("drives a car over a bridge"); of other verbs it is not clear who is
# over the object ("dusts flour over a loaf").
MOVING_VERBS = word_set("rides riding rode drives driving drove pilots piloting sails sailing wearing")
# With these, "over" does not clearly mean above: "leaning over a desk", "draped over a chair".
VERBS_WITH_OVER = word_set(
    "leans leaning leaned bends bending bent looks looking looked watches watching stoops stooping hunches hunched"
    " crouches crouching crouched towers towering presides presiding draped drapes draping slung spills spilling"
    " spilled spread spreads spreading folded pours pouring poured flows flowing wraps wrapped fights fighting argues"
    " arguing chats chatting talks talking laughs laughing bows bowing cries crying rules ruling reigns knocked knocks"
    " tipped tipping rolls turned turns takes taking pulled pulls crosses crossing thrown hung falls falling tucked"
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
