"""Pages to look at: base beside steered images, attention maps over the steps, contact sheets, an audit by eye."""

from learn_to_steer.report.attention_maps import LatentTrajectory, ObjectMaps, draw_maps, object_maps
from learn_to_steer.report.pages import Panel, comparison_page, contact_sheet, image_grid

__all__ = [
    "LatentTrajectory",
    "ObjectMaps",
    "Panel",
    "comparison_page",
    "contact_sheet",
    "draw_maps",
    "image_grid",
    "object_maps",
]
