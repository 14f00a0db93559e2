"""Every source of real pictures: the true file formats, what is learned from them, and every trap on the way."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from learn_to_steer import registry
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import BASIC, NEUTRAL, OPPOSITE, basic_relations, holds
from learn_to_steer.sources import SourceRequest

from .conftest import PLACES, SIZE

BOXED = ("coco", "folder", "gqa")
READING = (*BOXED, "image-generation-cot")
CATEGORIES = ("dog", "cat", "mouse", "hot dog", "animal", "person", "florbx", "dogs")


class Album:
    """Writes the same pictures and objects as a file of any of the sources."""

    def __init__(self, folder: Path, paint: Callable[..., Path]) -> None:
        self.folder, self.paint = folder, paint
        self.entries: list[tuple[str, list, list]] = []

    def add(self, name: str, objects: list, said: tuple = (), paint: bool = True) -> None:
        """``objects``: (name, box); ``said``: (number, word, number)."""
        self.entries.append((name, list(objects), list(said)))
        if paint:
            self.paint(self.folder / "images" / f"{name}.jpg")

    def write(self, source: str) -> str:
        path = self.folder / f"{source}.json"
        path.write_text(getattr(self, f"_{source}")())
        return str(path)

    def _folder(self) -> str:
        rows = [
            {
                "image": f"images/{name}.jpg",
                "objects": [{"name": word, "box": box} for word, box in objects],
                "relations": [[objects[i][0], word, objects[j][0]] for i, word, j in said],
            }
            for name, objects, said in self.entries
        ]
        return "".join(json.dumps(row) + "\n" for row in rows)

    def _gqa(self) -> str:
        graphs = {}
        for name, objects, said in self.entries:
            graph = {"width": SIZE[0], "height": SIZE[1], "location": "park", "objects": {}}
            for number, (word, (x0, y0, x1, y1)) in enumerate(objects):
                relations = [{"name": w, "object": f"9{j}"} for i, w, j in said if i == number]
                box = {"x": x0, "y": y0, "w": x1 - x0, "h": y1 - y0}
                graph["objects"][f"9{number}"] = {"name": word, "attributes": [], "relations": relations, **box}
            graphs[name] = graph
        return json.dumps(graphs)

    def _coco(self) -> str:
        value = {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": []}
        value["categories"] = [{"id": 10 + i, "name": name} for i, name in enumerate(CATEGORIES)]
        for number, (name, objects, _) in enumerate(self.entries):
            value["images"].append({"id": number, "file_name": f"{name}.jpg", "width": SIZE[0], "height": SIZE[1]})
            for word, (x0, y0, x1, y1) in objects:
                value["annotations"].append(
                    {
                        "id": len(value["annotations"]),
                        "image_id": number,
                        "category_id": 10 + CATEGORIES.index(word),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "iscrowd": 0,
                        "segmentation": [[0, 0, 1, 1]],
                    }
                )
        return json.dumps(value)


@pytest.fixture
def album(tmp_path, paint):
    return Album(tmp_path, paint)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """COCO's rules are for pictures of 640 x 480: here they are asked of boxes four times smaller."""
    from dataclasses import replace

    from learn_to_steer.sources import coco

    monkeypatch.setattr(coco, "RULES", replace(coco.RULES, least_pixels=64, total_share=0.05, distance=9, balance=0.2))


def read(source: str, data: str, limit: int = 50, seed: int = 0, **options):
    """The pictures of a file, and per reason how often something was left out."""
    labelled = registry.load("sources", source).images(SourceRequest(limit, seed, 64, data=data, **options))
    found = list(labelled)
    return found, {reason: n for reason, n in labelled.skipped.counts.items() if not reason.startswith("class:")}


def pair(predicate: str, first: str = "dog", second: str = "cat") -> list:
    a, b = PLACES[predicate]
    return [(first, a), (second, b)]


@pytest.mark.parametrize("source", BOXED)
def test_labels_follow_the_boxes(source, album):
    for number in range(20):
        album.add(f"p{number}", pair(list(PLACES)[number % 5]))
    found, skipped = read(source, album.write(source))
    assert skipped == {}
    assert len(found) == 20
    for picture in found:
        expected = basic_relations(*picture.boxes) or {NEUTRAL}
        assert {picture.predicate} == expected
        assert {picture.subject, picture.object} == {"dog", "cat"}
        assert all(0 <= value <= 64 for box in picture.boxes for value in box)
    pixels = found[0].pixels()
    assert pixels.shape == (3, 64, 64)
    assert len({picture.id for picture in found}) == 20


