"""src/learn_to_steer/sources/wordnet.json: nouns and their hypernyms, cut out of WordNet 3.0's database files.

    python reproduce/build_wordnet.py FOLDER     # seconds; FOLDER holds data.noun, index.noun and noun.exc

Debian's package wordnet-base has these files. Kept are COCO's 80 names, common object names of scene graphs (the list
below), and every noun that WordNet's own corpus uses for a visible thing; of each noun its first two such senses, with
all their hypernyms. WordNet's licence (see NOTICE) permits this copy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from learn_to_steer.vocabulary import CLASSES

OUT = Path(__file__).resolve().parents[1] / "src" / "learn_to_steer" / "sources" / "wordnet.json"
# Lexicographer files of visible things: tops, animal, artifact, body, food, object, person, plant.
TANGIBLE = {3, 5, 6, 8, 13, 17, 18, 20}
LISTED_ONLY = {10, 14, 15, 19, 25, 27}  # communication, group, location, phenomenon, shape, substance: "sign", "snow"
PERSON = 18  # counts only as a word's most frequent sense: "dog" is also an unattractive girl, "toaster" one who toasts
SENSES = 2

COMMON = """
air conditioner, airplane, alarm clock, album, animal, antelope, antenna, apartment, apple, apron, aquarium, arch, arm,
armchair, arrow, avocado, awning, axe, baby, back, backpack, bacon, bag, bagel, baggage, balcony, ball, balloon, banana,
bandana, banner, bar, barn, barrel, barrier, base, baseball, baseball bat, baseball glove, basin, basket, basketball,
bat, bath, bathroom, bathtub, batter, bean, bear, beard, bed, bedroom, bedspread, bee, beer, bell, belt, bench,
beverage, bib, bicycle, bike, bikini, billboard, bin, binder, bird, birdcage, biscuit, blanket, blender, blind, blinds,
blouse, blueberry, board, boat, body, bone, book, bookcase, bookshelf, boot, bottle, bottle cap, bouquet, bow, bowl,
box, boy, bracelet, branch, bread, brick, bridge, briefcase, broccoli, broom, brownie, brush, bucket, buffalo, building,
bull, bumper, bun, bunny, buoy, burger, burner, burrito, bus, bush, butter, butterfly, button, cabbage, cabinet, cable,
cactus, cage, cake, calculator, calendar, calf, camel, camera, can, canal, candle, candy, cane, canopy, canyon, cap,
car, card, cardboard, cardigan, carpet, carriage, carrot, cart, castle, cat, catcher, cauliflower, cave, cd, ceiling,
ceiling fan, celery, cell phone, cereal, chain, chair, chalkboard, chandelier, cheese, cheesecake, cherry, chess,
chest, chicken, child, chimney, chips, chocolate, chopstick, christmas tree, church, cigarette, city, claw, cliff, clip,
clock, closet, cloth, clothes, clothing, cloud, coach, coast, coat, coconut, coffee, coffee maker, coffee table, coin,
coleslaw, collar, column, comb, comforter, computer, computer mouse, computer keyboard, computer monitor, cone,
container, controller, cookie, cooler, cord, corgi, corn, cottage, couch, counter, countertop, cow, cowboy, cowboy hat,
crab, cracker, crane, crate, cream, crib, croissant, crosswalk, crown, crust, cucumber, cup, cupboard, cupcake, curb,
curtain, cushion, cutting board, cyclist, cymbal, daisy, dam, deck, deer, desk, dessert, dial, diaper, dining table,
dish, dishwasher, dispenser, dock, dog, doll, dolphin, donkey, donut, door, doorway, dough, doughnut, dragon, drain,
drape, drawer, dress, dresser, drink, driver, driveway, drum, duck, duckling, dumpster, dvd, eagle, ear, earring, egg,
eggplant, elephant, elevator, elk, engine, entertainment center, envelope, escalator, eye, eyebrow, eye glasses,
eyeglasses, face, fan, farmer, faucet, feather, fence, ferris wheel, field, figure, figurine, finger, fire,
fire escape, fire extinguisher, fire hydrant, fire truck, fireplace, fish, flag, flame, flamingo, flip flop, floor,
flower, flower pot, food, foot, football, forest, fork, fountain, fox, frame, freezer, french fries, fridge, frisbee,
frog, frosting, fruit, fur, furniture, garage, garden, garland, garlic, gate, gazelle, giraffe, girl, glass, glasses,
glove, goal, goat, goggles, goose, gown, graffiti, grape, grapefruit, grass, gravel, gravy, grill, grinder, ground,
guitar, gull, gym shoe, hair, hair drier, hair dryer, hallway, ham, hamburger, hammer, hammock, hand, handbag, handle,
harbor, hat, hay, head, headband, headboard, headlight, headphones, hedge, helicopter, helmet, hen, herb, highway, hill,
hippo, home, hood, hook, horn, horse, hose, hospital, hot air balloon, hot dog, hotel, house, hummingbird, ice, ice
cream, icing, island, jacket, jar, jeans, jeep, jersey, jet, jewelry, jockey, juice, kangaroo, ketchup, kettle, key,
keyboard, kid, kimono, kitchen, kite, kitten, kiwi, knee, knife, knob, koala, label, lace, ladder, lady, ladybug,
ladle, lake, lamb, lamp, lamp post, lamp shade, laptop, laptop computer, lawn, leaf, leather, leaves, leg, lemon,
lettuce, lid, life jacket, light, light bulb, light fixture, light switch, lighthouse, lime, lion, lip, lipstick,
living room, lizard, lock, locomotive, log, luggage, lunch, lunch box, magazine, magnet, mailbox, man, mane, mango,
mannequin, map, marker, market, mask, mast, mat, mattress, meal, meat, medal, melon, menu, metal, microphone,
microwave, microwave oven, milk, mirror, mitt, mixer, money, monitor, monkey, monument, moon, moose, mop, motorbike,
motorcycle, mountain, mouse, mouse pad, mousepad, mouth, mud, muffin, mug, mushroom, musician, mustache, mustard,
napkin, neck, necklace, necktie, net, newspaper, night stand, nightstand, noodles, nose, notebook, notepad, nut, oar,
ocean, office, office chair, officer, olive, omelet, onion, orange, orange juice, orchid, ostrich, ottoman, outfit,
outlet, oven, owl, package, paddle, paint, painting, pajamas, palm tree, pan, pancake, panda, panda bear, pants,
paper, paper towel, papaya, parachute, parade, parakeet, park, parking lot, parking meter, parrot, parsley, passenger,
pasta, pastry, path, patio, paw, pea, peach, peacock, peanut, pear, pearl, pedestrian, pelican, pen, pencil, penguin,
pepper, pepperoni, perch, person, phone, photo, photographer, piano, pickle, pickup, picnic table, picture,
picture frame, pie, pier, pig, pigeon, pillar, pillow, pillowcase, pilot, pine tree, pineapple, pipe, pitcher, pizza,
place mat, placemat, plain, plant, planter, plate, platform, platter, player, playground, plow, plug, plum, pocket,
pole, police officer, policeman, polar bear, pond, pony, pool, popcorn, porch, post, poster, pot, potato, potted plant,
pottery, power line, printer, propeller, pumpkin, puppy, purse, puzzle, quilt, rabbit, raccoon, racket, radiator,
radio, rail, railing, railroad, ram, ramp, raspberry, razor, refrigerator, remote, remote control, restaurant,
rhino, ribbon, rice, rider, rifle, ring, river, road, robe, robot, rock, roll, roof, room, rooster, rope, rose, rug,
runway, saddle, sail, sailboat, salad, salmon, salt, salt shaker, sand, sandal, sandwich, sauce, saucer, sausage, scale,
scarf, school, school bus, scissors, scooter, screen, screw, screwdriver, sculpture, sea, sea lion, seagull, seal, seat,
seed, sheep, sheet, shelf, shell, shield, ship, shirt, shoe, shop, shopping bag, shopping cart, shore, shorts, shovel,
shower, shower curtain, shower door, shrimp, shrub, sidewalk, sign, sink, skate, skateboard, skateboarder, skater, ski,
skier, skirt, skis, sky, skyscraper, sled, sleeve, slipper, snail, snake, sneaker, snow, snowboard, snowboarder,
snowman, soap, soap dispenser, soccer ball, sock, soda, sofa, soldier, soup, spatula, speaker, spectator, spice, spider,
spinach, spoon, sports ball, squash, squirrel, stage, stadium, stairs, stairway, stand, stapler, star, starfish, statue,
steak, steam, steering wheel, stem, step, stick, sticker, stone, stool, stop sign, store, stove, strap, straw,
strawberry, street, street light, street sign, stroller, stuffed animal, stuffed bear, stuffed dog, suit, suitcase,
sun, sunflower, sunglasses, surfboard, surfer, sushi, suv, sweater, sweatshirt, swim trunks, swimmer, swimming pool,
swimsuit, swing, switch, sword, syrup, table, table lamp, tablecloth, tablet, taco, tag, tail, tank, tank top, tape,
taxi, tea, tea kettle, tea pot, teapot, teddy bear, telephone, telephone pole, television, temple, tennis ball,
tennis racket, tennis court, tent, terminal, thermometer, tie, tiger, tile, tire, tissue, toast, toaster, toaster oven,
toilet, toilet brush, toilet lid, toilet paper, toilet seat, tomato, tongs, tongue, toothbrush, toothpaste, tongue,
tortilla, towel, tower, town, toy, track, tractor, traffic cone, traffic light, traffic sign, trailer, train, trash,
trash bag, trash bin, trash can, tray, tree, tricycle, tripod, trophy, trousers, truck, trumpet, trunk, tub, tulip,
tunnel, turkey, turtle, tusk, tv, tv remote, tv stand, tweezers, umbrella, umpire, undershirt, uniform, urinal, utensil,
vacuum cleaner, van, vanity, vase, vegetable, vehicle, vending machine, vest, vine, violin, visitor, wagon, waist,
waiter, wall, wallet, walnut, walrus, wardrobe, washing machine, watch, water, water bottle, waterfall, watermelon,
wave, weather vane, wedding cake, wetsuit, whale, wheel, wheelchair, whisk, wii controller, window, windowsill,
windshield, wine, wine bottle, wine glass, wing, wire, wok, wolf, woman, wood, wrist, wristband, yacht, yard, yogurt,
zebra, zipper, zucchini, furby
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds WordNet's data.noun, index.noun and noun.exc")
    folder = parser.parse_args().folder
    kinds, above = read_synsets(folder / "data.noun")
    listed = {" ".join(name.split()) for name in COMMON.split(",")} | set(CLASSES)
    names: dict[str, list[str]] = {}
    for line in rows(folder / "index.noun"):
        word, count = line[0].replace("_", " "), int(line[2])
        tagged, senses = int(line[-count - 1]), line[-count:]
        files = TANGIBLE | (LISTED_ONLY if word in listed else set())
        seen = [sense for sense in senses if kinds[sense] in files]
        if not seen or not (word in listed or any(s in seen[:SENSES] for s in senses[:tagged])):
            continue
        things = [sense for sense in seen if kinds[sense] in TANGIBLE - {PERSON}]
        lead = [seen[0]] if tagged or not things else []
        names[word] = list(dict.fromkeys(lead + things))[:SENSES]
    kept = sorted(closure({sense for senses in names.values() for sense in senses}, above))
    number = {synset: place for place, synset in enumerate(kept)}
    irregular = {
        plural.replace("_", " "): singular.replace("_", " ")
        for plural, singular, *_ in rows(folder / "noun.exc")
        if singular.replace("_", " ") in names
    }
    table = {
        "about": "Nouns cut from WordNet 3.0, Copyright 2006 by Princeton University; licence in NOTICE",
        "names": {word: [number[s] for s in names[word]] for word in sorted(names)},
        "above": [[number[s] for s in above[synset]] for synset in kept],
        "irregular": dict(sorted(irregular.items())),
    }
    text = ",\n".join(f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in table.items())
    OUT.write_text("{" + text + "}\n")
    missing = sorted(listed - names.keys())
    print(f"{len(names)} names, {len(kept)} synsets, {OUT.stat().st_size} bytes; listed but not in WordNet: {missing}")


def rows(path: Path) -> list[list[str]]:
    """Read the lines of a database file, split at blanks, without the licence (which is indented)."""
    return [line.split() for line in path.read_text(encoding="latin-1").splitlines() if line and line[0] != " "]


def read_synsets(path: Path) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Return the lexicographer file of every synset, and its direct hypernyms (of instances too)."""
    kinds, above = {}, {}
    for line in rows(path):
        kinds[line[0]] = int(line[1])
        start = 4 + 2 * int(line[3], 16)  # after the words and their ids
        pointers = line[start + 1 : start + 1 + 4 * int(line[start])]
        above[line[0]] = [pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")]
    return kinds, above


def closure(synsets: set[str], above: dict[str, list[str]]) -> set[str]:
    """Return ``synsets`` and all their hypernyms."""
    reached, todo = set(synsets), list(synsets)
    while todo:
        new = [synset for synset in above[todo.pop()] if synset not in reached]
        reached.update(new)
        todo += new
    return reached


if __name__ == "__main__":
    main()
