"""The nouns that the grammar knows, as sets: those that cannot be placed, those of several words, and other kinds.

Each comment says what membership in a set means to the rules in ``parser``, ``chunking``, ``phrase_verbs``,
``subjects``, ``coordination`` and ``pronouns``.
"""

from __future__ import annotations

from learn_to_steer.prompts.word_lists import PLURAL_DETERMINERS, WORDNET, word_set

# Singular nouns that end in "s" without "ss", "us", "is" or "as".
SINGULAR_IN_S = word_set(
    "sports arts crafts goods lens series species news mars paris trousers scissors binoculars glasses skis jeans"
    " pants headphones"
)
# Nouns that do something, so that what may be their verb is one: "the girl waves".
ANIMATE_NOUNS = word_set(
    "man woman boy girl child kid baby toddler person lady gentleman guy teenager dog puppy cat kitten horse pony"
    " donkey cow goat sheep lamb pig rabbit fox wolf bear lion tiger monkey bird owl eagle crow raven duck swan"
    " penguin fish whale shark dolphin turtle frog snake lizard mouse rat squirrel elephant giraffe zebra deer dragon"
    " robot knight king queen prince princess wizard witch chef nurse soldier clown band crowd couple family monk"
    " priest"
)
AGENT_ENDINGS = ("or", "ist", "man", "woman", "ian", "eer", "ler", "ner", "cher", "mer", "ster")
IRREGULAR_PLURALS = word_set(
    "people children men women mice geese sheep fish deer teeth feet oxen cattle police folk bison moose"
)
IMAGE_NOUNS = word_set(
    "photo photograph picture image painting drawing illustration rendering render sketch close-up closeup view"
    " scene shot cartoon animation snapshot portrait depiction poster watercolor watercolour artwork art still icon"
    " detail logo emblem sticker collage visualization"
)
# "a pair of skis" and "the top of a hill" are about skis and a hill.
PART_NOUNS = word_set(
    "sheet layer pair couple bunch group herd flock piece slice set kind type row stack pile lot number dozen top"
    " bottom side middle center centre edge corner front back rest flight swarm crowd series collection variety sort"
    " handful sea trio duo quartet quintet sextet line cluster clump string stream team gang pack pride school colony"
    " litter brood batch bundle heap mound scattering array assortment procession host legion army family band crew"
    " troop"
)
# Of these, things themselves unless several things follow: "a line of drums", "a team of dogs", but "a sea of sand".
GATHERINGS = word_set(
    "line team pack school colony army family band crew troop crowd series collection rest duo trio quartet quintet"
    " procession host array"
)
# These are told by a bare number: "a family of three".
COUNTED_BY_HEADS = word_set("family party crew")
# "left of the image" places one object; it does not relate two.
FRAME_NOUNS = word_set(
    "image picture photo photograph frame scene shot view background foreground composition canvas screen"
)
# Nothing can be above, below or beside one of these: "under construction", "a ray of light".
UNPLACEABLE = word_set(
    "construction repair repairs renovation control moonlight sunlight starlight lamplight candlelight daylight"
    " light lights lighting average time zero sky skies night air rain snow snowfall weather dusk dawn twilight"
    " darkness stars sunset sunrise shade way left right object objects thing things item items thumb course years"
    " centuries decades weekend pressure attack siege arrest review surveillance influence duress gunfire freezing"
    " par guidance supervision leadership command spell name title assumption impression auspices budget percent hour"
    " hours minute minutes week weeks month months year age height limit accord sudden else twenty thirty forty fifty"
    " sixty seventy eighty ninety shadow shadows ray rays glow radiance glimmer gleam shimmer reflection reflections"
    " wind winds breeze gust heat warmth cold energy power magic force tension weight burden pull gravity dominion"
    " authority victory reign heavens heaven atmosphere ambience ambiance aura mood view views vista sense hint trace"
    " wash hue hues tone tones color colors colour colours vastness expanse depth depths distance horizon laughter"
    " chatter murmur hum buzz scenery afternoon midday noon midnight luminescence brilliance embrace watch ownership"
    " presence spirit soul essence beauty grace charm majesty mystery wonder everything nothing overlay flare bokeh"
    " fee fees tax taxes price prices cost costs wages debt debts"
    " backlight sunshine sunbeam sunbeams moonbeam moonbeams gloom thunder fold beginning end ends"
)
NOT_OBJECTS = (UNPLACEABLE | WORDNET["abstract nouns"] | PLURAL_DETERMINERS) - word_set(
    # These can be seen, or name a thing as often as an idea.
    "lift flame spark droplet signpost guidepost footprint fingerprint pamphlet newsletter telegram receipt catalog"
    " catalogue cent franc pound penny award mister senor senora tsunami blot worksheet exhibit cartoon list"
    " broadcast spray part stop level note card dollar timetable advertisement wave case study entry form support"
    " charge contact walk medal drawing painting carving crossing writing building landing headline slogan banner"
    " graffiti symbol mark stripe spot dot sum tattoo puzzle trail path race feast meal breakfast dinner lunch supper"
    " campfire bonfire blaze explosion eruption fireworks firework splash ripple pour drop fall bend rise stream"
    " shooting fishing hunt parade party wedding concert dance play show display exhibition museum orange pink rose"
    " violet turquoise gold silver ruby emerald sapphire amber jade coral lavender lilac olive peach plum game chess"
    " football baseball basketball golf tennis hockey soccer cricket rugby lighthouse purchase album story book page"
    " chapter song music score recipe menu map plan chart graph diagram equation formula letter word text number"
    " digit figure sign label caption logo icon emblem flag badge message post advert program film movie video screen"
    " cross triangle square circle swing slide roll kick cradle crib nest twist curl knot bow arch loop crack burn"
    " wound scar bruise sting bump lump smile kiss birth death skeleton robbery crash wreck accident traffic jam"
    " sport exercise press ride fair festival market auction sale combat battle fight war duel raid match"
)
# "light" is a thing when a noun says which: "a signal light". After one of these it still is none.
LIGHTS = word_set("light lights lighting")
SOURCES_OF_LIGHT = word_set(
    "sun moon star stars morning evening afternoon day sunset sunrise dawn dusk hour studio candle fire winter"
    " summer autumn spring rim ambient natural edge key fill volumetric background sky golden twilight firelight lamp"
    " window neon"
)
# Idioms without a determiner: "under glass", "over coffee", but not "under a glass", "over the coffee".
BARE_IDIOMS = {
    "below": word_set("glass water cover fire deck ground protection heat wraps guard oath ice"),
    "above": word_set("coffee tea dinner lunch breakfast drinks wine beer ice rice toast cards backgammon chess"),
}
# Amounts, when bare or counted: "under ten dollars", "below sea level".
AMOUNT_NOUNS = word_set("dollar dollars euro euros cents bucks degrees level price")
BODY_PARTS = word_set(
    "shoulder shoulders arm arms head heads face eye eyes ear ears neck chest leg legs lap knee knees hand hands"
    " back body mouth nose forehead hip hips waist wrist ankle foot feet hair cheek chin brow lip lips heart lid lids"
    " eyelid eyelids"
)
WORN_ITEMS = word_set(
    "hat cap scarf coat jacket shirt t-shirt sweater dress skirt suit tie glasses sunglasses collar bow ribbon crown"
    " helmet necklace earring earrings boots boot shoes shoe gloves glove mask cape cloak robe apron bikini uniform"
    " vest hoodie jeans trousers pants shorts socks sock backpack bag purse beard mustache moustache freckles smile"
    " tattoo ponytail braid braids wings tail horns mane fur stripes spots umbrella cane sweatshirt raincoat blouse"
    " armor armour belt watch bracelet pigtails dreadlocks bandana headband goggles blanket saddle towel"
)
# Of the frame nouns those that are things on a wall as well: "a shelf above the picture".
HUNG_NOUNS = word_set("picture photo photograph canvas screen")
# In "a scooter with a black seat left of a car" the relation is about the whole.
COMPONENTS = word_set(
    "seat handle handles lid wheel wheels roof stem leaf leaves strap lens pattern logo label print spout frame rim"
    " edge trim base button buttons feathers feather beak horn petals sail sails engine headlights sleeves pocket"
    " zipper chimney"
)
# In "a room with a sofa left of a window" the relation is about the sofa, not about one of these.
PLACE_NOUNS = word_set(
    "room kitchen bedroom bathroom office studio nook corner street road alley park garden beach forest field meadow"
    " city town village square plaza market shop store cafe restaurant bar library museum gallery hall hallway house"
    " cottage barn yard backyard courtyard patio balcony terrace table desk shelf counter countertop windowsill wall"
    " floor scene landscape interior view photo picture image painting illustration drawing workshop garage attic"
    " basement classroom stage harbor harbour lake river pond valley desert jungle playground tray workbench"
    " bookshelf mantelpiece mantel lawn nightstand dresser pier dock station platform temple church castle palace"
    " plate bowl basket box crate tent boat cabin"
)
# Their sides and their bottom are in them or on them: "on the left side of the road", "at the bottom of the sea".
_WATERS = word_set(
    "sea ocean lake river pool pond stream creek bay lagoon waterfall harbour harbor fountain aquarium reef"
)
_LANDFORMS = word_set(
    "hill hillside mountain cliff slope valley canyon ravine gorge cave crater field meadow garden park beach desert"
    " forest island shore coast riverbank dune glacier"
)
_PLACES = word_set(
    "face head body chest neck back arm page screen map composition foreground background road street highway"
    " freeway motorway lane alley path trail track sidewalk pavement crosswalk driveway parking runway railway room"
    " kitchen bedroom bathroom hallway hall corridor aisle lobby stage court pitch rink arena stadium classroom yard"
    " lawn porch platform square plaza town city village stairs staircase steps stairway stairwell escalator ladder"
    " pit hole shaft tunnel ditch"
)
PLACES_WITH_SIDES = _WATERS | _LANDFORMS | _PLACES
# Of these only what is called a side: "on the right side of the poster", but "on the right of a painting".
SURFACES_WITH_SIDES = word_set(
    "image picture photo photograph frame scene poster painting canvas paper sheet label card cover newspaper"
    " magazine list chart graph tapestry mural menu ticket board billboard chalkboard whiteboard blackboard ceiling"
    " floor ground composition layout view shot background foreground horizon"
)
# Beside these is a place, but their top and bottom are theirs: "at the bottom of the door".
PLACES_WITH_ENDS = word_set(
    "door window mirror wall building house church tower bridge sign book well office shop store theater theatre mast"
)
# "on the left side of the table" is on it, "at the left side of the table" beside it.
FURNITURE_WITH_SIDES = word_set(
    "table desk counter countertop shelf bookshelf mantel mantelpiece windowsill nightstand dresser tray plate dish"
    " board rug carpet mat blanket bed couch sofa bench workbench sideboard cabinet drawer cupboard cloth tablecloth"
    " roof lap"
)
# Only their bottom is inside: "at the bottom of a cup".
HOLLOW_NOUNS = word_set(
    "glass cup bowl jar bottle box bag basket well bed list drawer chest trunk suitcase crate barrel bucket pot pan"
    " mug vase tank pocket purse cupboard fridge refrigerator freezer oven sink bathtub tub basin bin can wardrobe"
    " closet locker pile stack heap page ship boat net sack tin pitcher jug hourglass machine"
)
# Under them is in them: "under the sea".
WATERS = word_set("sea seas ocean oceans water waters deep waves lake pond river pool")
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
floor lamp, table lamp, semi truck, tow truck, dump truck, garbage truck, do not enter sign,
shopping bag, paper bag, garbage can, recycling bin, compost bin, trash bin, french fry, high chair, hot tub,
light fixture, night light, christmas tree, christmas light, fairy light, string light, stained glass window,
coat rack, book shelf, book case, mail box, street lantern, paper lantern, life jacket, life buoy, big ben,
soap dispenser, paper towel, toilet paper, electric guitar, acoustic guitar, safety cone, ceiling light,
ceiling fan, merry go round, jack o lantern, tree house, dog house, bird house, bird cage, bird bath,
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
COMPOUND_BEGINNINGS = {name[0] for name in COMPOUND_NOUNS}
