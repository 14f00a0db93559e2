"""A small centre-point network that finds sprites, and how its output is read.

Every object is the peak of its class's heatmap at stride 8. At the peak the network also says where inside the cell the
centre lies and how large the box is. Weights are in ``data/detector``, made by ``training/train_detector.py``.

*Source:* Zhou et al., "Objects as Points", arXiv 1904.07850.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, Detection
from learn_to_steer.storage import load_tensors, read_json

STRIDE = 8
SAME_SPOT = 0.25  # share of two boxes' mean side: peaks with closer centres are one object seen twice


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
    """Pictures (n, 3, H, W) in [0, 1] -> class logits (n, classes, h, w) and boxes (n, 4, h, w), h = H / 8.

    Box channels: centre x and y in cells relative to the middle of the cell, then log width and log height in cells.
    H and W must be multiples of 8. The coarsest level sees the whole object before it is added back at stride 8.

    Args:
        classes: Number of kinds of objects.
        widths: Channels at strides 2, 4, 8 and 16.
    """

    def __init__(self, classes: int, widths: tuple[int, int, int, int] = (32, 48, 96, 128)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.fine = nn.Sequential(_halve(3, a), _halve(a, b), _Residual(b), _halve(b, c), _Residual(c), _Residual(c))
        self.coarse = nn.Sequential(_halve(c, d), _Residual(d), _Residual(d), nn.Conv2d(d, c, 1))
        self.joined = nn.Sequential(_Residual(c), _Residual(c))
        self.heat = nn.Conv2d(c, classes, 1)
        self.box = nn.Conv2d(c, 4, 1)
        nn.init.constant_(self.heat.bias, -4.6)  # type: ignore[arg-type]  # a prior of 1 %, or focal loss starts by exploding

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = self.features(pictures)
        return self.heat(joined), self.box(joined)

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features (n, channels, h, w) that heatmap and boxes are read from."""
        fine = self.fine(pictures - 0.5)
        coarse = functional.interpolate(self.coarse(fine), size=fine.shape[-2:], mode="nearest")
        joined: torch.Tensor = self.joined(fine + coarse)
        return joined


def decode(
    heat: torch.Tensor, box: torch.Tensor, names: tuple[str, ...], threshold: float, size: tuple[int, int]
) -> list[list[Detection]]:
    """Read detections off the network's output.

    A detection is a cell that beats its eight neighbours in its class and reaches ``threshold``. Of peaks on the same
    spot, of any class, the best one stays. Several objects of one kind are all kept.

    Args:
        heat: Class logits (n, classes, h, w).
        box: Boxes (n, 4, h, w), as ``DetectorNet`` gives them.
        names: Of the classes.
        threshold: The least score after the sigmoid.
        size: Height and width of the pictures, in pixels.

    Returns:
        Detections of every picture, best first, boxes in pixels and inside the picture.
    """
    scores = heat.float().sigmoid()
    peaks = (scores == functional.max_pool2d(scores, 3, stride=1, padding=1)) & (scores >= threshold)
    found: list[list[Detection]] = [[] for _ in range(len(heat))]
    where = peaks.nonzero()
    order = scores[peaks].argsort(descending=True, stable=True)
    for n, c, y, x in where[order].tolist():
        dx, dy, log_width, log_height = box[n, :, y, x].float().tolist()
        centre_x, centre_y = (x + 0.5 + dx) * STRIDE, (y + 0.5 + dy) * STRIDE
        half = torch.tensor([log_width, log_height]).clamp(-4, 4).exp().mul(STRIDE / 2).tolist()
        around = (centre_x - half[0], centre_y - half[1], centre_x + half[0], centre_y + half[1])
        if any(_same_spot(around, other.box) for other in found[n]):
            continue
        found[n].append(Detection(names[c], float(scores[n, c, y, x]), around))
    return [[Detection(d.name, d.score, _clipped(d.box, size)) for d in picture] for picture in found]


def _same_spot(a: Box, b: Box) -> bool:
    apart = max(abs(a[0] + a[2] - b[0] - b[2]), abs(a[1] + a[3] - b[1] - b[3])) / 2
    side = sum(v[2] - v[0] + v[3] - v[1] for v in (a, b)) / 4
    return apart < SAME_SPOT * side


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    return (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))


def detector_folder(source: str | None = None) -> Path:
    """The folder of the packaged detector, or ``source``.

    Raises:
        DataError: The folder holds no weights.
    """
    folder = Path(source).expanduser() if source else Path(str(files(__package__).joinpath("data", "detector")))
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise DataError(
                f"there are no detector weights ({folder / name}); name a folder that train_detector.py wrote"
                if source
                else f"this copy of learn_to_steer_emoji has no detector weights ({name}); reinstall it"
            )
    return folder


def load_net(folder: Path, device: torch.device | str = "cpu") -> tuple[DetectorNet, tuple[str, ...], float]:
    """Load a network.

    Args:
        folder: With config.json and model.safetensors.
        device: Where it runs.

    Returns:
        The network in fp32 and evaluation mode, its class names and its score threshold.

    Raises:
        DataError: The weights are those of something else.
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
