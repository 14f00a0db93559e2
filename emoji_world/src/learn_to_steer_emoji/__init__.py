"""The emoji world: small trained text-to-image models, and what is needed to train, steer and evaluate them offline.

The package registers its plug-ins with ``learn_to_steer`` through entry points, as any package can: models
(``variants``), sources of labelled images (``source``), detectors (``detector``, ``template_detector``), benchmarks
(``unseen_benchmark``, ``unseen_multi_relation``) and an embedder (``embedder``).

Scenes are drawn at random by ``world`` (``tidy`` puts them on a grid), rendered by ``scenes`` from ``sprites`` and
``backgrounds``, and described by ``captions``.
"""