@pytest.mark.parametrize("source", BOXED)
def test_every_trap_is_counted_by_its_reason(source, album):
    dog, cat = pair("left of")
    album.add("good", [dog, cat])
    album.add("several", [dog, cat, ("dog", PLACES["above"][0])])
    album.add("plural", [dog, cat, ("dogs", PLACES["above"][0])])
    album.add("hypernym", [dog, ("animal", cat[1])])
    album.add("outside", [dog, ("cat", (80, 25, 160, 55))])
    album.add("empty", [dog, ("cat", (80, 25, 80, 55))])
    album.add("tiny", [dog, ("cat", (80, 25, 83, 28))])
    album.add("missing", [dog, cat], paint=False)
    album.add("good", [dog, cat])
    (album.folder / "images" / "torn.jpg").write_bytes((album.folder / "images" / "good.jpg").read_bytes()[:900])
    album.add("torn", [dog, cat], paint=False)
    data = album.write(source)
    found, skipped = read(source, data)
    assert [Path(picture.id).stem.removeprefix(f"{source}-") for picture in found] == ["good"]
    assert skipped == {
        "object: several of its name in the picture": 2 + 2,
        "object: may be another one (synonym or hypernym)": 2,
        "object: box outside the picture": 1,
        "object: broken box": 1,
        "object: too small": 1,
        "picture: file is missing": 1,
        "picture: cannot be decoded": 1,
        # A JSON object has each of its members once.
        **({} if source == "gqa" else {"picture: listed twice": 1}),
    }


@pytest.mark.parametrize("source", ["gqa", "folder"])
@pytest.mark.parametrize("predicate", BASIC)
def test_words_that_contradict_the_boxes_drop_the_pair(source, album, predicate):
    spoken = {"left of": "to the left of", "above": "on top of", "below": "under"}.get(predicate, predicate)
    album.add("agrees", pair(predicate), said=[(0, spoken, 1)])
    album.add("agrees-backwards", pair(predicate), said=[(1, OPPOSITE[predicate], 0)])
    album.add("contradicts", pair(predicate), said=[(0, OPPOSITE[predicate], 1)])
    album.add("one-of-two", pair(predicate), said=[(0, spoken, 1), (1, spoken, 0)])
    album.add("no-place", pair("is"), said=[(0, spoken, 1)])
    found, skipped = read(source, album.write(source))
    assert {"agrees" in picture.id for picture in found} == {True} and len(found) == 2
    assert skipped == {"pair: annotated word disagrees with the boxes": 3}


def test_words_that_say_nothing_of_place_are_no_contradiction(album):
    album.add("a", pair("left of"), said=[(0, "looking at", 1), (1, "wearing", 0)])
    found, skipped = read("gqa", album.write("gqa"))
    assert len(found) == 1 and skipped == {}


@pytest.mark.parametrize("source", ["gqa", "coco"])
def test_unknown_words_are_left_out(source, album):
    album.add("a", pair("left of", second="florbx"))
    assert read(source, album.write(source)) == ([], {"object: name not in the WordNet table": 1})


def test_unknown_words_in_own_pictures_are_used_and_counted(album):
    album.add("a", pair("left of", second="florbx"))
    found, skipped = read("folder", album.write("folder"))
    assert len(found) == 1
    assert skipped == {"object: kept, though its name is not in the WordNet table": 1}


@pytest.mark.parametrize("source", BOXED)
def test_synonyms_of_excluded_pairs_are_left_out(source, album):
    for number in range(3):
        album.add(f"p{number}", pair("left of", second="mouse"))
        album.add(f"q{number}", pair("left of"))
    data = album.write(source)
    exclude = frozenset({frozenset({"dog", "computer mouse"}), frozenset({"cat", "zebra"})})
    found, skipped = read(source, data, exclude=exclude)
    assert {frozenset((p.subject, p.object)) for p in found} == {frozenset({"dog", "cat"})}
    assert skipped == {"pair: used by a benchmark": 3}


@pytest.mark.parametrize("source", BOXED)
def test_diagonals_come_from_the_boxes(source, album):
    even = [("dog", (25, 5, 55, 35)), ("cat", (65, 45, 95, 75))]
    steep = [("dog", (60, 5, 90, 30)), ("cat", (25, 50, 55, 75))]
    album.add("a", even)
    album.add("b", steep)
    album.add("c", pair("above"))
    data = album.write(source)
    found, skipped = read(source, data, diagonals=True)
    labels = {picture.id.removesuffix(".jpg")[-1]: picture for picture in found}
    expected = {"a": "above left of", "b": "above right of", "c": "above"}
    for name, predicate in expected.items():
        picture = labels[name]
        assert picture.predicate == (predicate if picture.subject == "dog" else OPPOSITE[predicate])
        assert holds(picture.boxes[0], picture.predicate, picture.boxes[1])
    found, skipped = read(source, data)
    # Without names of their own they are neither side's.
    assert sorted(p.predicate for p in found if p.predicate == NEUTRAL) == [NEUTRAL] * 2 and len(found) == 3
    assert skipped == {}


