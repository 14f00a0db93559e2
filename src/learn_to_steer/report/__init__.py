"""Pictures that people look at: base beside steered, attention over the steps, uncurated sheets. Pillow only."""

from learn_to_steer.report.attention import ObjectMaps, Trace, object_maps
from learn_to_steer.report.compare import Shown, compare
from learn_to_steer.report.grid import grid
from learn_to_steer.report.maps import draw_maps
from learn_to_steer.report.sheet import sheet

__all__ = ["ObjectMaps", "Shown", "Trace", "compare", "draw_maps", "grid", "object_maps", "sheet"]
