"""The registry under its former name, until every caller has the new one."""

from learn_to_steer.registry import KINDS, load, names, nearest, normal, unknown

__all__ = ["KINDS", "load", "names", "nearest", "normal", "unknown"]