def cot(folder: Path, items: list) -> str:
    path = folder / "orm.json"
    path.write_text(json.dumps(items))
    return str(path)


def item(image: str, prompt: str, answer: str = "yes") -> dict:
    question = (
        f"<image>\nThis image is generated by a prompt: {prompt}. Does this image accurately represent the prompt?"
    )
    return {
        "image": image,
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
    }


def test_generated_pictures_are_labelled_by_their_prompt(tmp_path, paint):
    prompts = {
        "a": "a photo of a dog left of a cat",
        "b": "a photo of a cup above a horse",
        "c": "a photo of a bench below a kite",
        "d": "a photo of a bus right of a zebra",
    }
    for name in prompts:
        paint(tmp_path / "ims" / f"{name}.png", (64, 64))
    found, skipped = read("image-generation-cot", cot(tmp_path, [item(f"ims/{n}.png", p) for n, p in prompts.items()]))
    assert skipped == {}
    assert {(p.subject, p.predicate, p.object) for p in found} == {
        ("dog", "left of", "cat"),
        ("cup", "above", "horse"),
        ("bench", "below", "kite"),
        ("bus", "right of", "zebra"),
    }
    assert all(p.boxes is None and p.pixels().shape == (3, 64, 64) for p in found)


def test_generated_pictures_and_their_traps(tmp_path, paint):
    good = "a photo of a dog left of a cat"
    for name in ("good", "no", "two", "color", "plural", "kind"):
        paint(tmp_path / f"{name}.png", (64, 64))
    items = [
        item("good.png", good),
        item("./good.png", good),
        item("no.png", good, "no"),
        item("two.png", "a photo of a dog and a cat"),
        item("color.png", "a photo of a white dog"),
        item("plural.png", "a photo of two dogs left of a cat"),
        item("kind.png", "a photo of a dog left of an animal"),
        item("missing.png", good),
        {"image": "good.png"},
        {"image": 3, "conversations": []},
        "text",
    ]
    data = cot(tmp_path, items)
    found, skipped = read("image-generation-cot", data)
    assert [p.id for p in found] == ["image-generation-cot-good.png"]
    assert skipped == {
        "picture: listed twice": 1,
        "picture: judged wrong": 1,
        "picture: its prompt has not one basic relation": 2,
        "pair: several of one object": 1,
        "pair: one may be the other (synonym or hypernym)": 1,
        "picture: file is missing": 1,
        "picture: entry not of the format": 3,
    }
    found, skipped = read("image-generation-cot", data, exclude=frozenset({frozenset({"dog", "cat"})}))
    assert found == [] and skipped["pair: used by a benchmark"] == 3
    with pytest.raises(DataError, match="no diagonals"):
        read("image-generation-cot", data, diagonals=True)


@pytest.mark.parametrize("source", READING)
def test_sources_of_real_pictures_ask_for_their_file(source, tmp_path):
    def start(data: str | None = None):
        return registry.load("sources", source).images(SourceRequest(10, 0, 64, data=data))

    with pytest.raises(DataError, match="--data"):
        start()  # at once, before the first picture is asked for
    with pytest.raises(DataError, match=r"nothing\.json does not exist"):
        start(data=str(tmp_path / "nothing.json"))
    broken = tmp_path / "broken.json"
    broken.write_text("{broken")
    with pytest.raises(DataError, match=r"broken\.json") as caught:
        list(start(data=str(broken)))
    assert "\n" not in str(caught.value)


def test_drawn_pictures_refuse_a_file(tmp_path):
    start = registry.load("sources", "emoji").images
    with pytest.raises(DataError, match="read no data"):
        start(SourceRequest(10, 0, 64, data="a.json"))
    with pytest.raises(DataError, match="exclude-benchmarks"):
        start(SourceRequest(10, 0, 64, exclude=frozenset({frozenset({"a", "b"})})))


def test_every_source_says_where_its_pictures_come_from():
    assert {*READING, "emoji"} <= set(registry.names("sources"))
    for name in registry.names("sources"):
        note = registry.load("sources", name).NOTE
        assert any(word in note for word in ("Licen", "licen", "terms")), name


