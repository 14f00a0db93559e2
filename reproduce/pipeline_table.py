"""What becomes of every pipeline of the installed diffusers that draws images from a prompt: steered, or refused.

    python reproduce/pipeline_table.py         # two minutes on one core

Each class is built around the tiny random components of the family that its denoiser belongs to
(``learn_to_steer.families.testing``). The others get a stand-in that has the denoiser's class and no weights, since
their class decides. Each is given to ``Steerer.on``. What is accepted, and needs no image, draws two steps, steered
and not: there have to be iterations, and another image. Results go to docs/results/pipelines.json, and as a table to
docs/all_pipelines.md. The exit code is 1 if anything but an error of this package stopped one, or if one was accepted
and not steered. Pipelines of videos and sounds, and those that diffusers has withdrawn, are left out.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import typing
import warnings
from itertools import takewhile
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from learn_to_steer import families, storage
from learn_to_steer.classifier import ClassifierConfig, RelationClassifier
from learn_to_steer.errors import SteerError
from learn_to_steer.families.testing import tiny, tiny_model, tiny_names
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.losses.learned import Learned
from learn_to_steer.steering import Steerer, profile

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "pipelines.json"
PAGE = ROOT / "docs" / "all_pipelines.md"
PROMPT = "a dog to the left of a cat"
OTHER_MEDIA = ("Video", "Audio", "Music", "Motion", "3DModel", "AceStep", "I2V", "T2V", "ShapE", "Prior")
# UNets that are fed other things than the text of Stable Diffusion, as their hub configs have it.
OTHER_UNETS = {"IF": {"encoder_hid_dim_type": "text_proj"}, "Kandinsky": {"encoder_hid_dim_type": "text_image_proj"}}


def classes() -> dict[str, type]:
    """Return the pipelines, by name."""
    found = {}
    for name in dir(diffusers):
        kind = getattr(diffusers, name, None) if name.endswith("Pipeline") else None
        if not (inspect.isclass(kind) and issubclass(kind, diffusers.DiffusionPipeline)):
            continue
        given = inspect.signature(kind.__call__).parameters
        medium = f"{name} {network(kind)}"
        still = "num_frames" not in given and not any(word in medium for word in OTHER_MEDIA)
        if "prompt" in given and still and network(kind) and "deprecated" not in kind.__module__:
            found[name] = kind
    return found


def network(kind: type) -> str:
    """Return the name of the class of a pipeline's denoiser; empty if it has none."""
    given = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    for name in ("unet", "transformer", "decoder"):
        if name in given:
            hint = given[name].annotation
            hint = next((one for one in typing.get_args(hint) if one is not type(None)), hint)
            return str(getattr(hint, "__name__", hint)).rpartition(".")[2].strip("'")
    return ""


def built(name: str, kind: type) -> tuple[Any, str]:
    """Return a pipeline of a class, and the name of the tiny pipeline that it is made of; empty for a stand-in."""
    wanted = network(kind)
    fits = [one for one in tiny_names() if type(_denoiser(tiny(one))).__name__ == wanted]
    if wanted == "UNet2DConditionModel":
        fits = ["sdxl" if "XL" in name else "sd"]
    other = next((change for prefix, change in OTHER_UNETS.items() if name.startswith(prefix)), None)
    parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    for source in sorted(fits, key=lambda one: alike(tiny_model(one).pipeline, name), reverse=True):
        parts = {key: part for key, part in tiny(source).components.items() if key in parameters}
        flags = {key: False for key in ("requires_safety_checker", "add_watermarker") if key in parameters}
        needed = [key for key, one in parameters.items() if one.default is inspect.Parameter.empty]
        missing = dict.fromkeys(key for key in needed if key not in ("self", "args", "kwargs", *parts))
        try:
            pipe = kind(**missing, **parts, **flags)
            pipe.set_progress_bar_config(disable=True)
        except Exception:  # it needs a part that no tiny pipeline has: its class and its denoiser decide
            pipe = stand_in(kind, "unet" if "unet" in parameters else "transformer", _denoiser(tiny(source)))
            source = ""
        if other:
            _denoiser(pipe).register_to_config(**other)
        return pipe, source
    empty = type(wanted, (nn.Module,), {"config": diffusers.configuration_utils.FrozenDict()})()
    place = next(one for one in ("unet", "transformer", "decoder") if one in parameters)
    return stand_in(kind, place, empty), ""


