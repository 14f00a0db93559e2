"""Train ``flux:emoji`` and ``flux:emoji-schnell`` on the emoji world, in stages; each resumes where it was.

    python training/train_text.py --minutes 15                               # first: T5, on text alone
    torchrun --nproc-per-node 2 training/train_flux.py base --steps 12000    # flow matching, CLIP along
    torchrun --nproc-per-node 2 training/train_flux.py guided --steps 2000   # guidance becomes an input, as in dev
    torchrun --nproc-per-node 2 training/train_flux.py few --steps 3000      # four steps without guidance, as schnell
    python training/train_flux.py export                                     # write the newest of each into the package

``guided`` learns what classifier-free guidance of the first stage predicts (Meng et al., arXiv 2210.03142); ``few``
is progressive distillation (Salimans and Ho, arXiv 2202.00512) of twelve guided steps into four, in one go. The
teacher's steps go back to the straight line between the noise and the picture foreseen, which loses fewer objects
than Euler's. Without any checkpoint ``base`` and ``few`` go on from the packaged weights.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from flux_emoji import (
    FEW,
    FOLDER,
    Base,
    Texts,
    autoencoder,
    export,
    pack,
    pipeline,
    predict,
    start_packaged,
    tokenizers,
    trained,
    transformer,
)
from learn_to_steer_emoji.captions import RICH, CaptionStyle
from learn_to_steer_emoji.tidy import CELLS
from learn_to_steer_emoji.world import FINE, WorldConfig
from loop import CHECKPOINTS, DEVICE, RANK, WORLD, autocast, newest, train, written
from pool import PROMPTS, Pool, class_weights, save_sheet

EDGES = ("embed", "shared", "what", "transformer.proj_out", "relative_attention_bias")
GUIDANCE = 6.0  # with less of it, more pictures lack an object
SEGMENTS, INSIDE = 4, 3  # the student's steps, and the teacher's in each of them


def spread(count: int) -> torch.Tensor:
    """``count`` numbers in (0, 1), one in every equal part, so that a batch covers all noise levels."""
    return (torch.arange(count, device=DEVICE) + torch.rand(count, device=DEVICE)) / count


def noise_levels(count: int) -> torch.Tensor:
    """Times in (0, 1), two in seven of them above .8, where it is settled what goes where."""
    return torch.sigmoid(torch.special.ndtri(spread(count).clamp(1e-4, 1 - 1e-4)) + 0.8)


class Stage:
    """What the three stages share: texts, scenes, and a frozen teacher from the stage before."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.texts, self.vae, self.batch = Texts(*tokenizers()), autoencoder(), options.batch
        self.base = Base(*tokenizers()).to(DEVICE)
        start_packaged(FOLDER, self.base.parts())
        self.base.text_encoder_2.requires_grad_(False)  # as FLUX's: trained on language beforehand, then frozen
        # Tidy scenes on the grid of the tokens: free ones were still blots after 100,000 of them.
        true, at_random = options.relations
        world, style = (FINE, RICH) if options.fine else (WorldConfig(cells=CELLS), CaptionStyle())
        style = replace(style, true_relation=true, random_relation=at_random)
        self.pool = Pool(self.vae, options.chunks, world, style)

    def teacher(self) -> Any:
        self.pool.grow()  # no need to begin with few scenes
        return trained(self.base).requires_grad_(False)

    def draw(self, step: int, salt: int) -> tuple[torch.Tensor, list[str], torch.Tensor, torch.Tensor]:
        """Clean packed latents, captions, cells and noise of a step."""
        self.pool.grow(step)
        clean, captions, cells = self.pool.draw(np.random.default_rng((salt, step, RANK)), self.batch)
        torch.manual_seed(step * WORLD + RANK)
        clean = pack(clean)
        return clean, captions, cells, torch.randn_like(clean)

    def sheet(self, name: str, step: int, network: nn.Module, **sampling: object) -> None:
        if step % 400:
            return
        seeds = [torch.Generator().manual_seed(i) for i in range(len(PROMPTS))]
        given = {"height": 128, "width": 128, "max_sequence_length": 48, "generator": seeds, "output_type": "np"}
        with autocast():
            pipe = pipeline(self.base, network, self.vae, self.texts)
            save_sheet(pipe(list(PROMPTS), **given, **sampling).images, CHECKPOINTS / name / f"sheet-{step}.png")


