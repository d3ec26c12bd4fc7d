"""Where `fnatool export` gets its modules from: libraries and files, with their checkpoints."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from modules import Capture, Small, error, lively, seen
from torch import nn

from fnatool.cli.main import run
from fnatool.export import sources
from fnatool.files import model as files
from fnatool.model.analysed import metadata
from passes.errors import UserError

MODULE = """
    import torch
    from helper import WIDTH

    def small():
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Conv2d(3, WIDTH, 3, bias=False), torch.nn.BatchNorm2d(WIDTH), torch.nn.ReLU(),
                                   torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(WIDTH, 5))

    def broken():
        return torch.nn.Conv2d(3, "wide", 3)

    def number():
        return 7
"""


@pytest.fixture
def source(folder: Path) -> Iterator[Path]:
    (folder / "helper.py").write_text("WIDTH = 8\n")
    (folder / "mine.py").write_text(textwrap.dedent(MODULE))
    import sys

    before = list(sys.path)
    yield folder
    sys.path[:] = before
    for name in ("mine", "helper"):
        sys.modules.pop(name, None)


def test_a_function_in_a_file_is_a_source(source: Path, capsys: Capture) -> None:
    assert run(["export", "mine.py:small", "-o", "out.onnx", "--input", "1x3x16x16"]) == 0
    captured = capsys.readouterr()
    assert "parameters 277, BatchNorms 1 (exporter: torch.onnx, traced)" in captured.out
    assert "computes what the module does in ONNX Runtime: drift of the outputs " in captured.out
    assert captured.out.splitlines()[-1] == "→ out.onnx"
    assert [node.name for node in seen().nodes] == ["0", "1", "2", "3", "4", "5"]
    assert json.loads(metadata(files.read("out.onnx").envelope)["fnatool.source"])["source"] == "mine.py:small"
    assert run(["check", "out.onnx"]) == 0


SOURCES: dict[str, tuple[list[str], str]] = {
    "no kind": (["resnet18"], "'resnet18' is no source; give torchvision:NAME, timm:NAME or path/to/file.py:function"),
    "unknown to torchvision": (["torchvision:resnet19"], "torchvision has no model 'resnet19'; did you mean resnet1"),
    "unknown to timm": (["timm:mobilenetv2_10"], "timm has no model 'mobilenetv2_10'; did you mean mobilenetv2_1"),
    "unknown weights": (
        ["torchvision:resnet18", "--weights", "BEST"],
        "torchvision:resnet18 has no weights 'BEST'; there are: DEFAULT, IMAGENET1K_V1",
    ),
    "unknown weights of timm": (
        ["timm:mobilenetv2_100", "--weights", "best"],
        "has no weights 'best'; there are: DEFAULT, ",
    ),
    "weights for other classes": (
        ["torchvision:resnet18", "--weights", "DEFAULT", "--classes", "5"],
        "the weights IMAGENET1K_V1 are for 1000 classes, not 5",
    ),
    "weights twice": (
        ["torchvision:resnet18", "--weights", "DEFAULT", "--checkpoint", "a.pt"],
        "give --weights or --checkpoint, not both",
    ),
    "no file": (["nowhere.py:f"], "there is no file 'nowhere.py'"),
    "no function": (["mine.py:smal"], "'mine.py' has no function 'smal'; did you mean small?"),
    "a function that fails": (["mine.py:broken"], "'mine.py', line 11: broken() failed: TypeError: "),
    "no module": (["mine.py:number"], "number() in 'mine.py' returns int, not a torch.nn.Module"),
    "weights for a function": (["mine.py:small", "--weights", "DEFAULT"], "--weights is for torchvision: and timm:"),
    "classes for a function": (["mine.py:small", "--classes", "3"], "--classes is for torchvision: and timm:"),
    "an input of the wrong form": (["mine.py:small", "--input", "3,224"], "'3,224' is not of the form 1x3x224x224"),
    "an input that does not fit": (
        ["mine.py:small", "--input", "1x4x8x8"],
        "the module does not take an input of 2×4×8×8",
    ),
    "no checkpoint": (["mine.py:small", "--checkpoint", "nowhere.pt"], "there is no checkpoint 'nowhere.pt'"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_cannot_be_is_a_mistake_in_one_line(name: str, source: Path, capsys: Capture) -> None:
    arguments, message = SOURCES[name]
    before = set(source.iterdir())
    assert run(["export", *arguments, "-o", "out.onnx"]) == 2
    assert message in capsys.readouterr().err
    assert {path for path in source.iterdir() if path.name != "__pycache__"} == before


@pytest.mark.parametrize(
    ("text", "line"), [("def f(:\n", 1), ("x = 1\nraise SystemExit(3)\n", 2), ("import nothing_of_the_kind\n", 1)]
)
def test_a_file_that_does_not_run_is_named_with_its_line(text: str, line: int, source: Path, capsys: Capture) -> None:
    (source / "wrong.py").write_text(text)
    assert run(["export", "wrong.py:f", "-o", "out.onnx"]) == 2
    assert f"'wrong.py', line {line}: running it failed: " in error(capsys)


def test_weights_that_cannot_be_downloaded_are_said_so(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("TORCH_HOME", str(folder / "cache"))
    assert run(["export", "torchvision:squeezenet1_1", "--weights", "DEFAULT", "-o", "out.onnx"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("fnatool: the weights IMAGENET1K_V1 of torchvision:squeezenet1_1 could not be loaded: ")
    assert message.endswith("give them with --checkpoint FILE")


def test_nothing_is_overwritten_unless_forced(source: Path, capsys: Capture) -> None:
    Path("out.onnx").write_text("mine")
    assert run(["export", "mine.py:small", "-o", "out.onnx", "--input", "1x3x16x16"]) == 2
    assert "exists; choose another output" in error(capsys)
    assert run(["export", "mine.py:small", "-o", "out.onnx", "--input", "1x3x16x16", "--force"]) == 0


Save = Callable[[dict[str, torch.Tensor]], object]


def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return lively(Small(), seed=5).state_dict()


WRAPPED: dict[str, Save] = {
    "as it is": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "model in state_dict": lambda state: {"state_dict": {"model": state}},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled in parallel": lambda state: {
        "model": {f"module._orig_mod.{name}": value for name, value in state.items()}
    },
    "without counters": lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    "with a loss": lambda state: {
        "epoch": 1,
        "model_state_dict": state,
        "optimizer_state_dict": momentum(),
        "loss": torch.tensor(0.4),
    },
    "with the weights of a loss": lambda state: {
        "state_dict": {**under("model.", state), "criterion.pos_weight": torch.ones(4)}
    },
    "under another name": lambda state: {
        "state_dict": {**under("classifier.backbone.", state), "metric.count": torch.ones(())}
    },
    "with an average": lambda state: {"model": state, "ema": {name: value * 2 for name, value in state.items()}},
    "an average first": lambda state: {"ema": {name: value * 2 for name, value in state.items()}, "model": state},
    "a net and its average": lambda state: {
        "state_dict": {**under("model.", state), **under("averaged.module.", state, 2)}
    },
    "deep inside": lambda state: {"run": {"last": {"my_net": state}}, "mean": torch.zeros(3)},
}


def under(prefix: str, state: dict[str, torch.Tensor], factor: int = 1) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value * factor for name, value in state.items()}


def momentum() -> dict[str, object]:
    return {"state": {0: {"momentum_buffer": torch.zeros(8, 3, 3, 3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_checkpoint_is_unwrapped(name: str, folder: Path) -> None:
    torch.save(WRAPPED[name](trained()), "a.pt")
    module = Small()
    sources.fill(module, Path("a.pt"))
    assert all(torch.equal(value, trained()[key]) for key, value in module.state_dict().items())


def test_what_is_left_out_of_a_checkpoint_is_said(folder: Path) -> None:
    torch.save({"state_dict": {**under("model.", trained()), "criterion.pos_weight": torch.ones(4)}}, "a.pt")
    assert sources.fill(Small(), Path("a.pt")) == (
        "took 'state_dict' out of 'a.pt'",
        "removed the prefix 'model.' from the names in 'a.pt'",
        "left out 1 other tensor(s) of 'a.pt', as 'criterion.pos_weight'",
    )


def test_safetensors_are_read(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(trained(), "a.safetensors")
    module = Small()
    sources.fill(module, Path("a.safetensors"))
    assert torch.equal(module.fc.weight, trained()["fc.weight"])


def test_a_checkpoint_goes_into_the_export(source: Path, capsys: Capture) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))  # fmt: skip
    torch.save({"state_dict": lively(module).state_dict()}, "a.pt")
    assert run(["export", "mine.py:small", "--checkpoint", "a.pt", "--input", "1x3x16x16", "-o", "out.onnx"]) == 0
    assert "note: took 'state_dict' out of 'a.pt'" in capsys.readouterr().out
    assert np.array_equal(seen().values("1.weight"), module[1].weight.detach().numpy())
    assert json.loads(metadata(files.read("out.onnx").envelope)["fnatool.source"])["weights"] == "checkpoint a.pt"


class Evil:
    """A pickle of it writes a file when it is read without care."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harm"),))


