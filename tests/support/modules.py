"""Small torch modules with what exporters have trouble with, and what a refused export looks like."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fnatool.files import model as files
from passes.graph.view import View, view

Capture = pytest.CaptureFixture[str]


SMALL = torch.zeros(1, 3, 16, 16)


class Block(nn.Module):
    """conv, BatchNorm and an addition, with what exporters have trouble with: a split, a fresh constant, a buffer, a
    scale of its own.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), 0.5))
        self.register_buffer("two", torch.full((1, channels, 1, 1), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.bn(self.conv(x)).chunk(2, dim=1)
        return self.act(x + torch.cat((other, one), dim=1) * self.gamma * self.two)


class Small(nn.Module):
    """A stem, a container of two blocks, and a classifier."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.SiLU())
        self.blocks = nn.ModuleList([Block(8), Block(8)])
        self.fc = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with parameters and statistics that are not their initial ones."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.1)
                part.get_buffer("running_mean").normal_(0, 0.1)
                part.get_buffer("running_var").uniform_(0.5, 1.5)
    return module


def seen(path: str = "out.onnx") -> View:
    return view(files.read(path).graph)


def error(capsys: Capture) -> str:
    """The one message, in which nothing looks like an accident."""
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.startswith("fnatool: ")
    assert captured.err.count("\n") == 1
    return captured.err
