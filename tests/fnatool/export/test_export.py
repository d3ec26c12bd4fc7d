"""`fnatool export`: torch modules as seeds, from libraries, files and Python; what is kept, how it is named, and what
is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from modules import SMALL, Small, lively, seen
from torch import nn

import fnatool
from benchmarks import zoo
from fnatool import ExportOptions
from fnatool.export import sources
from fnatool.export import torch as exporting
from fnatool.files import model as files
from fnatool.model.analysed import analyse_model, metadata
from fnatool.runtime.verify import outputs
from passes.errors import RefusedModel, UserError


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Only the exporter of that name runs."""

    def choose(name: str) -> None:
        monkeypatch.setattr(exporting, "EXPORTERS", {name: exporting.EXPORTERS[name]})

    return choose


# --- what is exported ---


@pytest.mark.parametrize("exporter", exporting.EXPORTERS)
def test_batchnorm_stays_the_batch_is_free_and_names_are_the_modules(
    exporter: str, folder: Path, alone: Callable[[str], None]
) -> None:
    alone(exporter)
    module = lively(Small())
    made = fnatool.export(module, "out.onnx", options=ExportOptions(example=SMALL))
    assert (made.exporter, made.norms) == (exporter, 3)
    assert made.params == sum(p.numel() for p in module.parameters())
    assert [batch for batch, _ in made.drifts] == [1, 3]
    assert all(drift <= 1e-5 for _, drift in made.drifts)
    assert made.compared == 7
    assert made.inner <= 1e-5
    found = seen()
    assert found.inputs["input"][0] == ("N", 3, 16, 16)
    assert found.outputs == ("logits",)
    assert {name for name, _ in module.named_parameters()} <= set(found.constants)
    assert {"blocks.0.bn.running_var", "blocks.1.two"} <= set(found.constants)
    named = {node.name: node.op for node in found.nodes}
    assert {name: named[name] for name in ("stem.0", "stem.1", "blocks.0.conv", "blocks.1.bn", "blocks.0.act", "fc")} == {
        "stem.0": "Conv", "stem.1": "BatchNormalization", "blocks.0.conv": "Conv", "blocks.1.bn": "BatchNormalization",
        "blocks.0.act": "Relu", "fc": "Gemm",
    }  # fmt: skip
    assert named["blocks.0.gamma"] == named["blocks.1.gamma"] == "Mul"
    assert found.by_name["blocks.0.conv"].outputs == ("blocks.0.conv/out",)
    assert not any(node.op in ("Constant", "Identity") for node in found.nodes)


def test_values_are_the_modules_bit_for_bit(folder: Path) -> None:
    module = lively(Small())
    fnatool.export(module, "out.onnx", options=ExportOptions(example=SMALL))
    found = seen()
    state = {k: v.numpy() for k, v in module.state_dict().items() if k in found.constants}
    assert len(state) == 22
    assert all(np.array_equal(found.values(name), values) for name, values in state.items())


def test_parameters_of_equal_values_stay_several(folder: Path) -> None:
    fnatool.export(Small(), "out.onnx", options=ExportOptions(example=SMALL))  # every γ is 1, every β and mean 0
    found = seen()
    assert all(len(found.readers[name]) == 1 for name in found.constants if ".bn." in name)
    assert sum(name.endswith(("bn.weight", "bn.running_var")) for name in found.constants) == 4


def test_parameters_that_are_one_stay_one(folder: Path) -> None:
    module = Small()
    module.blocks[1].get_submodule("conv").weight = module.blocks[0].get_submodule("conv").weight  # type: ignore[assignment]
    made = fnatool.export(module, "out.onnx", options=ExportOptions(example=SMALL))
    assert [len(seen().readers[name]) for name in seen().constants if name.endswith(".conv.weight")] == [2]
    assert made.notes == ()


def test_the_module_is_left_as_it_was(folder: Path) -> None:
    module = lively(Small()).train()
    module.stem.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fnatool.export(module, "out.onnx", options=ExportOptions(example=SMALL))
    assert module.training
    assert not module.stem.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_same_module_gives_the_same_bytes(folder: Path) -> None:
    for name in ("a", "b"):
        fnatool.export(lively(Small()), f"{name}.onnx", options=ExportOptions(example=SMALL))
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


def test_nothing_of_the_machine_gets_into_the_file(folder: Path, alone: Callable[[str], None]) -> None:
    alone("torch.onnx, torch.export")
    fnatool.export(lively(Small()), "out.onnx", options=ExportOptions(example=SMALL))
    data = Path("out.onnx").read_bytes()
    assert os.fsencode(Path(torch.__file__).parent) not in data
    assert b"stack_trace" not in data
    assert b"forward" not in data


def test_the_metadata_say_where_it_comes_from(folder: Path) -> None:
    fnatool.export(
        lively(Small()),
        "out.onnx",
        options=ExportOptions(example=SMALL, metadata={"source": "mine", "weights": "best"}),
    )
    found = json.loads(metadata(files.read("out.onnx").envelope)["fnatool.source"])
    assert found == {"source": "mine", "weights": "best", "torch": torch.__version__, "exporter": "torch.onnx, traced"}


