"""An evaluation that was stopped ends with the same bytes; damaged results are refused or made again, never used."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from learn_to_steer import storage
from learn_to_steer.cli import main
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation import ScoreConfig, evaluate, evaluate_model, score
from learn_to_steer.report.audit import agreement, audit_page

PROMPTS = [{"prompt": "a dog to the left of a cat"}, {"prompt": "a cat to the left of a puppy"}]
# Texts that are only shown, the tag of a user's own prompt, and what is None for images that nothing judged.
FREE = (".tag", ".note", ".satisfied", ".why")


class Killed(BaseException):
    """Ends a run as a signal would."""


@pytest.fixture
def config(config_of):
    return config_of(PROMPTS, images=3, batch=4, device="cpu")


def files(out):
    """The bytes of all files, without times and the name of the folder."""
    content = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in ("results.jsonl", "summary.json", "config.json"):
        lines = content[name].decode().splitlines()
        kept = [json.loads(line) | {"seconds": 0} for line in lines] if name == "results.jsonl" else lines
        content[name] = [line for line in kept if not any(word in line for word in ('"seconds_per', '"out":'))]
    if "report.html" in content:
        page = content["report.html"].decode().splitlines()
        content["report.html"] = [line for line in page if "seconds an image" not in line]
    return content


@pytest.mark.parametrize("written", [1, 2, 5])
def test_a_stopped_evaluation_ends_with_the_same_bytes(config, left_dog, tmp_path, monkeypatch, written):
    evaluate(config, scorer=left_dog)
    expected = files(tmp_path / "out")
    append, count = storage.append_jsonl, 0

    def dies(path, row):
        nonlocal count
        count += 1
        if count > written:
            raise Killed
        append(path, row)

    cut = replace(config, out=str(tmp_path / "cut"))
    monkeypatch.setattr(evaluate_model.storage, "append_jsonl", dies)
    with pytest.raises(Killed):
        evaluate(cut, scorer=left_dog)
    monkeypatch.setattr(evaluate_model.storage, "append_jsonl", append)
    samples = tmp_path / "cut" / "images" / "00000" / "samples"
    for folder, name in ((tmp_path / "cut", "results.jsonl"), (samples, "0009.png"), (samples.parent, "x")):
        (folder / f".{name}.0123456789ab.tmp").write_bytes(b"half")
    kept = (samples / "0000.png").stat().st_mtime_ns
    evaluate(cut, scorer=left_dog)
    assert files(tmp_path / "cut") == expected
    assert (samples / "0000.png").stat().st_mtime_ns == kept


@pytest.fixture
def evaluated(config, blank_model, left_dog, tmp_path):
    """The folder of a finished evaluation of white images, and a function that runs it again."""
    config = replace(config, objective="none", classifier=None)

    def again():
        return evaluate(config, model=blank_model, scorer=left_dog)

    again()
    return tmp_path / "out", again


def test_damaged_rows_are_refused_before_the_model_is_loaded(config, left_dog, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text('{"index": 0}\n')
    with pytest.raises(DataError, match=r"results\.jsonl, line 1: sample is missing; repair or remove the line"):
        evaluate(replace(config, model=str(tmp_path / "none")), scorer=left_dog)


def test_a_damaged_image_is_made_again(evaluated):
    out, again = evaluated
    path = out / "images" / "00001" / "samples" / "0002.png"
    whole = path.read_bytes()
    for content in (whole[:-30], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], b"", b"GIF89a"):
        path.write_bytes(content)
        again()
        assert path.read_bytes() == whole


def test_running_again_writes_the_report_again(evaluated):
    out, again = evaluated
    page = out / "report.html"
    text = page.read_text()
    assert text.count("<figure ") == 6 and "dog 0.90" in text
    page.write_text("spoilt")
    again()
    assert page.read_text() == text


def test_a_row_with_a_field_of_another_type_is_refused_by_every_reader(evaluated, left_dog, with_wrong_values):
    out, again = evaluated
    path = out / "results.jsonl"
    first, *others = path.read_text().splitlines()
    readers = {
        "evaluate": again,
        "audit": lambda: audit_page(out),
        "agreement": lambda: agreement(out, {"00001-0000": "right"}),
        "score": lambda: score(ScoreConfig(str(out), out=str(out.parent / "score")), scorer=left_dog),
        "against": lambda: score(
            ScoreConfig(
                str(out),
                out=str(out.parent / "score"),
                against=str(shutil.copytree(out, out.parent / "ref", dirs_exist_ok=True)),
            ),
            scorer=left_dog,
        ),
    }
    count = 0
    for label, wrong in with_wrong_values(json.loads(first)):
        if label.startswith(FREE) or label.endswith("=None") or "=7" in label:
            continue
        path.write_text("\n".join([json.dumps(wrong), *others]) + "\n")
        reader = list(readers)[count % len(readers)]
        count += 1
        with pytest.raises(DataError, match=r"results\.jsonl, line 1: "):
            readers[reader]()
            pytest.fail(f"{reader}: {label}")
    assert count > 100


def test_rows_that_lack_a_field_are_made_again_and_other_readers_refuse_them(evaluated):
    out, again = evaluated
    path = out / "results.jsonl"
    whole = [json.loads(line) for line in path.read_text().splitlines()]
    for name in ("boxes", "held", "scores"):
        lacking = [{key: value for key, value in whole[0].items() if key != name}, *whole[1:]]
        path.write_text("".join(json.dumps(row) + "\n" for row in lacking))
        if name == "boxes":
            with pytest.raises(DataError, match="holds no evaluation"):
                audit_page(out)
        again()
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row | {"seconds": 0} for row in rows] == [row | {"seconds": 0} for row in whole]
    path.write_text("".join(json.dumps(row | {"tag": "another"}) + "\n" for row in whole))
    with pytest.raises(DataError, match="lacks the tag or a score of the benchmark; remove the row"):
        again()


@pytest.mark.parametrize("name", ["results.jsonl", "config.json"])
def test_spoilt_files_are_refused_and_the_rest_is_kept(evaluated, spoil, name):
    out, again = evaluated
    images = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    for how in spoil(out / name):
        if how in ("empty", "cut") and name == "results.jsonl":
            continue  # as a kill leaves it
        if how == "a loop of links":
            assert not (out / name).exists()
            continue
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            again()
        assert {path: path.stat().st_mtime_ns for path in images} == images
    again()


def test_spoilt_detections_are_refused(evaluated, left_dog, spoil, with_wrong_values, tmp_path):
    out, _ = evaluated
    config = ScoreConfig(str(out), out=str(tmp_path / "score"))
    score(config, scorer=left_dog)
    path = tmp_path / "score" / "detections.jsonl"
    whole = path.read_text()
    for label, wrong in with_wrong_values(json.loads(whole.splitlines()[0])):
        path.write_text(json.dumps(wrong) + "\n")
        if label.endswith(("=7", "color=None")):
            continue
        with pytest.raises(DataError, match=r"detections\.jsonl, line 1"):
            score(config, scorer=left_dog)
            pytest.fail(label)
    path.write_text(whole)
    for how in spoil(path):
        if how not in ("empty", "cut", "a loop of links"):
            with pytest.raises(DataError, match=r"detections\.jsonl"):
                score(config, scorer=left_dog)


@pytest.mark.parametrize("name", ["summary.json", "config.json"])
def test_a_reference_and_settings_of_another_type_are_refused(evaluated, left_dog, tmp_path, name):
    out, _ = evaluated
    other = shutil.copytree(out, tmp_path / "other")
    for text in ("[]", "7", '"text"', "null", "NaN", '{"detector": 7, "judged_by": 7, "model": []}'):
        (other / name).write_text(text)
        with pytest.raises(DataError):
            if name == "summary.json":
                score(ScoreConfig(str(out), against=str(other), out=str(tmp_path / "score")), scorer=left_dog)
            else:
                score(ScoreConfig(str(other), out=str(tmp_path / "score")), scorer=left_dog)


def test_labels_of_another_type_are_refused(evaluated, tmp_path, capsys):
    out, _ = evaluated
    labels = tmp_path / "labels.json"
    for text in ('{"00000-0000": ["right"]}', '{"00000-0000": null}', "[]", "7", "[" * 100_000):
        labels.write_text(text)
        assert main(["audit", str(out), "--labels", str(labels)]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