def mixed(clean: torch.Tensor, noise: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    return torch.lerp(clean, noise, time.view(-1, 1, 1))


def base_stage(options: argparse.Namespace) -> None:
    stage, weights = Stage(options), class_weights()
    if (
        written("flux-text") or not (FOLDER / "text_encoder_2").exists()
    ):  # else the packaged one; a checkpoint has its own
        language = {k[8:]: v for k, v in newest("flux-text").items() if k.startswith("encoder.")}
        stage.base.text_encoder_2.load_state_dict(language)
    fast = trained(stage.base)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        clean, captions, cells, noise = stage.draw(step, 3)
        time = noise_levels(len(clean))
        text, pooled = stage.texts(fast, captions)
        plain = torch.ones(len(clean), device=DEVICE)
        guess = predict(fast.transformer, mixed(clean, noise, time), time, text, pooled, plain)
        aid = functional.cross_entropy(fast.named().float(), cells, weights)
        error = (guess.float() - (noise - clean)).square().mean()
        return error + options.aid * aid, {"mse": error.item(), "aid": aid.item()}

    def show(step: int, state: dict[str, torch.Tensor]) -> None:
        stage.base.load_state_dict(state)
        guided = {"true_cfg_scale": 4.0, "negative_prompt": [""] * len(PROMPTS), "guidance_scale": 1.0}
        stage.sheet("flux-base", step, stage.base.transformer, num_inference_steps=25, **guided)

    student = copy.deepcopy(stage.base)
    train(
        "flux-base", student, loss_of, **loop_settings(options), ema_decay=options.ema, on_save=show, compute_copy=fast
    )


def guided_stage(options: argparse.Namespace) -> None:
    stage = Stage(options)
    stage.base.load_state_dict(newest("flux-base"))
    teacher = stage.teacher()
    student = copy.deepcopy(stage.base.transformer)
    fast = trained(student)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        clean, captions, _, noise = stage.draw(step, 4)
        time = noise_levels(len(clean))
        scale = 2 + 6 * torch.rand(len(clean), device=DEVICE)
        noisy, plain = mixed(clean, noise, time), torch.ones(len(clean), device=DEVICE)
        with torch.no_grad():
            text, pooled = stage.texts(teacher, captions)
            empty, vague = stage.texts(teacher, [""] * len(captions))
            with_text = predict(teacher.transformer, noisy, time, text, pooled, plain).float()
            without = predict(teacher.transformer, noisy, time, empty, vague, plain).float()
            wanted = without + scale.view(-1, 1, 1) * (with_text - without)
        guess = predict(fast, noisy, time, text, pooled, scale)
        error = (guess.float() - wanted).square().mean()
        return error, {"mse": error.item()}

    def show(step: int, state: dict[str, torch.Tensor]) -> None:
        stage.base.transformer.load_state_dict(state)
        stage.sheet("flux-guided", step, stage.base.transformer, num_inference_steps=25, guidance_scale=GUIDANCE)

    train("flux-guided", student, loss_of, **loop_settings(options), ema_decay=0.995, on_save=show, compute_copy=fast)


def load_guided(base: Base) -> bool:
    """Put the newest weights of the first two stages into ``base``; False, and no change, when neither ran here."""
    if not (written("flux-base") or written("flux-guided")):
        return False
    base.load_state_dict(newest("flux-base"))
    base.transformer.load_state_dict(newest("flux-guided"))
    return True


def ahead(
    teacher: Base,
    noisy: torch.Tensor,
    noise: torch.Tensor,
    time: torch.Tensor,
    text: torch.Tensor,
    pooled: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """The velocity that leads in one of SEGMENTS steps where INSIDE steps of ``teacher`` lead.

    Each of them ends on the straight line between ``noise`` and the picture it foresees, not where Euler's would.
    """
    state = noisy
    for _ in range(INSIDE):
        velocity = predict(teacher.transformer, state, time, text, pooled, scale).float()
        foreseen = state - time.view(-1, 1, 1) * velocity
        time = time - 1 / (SEGMENTS * INSIDE)
        state = mixed(foreseen, noise, time)
    return (noisy - state) * SEGMENTS


def few_stage(options: argparse.Namespace) -> None:
    stage = Stage(options)
    trained_here = load_guided(stage.base)
    teacher = stage.teacher()
    student = unguided(stage.base.transformer)
    if not trained_here:
        start_packaged(FEW, {"transformer": student})
    fast = trained(student)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        clean, captions, _, noise = stage.draw(step, 5)
        # Twice as often the first steps: objects and places are settled there.
        part = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3], device=DEVICE)[torch.randint(8, (len(clean),), device=DEVICE)]
        start = 1 - part / SEGMENTS
        noisy, scale = mixed(clean, noise, start), torch.full((len(clean),), GUIDANCE, device=DEVICE)
        with torch.no_grad():
            text, pooled = stage.texts(teacher, captions)
            wanted = ahead(teacher, noisy, noise, start, text, pooled, scale)
        guess = predict(fast, noisy, start, text, pooled, None)
        error = (guess.float() - wanted).square().mean()
        return error, {"mse": error.item()}

    def show(step: int, state: dict[str, torch.Tensor]) -> None:
        network = transformer(guidance=False).to(DEVICE)
        network.load_state_dict(state)
        stage.sheet("flux-few", step, network, num_inference_steps=SEGMENTS, guidance_scale=0.0)

    train("flux-few", student, loss_of, **loop_settings(options), ema_decay=0.995, on_save=show, compute_copy=fast)