@pytest.mark.parametrize("opset", [11, 17, 20, 21])
def test_the_opset_is_the_one_asked_for(opset: int, folder: Path) -> None:
    fnatool.export(lively(Small()), "out.onnx", options=ExportOptions(example=SMALL, opset=opset))
    assert seen().opset == opset


@pytest.mark.parametrize("opset", [8, 99])
def test_an_opset_that_torch_does_not_write_is_a_mistake(opset: int, folder: Path) -> None:
    with pytest.raises(UserError, match=f"opset {opset} is not one that torch writes; choose 9 to"):
        fnatool.export(Small(), "out.onnx", options=ExportOptions(example=SMALL, opset=opset))


class Dict(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": x * 2, "aux": x.mean((2, 3))}


class Two(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        return [x + y, x - y]


class Named(NamedTuple):
    boxes: torch.Tensor
    none: None


class Tuple(nn.Module):
    def forward(self, x: torch.Tensor) -> Named:
        return Named(x + 1, None)


@pytest.mark.parametrize(
    ("module", "count", "inputs", "names"),
    [
        (Dict(), 1, ["input"], ["out", "aux"]),
        (Two(), 2, ["input_0", "input_1"], ["output_0", "output_1"]),
        (nn.Sequential(nn.Conv2d(3, 3, 1)), 1, ["input"], ["logits"]),
    ],
    ids=["a dictionary", "two of each", "one tensor"],
)
def test_inputs_and_outputs_are_named(
    module: nn.Module, count: int, inputs: list[str], names: list[str], folder: Path
) -> None:
    fnatool.export(module, "out.onnx", options=ExportOptions(example=(SMALL,) * count))
    found = onnx.load("out.onnx").graph
    assert [value.name for value in found.input] == inputs
    assert [value.name for value in found.output] == names
    assert all(value.type.tensor_type.shape.dim[0].dim_param == "N" for value in (*found.input, *found.output))


class Stretches(nn.Module):
    """From 2×2 to 7×7, which only one of the exporters writes; the other prints pages about it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(nn.functional.avg_pool2d(x, 8), 7)


def test_where_one_exporter_fails_the_other_is_asked_and_nothing_else_is_printed(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = fnatool.export(Stretches(), "out.onnx", options=ExportOptions(example=SMALL))
    assert made.exporter == "torch.onnx, torch.export"
    assert capfd.readouterr() == ("", "")


def test_where_none_may_the_first_useful_line_of_each_says_why(folder: Path) -> None:
    with pytest.raises(
        RefusedModel, match=r"in opset 17 \(torch\.onnx, traced: SymbolicValueError: .*output size that are not factor"
    ):
        fnatool.export(Stretches(), "out.onnx", options=ExportOptions(example=SMALL, opset=17))


class Folds(nn.Module):
    """Pads with zeros what is below zero, and takes the maximum: ONNX Runtime would fuse the pads into pads of −∞."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ConstantPad2d(1, 0.0)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.pad(x - 10))


def test_a_zero_that_is_padded_stays_a_zero_in_onnx_runtime(folder: Path) -> None:
    made = fnatool.export(Folds(), "out.onnx", options=ExportOptions(example=SMALL))
    assert max(drift for _, drift in made.drifts) == 0
    assert outputs(Path("out.onnx"), {"input": np.zeros((1, 3, 16, 16), np.float32)})["logits"].max() == 0


# --- what is refused ---


class Turns(nn.Module):
    """Goes another way for another input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.flatten()[0]) > 0 else x / 2


class Sums(nn.Module):
    """A loop over data, which no exporter follows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while float(x.abs().sum()) > 1:
            x = x / 2
        return x


@pytest.mark.parametrize("module", [Turns(), Sums()], ids=["a choice", "a loop"])
def test_a_graph_that_computes_something_else_is_refused_saying_how_far(module: nn.Module, folder: Path) -> None:
    with pytest.raises(RefusedModel, match=r"output 'logits' is \d\.\de[-+]\d\d of its spread off at batch"):
        fnatool.export(module, "out.onnx", options=ExportOptions(example=SMALL))
    assert list(folder.iterdir()) == []


def test_a_planted_error_is_refused(
    folder: Path, alone: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, low, high = exporting.EXPORTERS["torch.onnx, traced"]

    def wrong(task: exporting._Task) -> onnx.ModelProto:
        proto = convert(task)
        norm = next(node for node in proto.graph.node if node.op_type == "BatchNormalization")
        next(attribute for attribute in norm.attribute if attribute.name == "epsilon").f = 1e-2
        return proto

    monkeypatch.setattr(exporting, "EXPORTERS", {"wrong": (wrong, low, high)})
    with pytest.raises(RefusedModel, match="wrong: output 'logits' is"):
        fnatool.export(lively(Small()), "out.onnx", options=ExportOptions(example=SMALL))


def test_an_error_that_no_output_shows_is_refused_and_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert, low, high = exporting.EXPORTERS["torch.onnx, traced"]

    def wrong(task: exporting._Task) -> onnx.ModelProto:
        proto = convert(task)
        bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "stem.0.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
        return proto

    monkeypatch.setattr(exporting, "EXPORTERS", {"wrong": (wrong, low, high)})
    module = lively(Small())
    with torch.no_grad():
        module.get_submodule("fc").get_parameter("weight").zero_()  # as some networks begin
    with pytest.raises(
        RefusedModel, match=r"wrong: the output of 'stem\.0' is \d\.\de-\d\d of its spread off at batch 1"
    ):
        fnatool.export(module, "out.onnx", options=ExportOptions(example=SMALL))


def test_an_export_that_folds_batchnorm_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folded(task: exporting._Task) -> onnx.ModelProto:
        program = torch.onnx.export(task.module, task.example, dynamo=True, opset_version=18, input_names=["input"], output_names=["logits"], verbose=False)  # fmt: skip
        assert program is not None
        proto: onnx.ModelProto = program.model_proto
        return proto

    monkeypatch.setattr(exporting, "EXPORTERS", {"folded": (folded, 18, 18)})
    with pytest.raises(RefusedModel, match="only 0 of 3 BatchNorms are left"):
        fnatool.export(lively(Small()), "out.onnx", options=ExportOptions(example=SMALL))


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (
            Small(),
            torch.zeros(1, 4, 16, 16),
            "the module does not take an input of 2×4×16×16: RuntimeError: .*--input gives another shape",
        ),
        (Small(), torch.zeros(1, 3, 0, 16), "no axis of size 0"),
        (Tuple(), torch.zeros(1, 3), None),
        (nn.Flatten(), torch.zeros(1, 3, 2), None),
    ],
    ids=["channels", "empty", "a named tuple", "no weights"],
)
def test_what_the_module_does_not_take_is_a_mistake(
    module: nn.Module, example: torch.Tensor, message: str | None, folder: Path
) -> None:
    if message is None:
        fnatool.export(module, "out.onnx", options=ExportOptions(example=example))
        return
    with pytest.raises(UserError, match=message):
        fnatool.export(module, "out.onnx", options=ExportOptions(example=example))


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


def test_a_module_must_be_a_function(folder: Path) -> None:
    with pytest.raises(UserError, match="computes something else each time it runs"):
        fnatool.export(Noisy(), "out.onnx", options=ExportOptions(example=SMALL))


class Text(nn.Module):
    def forward(self, x: torch.Tensor) -> str:
        return "cat"


def test_a_module_must_return_tensors(folder: Path) -> None:
    with pytest.raises(UserError, match="the module returns str"):
        fnatool.export(Text(), "out.onnx", options=ExportOptions(example=SMALL))


def test_weights_that_are_not_numbers_are_refused(folder: Path) -> None:
    module = Small()
    with torch.no_grad():
        module.fc.bias[0] = float("nan")
    with pytest.raises(UserError, match="infinities or NaN for standard normal noise"):
        fnatool.export(module, "out.onnx", options=ExportOptions(example=SMALL))


# --- real networks ---

NETWORKS = (
    "timm:resnet18",
    "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x1_0",
    "timm:ghostnet_100",
    "timm:nf_resnet26",
)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_every_batchnorm_and_computes_the_same(name: str, folder: Path) -> None:
    module = zoo.network(name)
    side = zoo.NETWORKS[name]
    made = fnatool.export(module, "out.onnx", options=ExportOptions(example=torch.zeros(1, 3, side, side)))
    kept = sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    assert made.norms >= kept
    assert all(drift <= 2e-5 for _, drift in made.drifts)
    assert made.inner <= 2e-5
    assert made.compared > 20 or name == "timm:nf_resnet26"
    analysis = analyse_model(files.read("out.onnx"))
    modules = {path for path, _ in module.named_modules()}
    convs = [node.name for node in analysis.view.nodes if node.op == "Conv"]
    assert set(convs) <= modules
    assert len(convs) == sum(isinstance(part, nn.Conv2d) for part in module.modules())


@pytest.mark.parametrize(
    ("name", "size"), [("torchvision:inception_v3", 299), ("timm:inception_v3", 299), ("torchvision:resnet18", 224)]
)
def test_the_size_of_the_input_is_the_models_own(name: str, size: int) -> None:
    found = sources.load(name)
    assert found.size == (3, size, size)
    assert found.weights == "random"
    assert len(found.mean) == len(found.scale) == 3


def test_the_number_of_classes_is_the_one_asked_for() -> None:
    assert sources.load("torchvision:resnet18", classes=7).module.get_submodule("fc").out_features == 7
    assert sources.load("timm:resnet18", classes=7).module.get_submodule("fc").out_features == 7
