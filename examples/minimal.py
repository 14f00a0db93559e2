"""The whole method by hand: one image, one relation, a Stable Diffusion model with the DDIM scheduler.

    python examples/minimal.py "a dog to the left of a teddy bear"

draws with the small emoji model and writes minimal.png. ``Steerer`` does the same, to the bit, on any supported
pipeline and scheduler, for batches, several relations and half precision. Source: arXiv 2509.02295, section 3.
"""

import sys

import torch
from torch.nn import functional

from learn_to_steer import Steerer, load_pipeline
from learn_to_steer.attention import AttentionCapture
from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import parse, token_indices

WINDOW = 0.5  # share of the noise schedule that is steered, from the noisiest end
ITERATIONS = 2  # per denoising step
THRESHOLD = 0.8  # the relation's probability at which an image is left alone
STEP_SIZE = 0.02  # root mean square of one move of the latents


def draw(pipe, classifier, prompt, steps=25, guidance=4.0, side=128, seed=0):
    """Return the final latents (1, channels, height, width) and the number of iterations made."""
    unet, scheduler, family = pipe.unet.requires_grad_(False), pipe.scheduler, find(pipe)

    # What should the image show, and at which positions in the text are the two objects named?
    relation = parse(prompt)[0]
    wanted = torch.tensor([classifier.config.classes.index(relation.predicate)])
    columns = token_indices(pipe.tokenizer, prompt, [relation.subject_span, relation.object_span])
    weights = columns_to_weights([columns], pipe.tokenizer.model_max_length)
    capture = AttentionCapture(family.attention_layers(unet), family.attention(unet))

    # Ordinary sampling begins: pure noise, the prompt's embedding, and the empty prompt's for guidance.
    scheduler.set_timesteps(steps)
    size = side // pipe.vae_scale_factor
    latents = torch.randn(1, unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        text, empty = pipe.encode_prompt(prompt, "cpu", 1, True)

    made = 0
    for step, t in enumerate(scheduler.timesteps):
        if 1 - float(t) / scheduler.config.num_train_timesteps <= WINDOW:
            noise_level = float((1 - scheduler.alphas_cumprod[t]).sqrt())
            row = torch.tensor([classifier.config.row(noise_level, step, steps)])
            for _ in range(ITERATIONS):
                # Look where the model would put the objects: their cross-attention maps, from all layers and heads.
                x = latents.detach().requires_grad_()
                with capture.capture(weights, size, size) as captured:
                    unet(x, t, encoder_hidden_states=text)
                    maps = captured().stack(classifier.config.side)  # (1, 2 objects, layers x heads, 16, 16)
                    # The loss: the relation classifier's cross-entropy at the relation that is wanted.
                    loss = functional.cross_entropy(classifier(maps, row), wanted)
                    if (-loss).exp().item() >= THRESHOLD:
                        break
                    (gradient,) = torch.autograd.grad(loss, x)
                # The update: move the latents, and nothing else, against the gradient.
                latents = latents - STEP_SIZE * (gradient / gradient.square().mean().sqrt())
                made += 1
        # The ordinary denoising step, from the moved latents, with classifier-free guidance.
        with torch.no_grad():
            both = unet(torch.cat([latents] * 2), t, encoder_hidden_states=torch.cat([empty, text])).sample
            without, with_text = both.chunk(2)
            latents = scheduler.step(without + guidance * (with_text - without), t, latents).prev_sample
    return latents, made


if __name__ == "__main__":
    pipe = load_pipeline("sd:emoji")
    latents, made = draw(pipe, Steerer.from_pretrained("sd:emoji").loss.classifier, " ".join(sys.argv[1:]))
    with torch.no_grad():
        pixels = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    pipe.image_processor.postprocess(pixels)[0].save("minimal.png")
    print(f"minimal.png: {made} iterations")
