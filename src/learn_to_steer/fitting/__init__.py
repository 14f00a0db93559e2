"""Make a classifier for a model in one command, from images that the model draws itself.

``fit`` is ``collect`` and ``train`` with other parts: the source of images is the model, the noisy latents are those of
its own sampling, the labels are what a detector sees. The classifier is then tried on prompts that it was not trained
on. A folder of it holds::

    relation_classifier.safetensors, README.md, metrics.json   the classifier, its card and its metrics
    report.html, report.json     what was drawn and learned, and whether steering helps
    config.json                  the settings
    collection/                  the images and their attention maps; not needed any more once all is done
    depth-1/, depth-2/, ...      the classifiers of other depths, with checkpoints
    trial/                       the prompts of the trial, and their images

``config.FitConfig`` has the settings, ``fit_model.fit`` does it. This package imports no torch by itself, so that the
command line can read its settings at once.
"""