def without(key: str) -> Save:
    return lambda state: {name: value for name, value in state.items() if name != key}


def infinite(state: dict[str, torch.Tensor]) -> object:
    state["fc.bias"][2] = float("inf")
    return state


UNFIT: dict[str, tuple[Save, str]] = {
    "code": (
        lambda state: {**state, "more": Evil()},
        "holds more than tensors .* and reading that would run code from it",
    ),
    "a whole module": (lambda _: Small(), "holds more than tensors .*modules.Small"),
    "missing": (without("fc.bias"), "does not fit the model; 1 missing: fc.bias"),
    "left over": (
        lambda state: {**state, "head.weight": torch.zeros(1)},
        "does not fit the model; 1 unexpected: head.weight",
    ),
    "another shape": (
        lambda state: {**state, "fc.weight": torch.zeros(7, 8)},
        r"1 of another shape: fc\.weight \(7×8, the model has 5×8\)",
    ),
    "another network": (lambda _: nn.Linear(2, 2).state_dict(), r"22 missing: .* …; 2 unexpected: weight, bias"),
    "twice": (
        lambda state: {**under("student.", state), **under("teacher.", state, 2)},
        r"holds the model 2 times, as 'student\.\*' and 'teacher\.\*'; save the one that is meant",
    ),
    "twice, in two dictionaries": (
        lambda state: {"g": state, "g_ema": state},
        r"2 times, as 'g → \*' and 'g_ema → \*'",
    ),
    "another network and a loss": (
        lambda _: {"net": nn.Linear(2, 2).state_dict(), "loss": torch.zeros(())},
        "2 unexpected: weight, bias",
    ),
    "no tensors": (lambda _: {"epoch": 3, "loss": 0.5}, "holds no state_dict but dict with the keys epoch, loss"),
    "a list": (lambda _: [1, 2], "holds no state_dict but list"),
    "not finite": (infinite, r"holds infinities or NaN in fc\.bias"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_checkpoint_that_does_not_fit_is_a_mistake(name: str, folder: Path) -> None:
    make, message = UNFIT[name]
    torch.save(make(trained()), "a.pt")
    with pytest.raises(UserError, match=message):
        sources.fill(Small(), Path("a.pt"))
    assert not Path("harm").exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("data", [b"", b"no checkpoint at all", b"PK\x03\x04 half an archive"])
def test_a_file_that_is_no_checkpoint_is_a_mistake(name: str, data: bytes, folder: Path) -> None:
    Path(name).write_bytes(data)
    with pytest.raises(UserError, match=f"'{name}' .*"):
        sources.fill(Small(), Path(name))
