"""Pages of images: base beside steered, attention maps over the steps, contact sheets, and a page for manual labels."""

from learn_to_steer.report.attention_maps import LatentTrajectory, ObjectMaps, draw_maps, object_maps
from learn_to_steer.report.pages import Panel, comparison_page, contact_sheet, image_grid, image_pages

__all__ = [
    "LatentTrajectory",
    "ObjectMaps",
    "Panel",
    "comparison_page",
    "contact_sheet",
    "draw_maps",
    "image_grid",
    "image_pages",
    "object_maps",
]