def unguided(guided: Any) -> Any:
    """The same network without the guidance input: its embedding at GUIDANCE becomes part of a bias."""
    network = transformer(guidance=False).to(DEVICE)
    network.load_state_dict({k: v for k, v in guided.state_dict().items() if "guidance_embedder" not in k})
    inner = guided.time_text_embed
    with torch.no_grad():
        scale = inner.time_proj(torch.tensor([GUIDANCE * 1000.0], device=DEVICE))
        network.time_text_embed.text_embedder.linear_2.bias += inner.guidance_embedder(scale)[0]
    return network


def loop_settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("steps", "rate", "minutes", "cool", "warmup", "save_minutes")
    return {**{name: getattr(options, name) for name in names}, "muon": True, "edges": EDGES}


def write(_: argparse.Namespace) -> None:
    base = Base(*tokenizers())
    start_packaged(FOLDER, base.parts())
    load_guided(base)
    export(FOLDER, base.parts())
    print(f"exported to {FOLDER.name}")
    if not written("flux-few"):
        print("there is no checkpoint of flux-few yet")
        return
    network = transformer(guidance=False)
    network.load_state_dict(newest("flux-few"))
    export(FEW, {"transformer": network})
    print(f"exported to {FEW.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["base", "guided", "few", "export"])
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=32, help="scenes a step and process")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--minutes", type=float, help="let the rate fall to nothing over this time, then stop")
    parser.add_argument("--cool", type=float, help="with --minutes: the rate falls in the last so many of them alone")
    parser.add_argument("--warmup", type=int, default=100, help="steps over which the rate rises")
    parser.add_argument("--save-minutes", type=float, help="minutes between checkpoints; default: every 200 steps")
    parser.add_argument("--fine", action="store_true", help="three sizes in steps of a latent cell, rich captions")
    parser.add_argument("--chunks", type=int, default=80, help="of 512 scenes a process")
    parser.add_argument(
        "--relations",
        type=float,
        nargs=2,
        metavar=("TRUE", "RANDOM"),
        default=(0.30, 0.12),
        help="shares of the captions of several objects with a relation that is true, and with any",
    )
    parser.add_argument("--aid", type=float, default=0.1, help="weight of naming the objects")
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights of the first stage")
    options = parser.parse_args()
    torch.manual_seed(0)
    {"base": base_stage, "guided": guided_stage, "few": few_stage, "export": write}[options.stage](options)


if __name__ == "__main__":
    main()
