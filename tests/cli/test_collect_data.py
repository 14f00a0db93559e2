"""``collect --data`` on the command line."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--source", "gqa"], "--data"),
        (["--source", "folder", "--data", "nothing.jsonl"], "nothing.jsonl does not exist"),
        (["--data", "mine.jsonl"], "read no data"),
        (["--exclude-benchmarks"], "real images"),
    ],
)
def test_bad_data_is_refused_before_a_model_is_loaded(run, tmp_path, monkeypatch, options, word):
    monkeypatch.chdir(tmp_path)
    told = run("collect", *options, "--model", "no/such/model", "--out", "maps")
    assert (told.code, told.out) == (2, "")
    assert word in told.err and len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "maps").exists()


def test_what_was_left_out_is_told(run, saved_sd, tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        objects = [{"name": "dog", "box": [2, 20, 22, 40]}, {"name": "cup", "box": [40, 20, 60, 40]}]
        rows.append(json.dumps({"image": f"{number}.png", "objects": objects}))
    (tmp_path / "mine.jsonl").write_text("\n".join([*rows, rows[0]]))
    data = ["--source", "folder", "--data", tmp_path / "mine.jsonl"]
    told = run("collect", *data, "--model", saved_sd, "--limit", "20", "--quality", "1e9", "--out", tmp_path / "maps")
    assert told.code == 0, told.err
    assert "left out: picture: listed twice: 1 (e.g. 0.png)" in told.err
    assert json.loads((tmp_path / "maps" / "config.json").read_text())["data"] == str(tmp_path / "mine.jsonl")