def test_broken_lines_and_entries_of_own_pictures(album, tmp_path):
    album.add("good", pair("left of"))
    data = album.write("folder")
    rows = [
        '{"image": "images/good.jpg", "objects": ',
        '"text"',
        '{"image": 3, "objects": []}',
        '{"image": "images/good.jpg"}',
        '{"image": "images/good.jpg", "objects": ["dog"]}',
        '{"image": "images", "objects": []}',
        '{"image": "\\ud800\\u0000", "objects": []}',
    ]
    paths = [album.paint(tmp_path / "images" / f"{n}.jpg") for n in range(3)]
    box = [5, 25, 35, 55]
    odd = [{"name": 3, "box": box}, {"name": "cat", "box": [1, 2, 3]}, {"name": "dog", "box": [0, 0, "x", 1]}]
    odd += [{"box": box}, {"name": "cup", "box": [float("nan"), 0, 9, 9]}, {"name": "bed", "box": [10**400, 0, 9, 9]}]
    rows.append(json.dumps({"image": f"images/{paths[0].name}", "objects": odd}))
    words = [["dog", "near", "cat"], ["dog", "left of", "cow"], ["dog", "above"], 3]
    objects = [{"name": name, "box": box} for name, box in pair("left of")]
    rows.append(json.dumps({"image": f"images/{paths[1].name}", "objects": objects, "relations": words}))
    rows.append(json.dumps({"image": f"images/{paths[2].name}", "objects": objects, "relations": 5}))
    Path(data).write_text(Path(data).read_text() + "\n".join(rows))
    found, skipped = read("folder", data)
    assert {picture.id for picture in found} == {f"folder-images/{name}.jpg" for name in ("good", 1, 2)}
    assert skipped == {
        "line: not valid JSON": 1,
        "line: not a JSON object": 1,
        "line: not of the format": 3,
        "picture: cannot be decoded": 2,
        "object: without a name": 2,
        "object: broken box": 4,
        "pair: annotated relation has an unknown predicate": 1,
        "pair: annotated relation of an object that is not listed": 1,
        "pair: annotated relation not of the format": 3,
    }


def test_broken_entries_of_scene_graphs(album):
    album.add("good", pair("left of"), said=[(0, "above", 7)])
    data = album.write("gqa")
    graphs = json.loads(Path(data).read_text())
    graphs |= {"list": [], "sizeless": {"objects": {}}, "objectless": {"width": 9, "height": 9, "objects": 3}}
    graphs["good"]["objects"]["x"] = None
    Path(data).write_text(json.dumps(graphs))
    found, skipped = read("gqa", data)
    assert [picture.id for picture in found] == ["gqa-good"]
    assert skipped == {
        "picture: entry not of the format": 3,
        "object: entry not of the format": 1,
        "pair: annotated relation not of the format": 1,
    }


def test_broken_entries_and_crowds_of_coco(album):
    album.add("good", pair("left of"))
    album.add("crowd", pair("left of"))
    data = album.write("coco")
    value = json.loads(Path(data).read_text())
    value["annotations"][3]["iscrowd"] = 1
    value["annotations"] += [
        {"id": 90, "image_id": 77, "category_id": 10, "bbox": [1, 1, 20, 20]},
        {"id": 91, "image_id": 0, "category_id": 99, "bbox": [1, 1, 20, 20]},
        {"id": 92, "image_id": [], "category_id": 10},
        {"id": 93, "image_id": 0, "category_id": 12, "bbox": None},
        None,
    ]
    value["images"] += [3, {"id": 50, "file_name": None, "width": 3, "height": 3}]
    Path(data).write_text(json.dumps(value))
    found, skipped = read("coco", data)
    assert [picture.id for picture in found] == ["coco-good"]
    assert skipped == {
        "object: several of its name in the picture": 1,
        "object: its picture is not listed": 1,
        "object: unknown picture or category": 2,
        "object: broken box": 1,
        "object: entry not of the format": 1,
        "picture: entry not of the format": 2,
    }
    Path(data).write_text('{"images": []}')
    with pytest.raises(DataError, match="no lists of images"):
        read("coco", data)