def alike(one: str, other: str) -> int:
    """Return how many letters two names have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def stand_in(kind: type, place: str, denoiser: Any) -> Any:
    """Return an object of a pipeline's class that has a denoiser and nothing else."""
    pipe: Any = object.__new__(kind)
    vars(pipe)[place] = denoiser
    return pipe


def _denoiser(pipe: Any) -> Any:
    return getattr(pipe, "unet", None) or pipe.transformer


def outcome(name: str, kind: type) -> str:
    """Say what becomes of a class: "steered", "accepted", "refused: ..." or "fault: ..."."""
    pipe, source = built(name, kind)
    try:
        family = families.find(pipe)
        layout = family.layout(_denoiser(pipe))
        classes = ("above", "below", "left of", "right of", NEUTRAL)
        config = ClassifierConfig(classes, layout.channels, 8, (1.0,) * 8, layout=layout.as_dict())
        torch.manual_seed(0)
        loss = Learned(RelationClassifier(config).requires_grad_(False))
        settings = profile("default").changed(passes=1, threshold=2.0, step_size=1.0)
        steered = Steerer(loss, settings).on(pipe)
    except SteerError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"fault: {type(error).__name__}: {error}"
    given = inspect.signature(kind.__call__).parameters
    images = [key for key in given if key in ("image", "control_image", "mask_image")]
    if not source or any(given[key].default is inspect.Parameter.empty or "Img" in name for key in images):
        return "accepted"
    if any(word in name for word in ("Inpaint", "ControlNet", "Img2Img")):
        return "accepted"
    return drawn(pipe, steered, source)


def drawn(pipe: Any, steered: Any, source: str) -> str:
    """Draw two steps, steered and not, and compare."""
    model = tiny_model(source)
    height, width = model.size
    sized = {"height": height, "width": width, "num_inference_steps": 2, "output_type": "latent"}
    more = sized | dict(model.arguments) | dict(model.plain)
    try:
        mine = steered(prompt=PROMPT, generator=torch.Generator().manual_seed(0), **more)
        stock = pipe(prompt=PROMPT, generator=torch.Generator().manual_seed(0), **more)
    except SteerError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"fault: {type(error).__name__}: {error}"
    moved = mine.steering.images[0].passes > 0 and not torch.equal(mine.images, stock.images)
    return "steered" if moved else "fault: accepted, and not steered"


def page(rows: dict[str, str]) -> str:
    """Return the page of the docs."""
    known = sum(not one.startswith("refused") for one in rows.values())
    lines = [
        "# Every pipeline",
        "",
        f"Made by `reproduce/pipeline_table.py` with diffusers {diffusers.__version__}: all of its {len(rows)}",
        f"pipelines that draw an image from a prompt, of which {known} can be steered. *Steered*: two steps were drawn",
        "with the tiny random pipeline of the family. *Accepted*: `on()` takes it; it draws from other images, too,",
        "and was not run here. Where a pipeline is refused, the message is the one that you would read.",
        "",
        "| pipeline | | |",
        "|---|---|---|",
    ]
    for name, said in rows.items():
        what, _, why = said.partition(": ")
        lines.append(f"| `{name}` | {what} | {why.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    warnings.simplefilter("ignore")
    rows = {}
    for name, kind in classes().items():
        rows[name] = " ".join(outcome(name, kind).split())
        print(f"{name}: {rows[name][:150]}", flush=True)
    storage.write_json(RESULTS, {"diffusers": diffusers.__version__, "pipelines": rows})
    PAGE.write_text(page(rows), encoding="utf-8")
    sys.exit(any(said.startswith("fault") for said in rows.values()))


if __name__ == "__main__":
    main()
