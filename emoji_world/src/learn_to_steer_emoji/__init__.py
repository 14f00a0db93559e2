"""The emoji world: small trained text-to-image models, and everything to train, steer and judge them offline.

It plugs into ``learn_to_steer`` through entry points alone, as any other package can: models (``variants``), sources of
labelled pictures (``source``), detectors (``detector``, ``template_detector``), benchmarks (``unseen_benchmark``,
``unseen_multi_relation``) and an embedder (``embedder``). The renderer is ``scenes``, on the sprites of ``sprites``.
"""