def test_coco_pairs_pass_the_filters_of_scop(tmp_path, paint, monkeypatch):
    """With the published numbers, on a picture of 400 x 400."""
    monkeypatch.undo()
    cases = {
        "good": ((0, 100, 160, 260), (200, 100, 360, 260)),
        "overlap": ((0, 100, 160, 260), (100, 100, 260, 260)),
        "small": ((0, 100, 100, 200), (150, 100, 250, 200)),
        "uneven": ((0, 0, 250, 250), (300, 100, 390, 190)),
        "least": ((0, 0, 250, 250), (300, 100, 331, 131)),
        "far": ((0, 0, 60, 400), (350, 195, 400, 205)),
    }
    value = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]}
    for number, (name, boxes) in enumerate(cases.items()):
        paint(tmp_path / "train2017" / f"{name}.jpg", (400, 400))
        value["images"].append({"id": number, "file_name": f"{name}.jpg", "width": 400, "height": 400})
        for category, (x0, y0, x1, y1) in enumerate(boxes, start=1):
            box = [x0, y0, x1 - x0, y1 - y0]
            entry = {"id": len(value["annotations"]), "image_id": number, "category_id": category, "bbox": box}
            value["annotations"].append(entry)
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(value))
    found, skipped = read("coco", str(path))
    assert [p.id for p in found] == ["coco-good"]
    assert skipped == {
        "pair: too much overlap": 1,
        "pair: too small together": 1,
        "pair: sizes too different": 1,
        "object: too small": 2,
    }


def test_annotations_of_another_size_and_copies_are_left_out(album, paint):
    album.add("a", pair("left of"))
    album.add("b", pair("left of"), paint=False)
    (album.folder / "images" / "b.jpg").write_bytes((album.folder / "images" / "a.jpg").read_bytes())
    album.add("c", pair("left of"), paint=False)
    paint(album.folder / "images" / "c.jpg", (60, 40))
    found, skipped = read("gqa", album.write("gqa"))
    assert len(found) == 1
    assert skipped == {"picture: copy of another one": 1, "picture: not of the annotated size": 1}


@pytest.mark.parametrize(("beyond", "kept"), [(1, True), (3, False)])
def test_a_box_may_reach_beyond_the_image_by_rounding_only(beyond, kept, album):
    dog, (name, (x0, y0, _, y1)) = pair("left of")
    album.add("edge", [dog, (name, (x0, y0, SIZE[0] + beyond, y1))])
    found, skipped = read("folder", album.write("folder"))
    assert skipped == ({} if kept else {"object: box outside the picture": 1})
    assert all(value <= 64 for image in found for box in image.boxes for value in box) and bool(found) is kept


def test_classes_are_balanced_and_pictures_stay_in_one_split(album):
    kinds = list(PLACES)
    for number in range(150):
        album.add(f"p{number:03}", pair(kinds[number % 5]))
    data = album.write("folder")
    found, _ = read("folder", data, limit=100)
    assert Counter(p.predicate for p in found) == dict.fromkeys((*BASIC, NEUTRAL), 20)
    # The first turn of every ten is for training, the second for validation, the third for tests.
    turns = [{p.split for p in found[start : start + 5]} for start in (0, 5, 10)]
    assert turns[0] == {"train"} and "val" in turns[1] and "test" in turns[2]
    splits = {p.id: p.split for p in read("folder", data, limit=500)[0]}
    assert len(splits) == 150
    counts = Counter(splits.values())
    assert 5 <= counts["val"] <= 27 and 5 <= counts["test"] <= 27
    # The first ones do not depend on how many are asked for, nor a picture's split on the others.
    assert read("folder", data, limit=30)[0] == found[:30]
    assert read("folder", data, limit=100, seed=1)[0] != found
    del album.entries[::2]
    fewer = read("folder", album.write("folder"), limit=500)[0]
    assert len(fewer) == 75
    assert all(splits[p.id] == p.split for p in fewer)


def test_a_short_class_is_told_and_not_made_up_for(album):
    for number in range(10):
        album.add(f"l{number}", pair("left of"))
    for number in range(2):
        album.add(f"n{number}", pair("is"))
    source = registry.load("sources", "folder")
    labelled = source.images(SourceRequest(25, 0, 64, data=album.write("folder")))
    found, skipped = list(labelled), labelled.skipped
    counts = Counter(p.predicate for p in found)
    # A pair side by side can be told from either side: the ten pictures are shared.
    assert counts == {"left of": 5, "right of": 5, NEUTRAL: 2}
    assert skipped.counts == {"class: fewer pictures than its share of the limit": 25 - 12}
    assert {"above", "below"} & set(skipped.examples["class: fewer pictures than its share of the limit"])
    far = source.images(SourceRequest(10**30, 0, 64, data=album.write("folder")))
    assert len(list(far)) == 12
    assert far.skipped.counts == {"class: fewer pictures than its share of the limit": 10**30 - 12}
