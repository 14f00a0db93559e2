"""What steering costs: time, floating-point operations and memory, with and without it, in the same run.

``speed.config.BenchConfig`` says what is measured, ``speed.bench.measure_model`` measures it. This package imports no
torch by itself, so that the command line can read its settings at once.
"""
