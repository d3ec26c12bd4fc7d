"""Multiply-adds equal what torch counts on its own network: exactly, for every kind of layer and by either exporter."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import zoo
from fnatool.files import model as files
from fnatool.files.tensors import Array
from passes.network.profile import Profile, profile


class Layers(torch.nn.Module):
    """Dense, grouped, depthwise, dilated and transposed convolutions, and a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        conv, transposed = torch.nn.Conv2d, torch.nn.ConvTranspose2d
        self.down = torch.nn.Sequential(
            conv(3, 16, 3, 2, 1), conv(16, 32, 3, groups=4, padding=1), conv(32, 32, 5, groups=32, padding=2)
        )
        self.dilated = conv(32, 16, 3, dilation=2, bias=False)
        self.up = torch.nn.Sequential(
            transposed(16, 24, 4, 2, 1, output_padding=1, groups=4), transposed(24, 8, 3, dilation=2, bias=False)
        )
        self.classifier = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.classifier(self.up(self.dilated(self.down(x).relu())).mean((2, 3)))
        return found


class Attention(torch.nn.Module):
    """Attention over the positions of a map: matrix products with several batch axes, einsum, fully connected layers on
    three axes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 24, 8, 8)
        self.qkv = torch.nn.Linear(24, 72)
        self.mix = torch.nn.Parameter(torch.randn(3, 8, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(1, -1, 3, 3, 8).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(q, k, v)
        mixed = torch.einsum("bhnd,hde->bhne", read, self.mix)
        return torch.einsum("bhne,bhme->bhnm", mixed, mixed).softmax(-1) @ mixed


def counted(network: torch.nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds by torch, which counts two operations each."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x)
    return int(counter.get_total_flops()) // 2


def exported(network: torch.nn.Module, x: torch.Tensor, opset: int = 0) -> Profile:
    """The profile of the network as the older exporter writes it, or the newer one where an opset is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if opset:
            program = torch.onnx.export(network, (x,), dynamo=True, opset_version=opset, verbose=False)
            assert program is not None
            data = program.model_proto.SerializeToString()
        else:
            buffer = io.BytesIO()
            torch.onnx.export(network, (x,), buffer, dynamo=False, opset_version=17)  # type: ignore[arg-type]
            data = buffer.getvalue()
    return profile(files.import_graph(*parsed(data)))


def parsed(data: bytes) -> tuple[files.onnx.ModelProto, dict[str, Array]]:
    proto = files.onnx.ModelProto.FromString(data)
    return proto, {tensor.name: files.onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("kind", [Layers, Attention])
@pytest.mark.parametrize("opset", [0, 20, 23])  # from 23 attention is one operator
def test_every_kind_of_layer_costs_what_torch_counts(kind: type[torch.nn.Module], opset: int) -> None:
    network, x = kind().eval(), torch.randn(1, 3, 48, 32)
    found = exported(network, x, opset)
    assert found.whole.macs == counted(network, x)
    assert found.whole.params == sum(parameter.numel() for parameter in network.parameters())


def test_a_layer_more_is_seen() -> None:
    network, x = Layers().eval(), torch.randn(1, 3, 48, 32)
    found = exported(network, x).whole.macs
    network.down.append(torch.nn.Conv2d(32, 32, 1))
    assert found != counted(network, x)


NETWORKS = [
    "torchvision:mobilenet_v3_small",  # depthwise, squeeze-excite
    "torchvision:regnet_y_400mf",  # grouped
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:lraspp_mobilenet_v3_large",  # two heads of a segmentation network
    "timm:convnext_atto",  # fully connected layers on maps
    "timm:resnest14d",  # split attention
    "timm:repvit_m0_9",
    "timm:mobilevit_xxs",  # attention
]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_costs_what_torch_counts(name: str) -> None:
    library, _, model = name.partition(":")
    network = (zoo._timm if library == "timm" else zoo._torchvision)(model).eval()
    x = torch.randn(1, 3, 64, 96)
    found = exported(network, x)
    assert found.whole.macs == counted(network, x)
    assert tuple(map(sum, zip(*((part.macs, part.params) for part in found.parts), strict=True))) == (
        found.whole.macs,
        found.whole.params,
    )
