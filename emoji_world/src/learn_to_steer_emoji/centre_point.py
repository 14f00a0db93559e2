"""A small centre-point network that finds sprites, and the decoding of its output.

Every object is a peak in the heatmap of its class. A cell of the heatmap covers 8 x 8 pixels; at the peak, the network
also predicts where in the cell the object's centre lies and how large its box is. The packaged weights are in
``data/detector``, made by ``training/train_detector.py``.

Source: Zhou et al., "Objects as Points", arXiv 1904.07850.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, Detection
from learn_to_steer.storage import load_tensors, read_json

STRIDE = 8  # pixels a side of a heatmap cell
SAME_SPOT = 0.25  # of two boxes' mean side: peaks whose centres are closer than this are one object


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + self.body(x))


def _halve(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class DetectorNet(nn.Module):
    """Predicts a heatmap of every class, and a box in every cell.

    Features at stride 16, whose receptive field holds a whole object, are added to those at stride 8.
    """

    def __init__(self, classes: int, widths: tuple[int, int, int, int] = (32, 48, 96, 128)) -> None:
        """Build the network with random weights.

        Args:
            classes: Number of kinds of objects.
            widths: Channels at strides 2, 4, 8 and 16.
        """
        super().__init__()
        a, b, c, d = widths
        self.fine = nn.Sequential(_halve(3, a), _halve(a, b), _Residual(b), _halve(b, c), _Residual(c), _Residual(c))
        self.coarse = nn.Sequential(_halve(c, d), _Residual(d), _Residual(d), nn.Conv2d(d, c, 1))
        self.joined = nn.Sequential(_Residual(c), _Residual(c))
        self.heat = nn.Conv2d(c, classes, 1)
        self.box = nn.Conv2d(c, 4, 1)
        # A prior of 1 %: with an even one, the focal loss explodes at the start.
        nn.init.constant_(self.heat.bias, -4.6)  # type: ignore[arg-type]

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch classes rows columns"], Float[Tensor, "batch 4 rows columns"]]:
        """Predict heatmaps and boxes.

        Args:
            images: RGB in [0, 1]; height and width are multiples of 8.

        Returns:
            Class logits of every cell, and its box: x and y of the centre relative to the middle of the cell, log width
            and log height, all in cells. There is a row or column of cells for every 8 pixels.
        """
        joined = self.features(images)
        return self.heat(joined), self.box(joined)

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        """Compute the features that heatmaps and boxes are predicted from.

        Args:
            images: RGB in [0, 1]; height and width are multiples of 8.

        Returns:
            The features at stride 8.
        """
        fine = self.fine(images - 0.5)
        coarse = functional.interpolate(self.coarse(fine), size=fine.shape[-2:], mode="nearest")
        joined: torch.Tensor = self.joined(fine + coarse)
        return joined


def decode(
    heat: Float[Tensor, "batch classes rows columns"],
    box: Float[Tensor, "batch 4 rows columns"],
    names: tuple[str, ...],
    threshold: float,
    size: tuple[int, int],
) -> list[list[Detection]]:
    """Turn the network's output into detections.

    A detection is a cell whose score reaches ``threshold`` and is the highest among its eight neighbours, within one
    class. Of several peaks with nearly the same centre, of any class, the best one stays. Objects of one kind are
    counted, not merged.

    Args:
        heat: Class logits, as ``DetectorNet`` predicts them.
        box: Boxes, as ``DetectorNet`` predicts them.
        names: Of the classes.
        threshold: The least score, after the sigmoid.
        size: Height and width of the images in pixels.

    Returns:
        Detections of every image, best first, with boxes in pixels, cut off at the border.
    """
    scores = heat.float().sigmoid()
    peaks = (scores == functional.max_pool2d(scores, 3, stride=1, padding=1)) & (scores >= threshold)
    detections: list[list[Detection]] = [[] for _ in range(len(heat))]
    cells = peaks.nonzero()
    order = scores[peaks].argsort(descending=True, stable=True)
    for n, c, y, x in cells[order].tolist():
        dx, dy, log_width, log_height = box[n, :, y, x].float().tolist()
        centre_x, centre_y = (x + 0.5 + dx) * STRIDE, (y + 0.5 + dy) * STRIDE
        half = torch.tensor([log_width, log_height]).clamp(-4, 4).exp().mul(STRIDE / 2).tolist()
        pixel_box = (centre_x - half[0], centre_y - half[1], centre_x + half[0], centre_y + half[1])
        if any(_same_spot(pixel_box, other.box) for other in detections[n]):
            continue
        detections[n].append(Detection(names[c], float(scores[n, c, y, x]), pixel_box))
    return [[Detection(d.name, d.score, _clipped(d.box, size)) for d in of_image] for of_image in detections]


def _same_spot(a: Box, b: Box) -> bool:
    distance = max(abs(a[0] + a[2] - b[0] - b[2]), abs(a[1] + a[3] - b[1] - b[3])) / 2
    side = sum(v[2] - v[0] + v[3] - v[1] for v in (a, b)) / 4
    return distance < SAME_SPOT * side


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    return (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))


def detector_folder(source: str | None = None) -> Path:
    """Find the folder of the detector's weights.

    Args:
        source: A folder that ``training/train_detector.py`` wrote; None for the packaged one.

    Returns:
        The folder, with config.json and model.safetensors.

    Raises:
        DataError: The folder holds no weights.
    """
    folder = Path(source).expanduser() if source else Path(str(files(__package__).joinpath("data", "detector")))
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise DataError(
                f"there is no {folder / name}; name a folder that training/train_detector.py wrote"
                if source
                else f"this copy of learn_to_steer_emoji has no detector weights ({name}); reinstall it"
            )
    return folder


def load_net(folder: Path, device: torch.device | str = "cpu") -> tuple[DetectorNet, tuple[str, ...], float]:
    """Load a network.

    Args:
        folder: Holds config.json and model.safetensors.
        device: Where the network runs.

    Returns:
        The network (fp32, evaluation mode), the names of its classes, and the least score of a detection.

    Raises:
        DataError: The weights are those of another network.
    """
    config = read_json(folder / "config.json")
    weights, _ = load_tensors(folder / "model.safetensors")
    try:
        names = tuple(config["classes"])
        net = DetectorNet(len(names), tuple(config["widths"]))
        net.load_state_dict({key: v.float() if v.is_floating_point() else v for key, v in weights.items()})
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{folder} holds no detector that train_detector.py wrote ({reason})") from error
    return net.to(device).eval(), names, float(config["threshold"])
