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
    layers = [point for point in family.attention_layers(unet) if point.layer in classifier.layout.layers]
    capture = AttentionCapture(layers, family.attention(unet))
    # Ordinary sampling begins: pure noise, the prompt's embedding, and the empty prompt's for guidance.
    scheduler.set_timesteps(steps)
    size = side // pipe.vae_scale_factor
    latents = torch.randn(1, unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        text, empty = pipe.encode_prompt(prompt, "cpu", 1, True)

    def evaluate(maps, t, step):  # the classifier's cross-entropy at the wanted relation, and that one's probability
        row = classifier.config.row(float((1 - scheduler.alphas_cumprod[t]).sqrt()), step, steps)
        logits = classifier(maps.stack(classifier.config.side), torch.tensor([row]))
        calibrated = functional.cross_entropy(logits / classifier.config.temperature(row), wanted)
        return functional.cross_entropy(logits, wanted), (-calibrated).exp().item()

    made = probability = 0
    for step, t in enumerate(scheduler.timesteps):
        steered = 1 - float(t) / scheduler.config.num_train_timesteps <= WINDOW
        for _ in range(ITERATIONS if steered and probability < THRESHOLD else 0):
            # Look where the model would put the objects: their cross-attention maps, from several layers and heads.
            x = latents.detach().requires_grad_()
            with capture.capture(weights, size, size) as captured:
                unet(x, t, encoder_hidden_states=text)
                loss, probability = evaluate(captured(), t, step)
                if probability >= THRESHOLD:
                    break
                (gradient,) = torch.autograd.grad(loss, x)
            # The update: move the latents, and nothing else, against the gradient.
            latents = latents - STEP_SIZE * (gradient / gradient.square().mean().sqrt())
            made += 1
        # The ordinary denoising step, whose maps of the prompt tell for free whether the next step needs iterations.
        with torch.no_grad(), capture.capture(weights, size, size, torch.tensor([1])) as captured:
            both = unet(torch.cat([latents] * 2), t, encoder_hidden_states=torch.cat([empty, text])).sample
            without, with_text = both.chunk(2)
            _, probability = evaluate(captured(), t, step)
        latents = scheduler.step(without + guidance * (with_text - without), t, latents).prev_sample
    return latents, made


if __name__ == "__main__":
    pipe = load_pipeline("sd:emoji")
    latents, made = draw(pipe, Steerer.from_pretrained("sd:emoji").loss.classifier, " ".join(sys.argv[1:]))
    with torch.no_grad():
        pixels = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    pipe.image_processor.postprocess(pixels)[0].save("minimal.png")
    print(f"minimal.png: {made} iterations")
