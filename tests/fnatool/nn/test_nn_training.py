"""A step of training of the loaded module is a step of the torch network that was exported: loss, gradients,
statistics, memory.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F

from benchmarks import zoo
from fnatool import nn

SIZE = 64
BATCH = 4
TOLERANCE = 1e-5  # of the largest entry

NETWORKS = (
    "timm:resnet18",
    "timm:mobilenetv2_100",
    "timm:mobilenetv3_large_100",
    "timm:efficientnet_b0",
    "timm:regnety_004",
)
EXPORTS = [zoo.Export(name, "legacy", 20, "static", SIZE, variant="bn") for name in NETWORKS]
EXPORTS += [
    zoo.Export("timm:resnet18", variant="bn"),
    zoo.Export("timm:convnext_atto", "legacy", 20, "static", SIZE, variant="bn"),
]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, 3, SIZE, SIZE, generator=rng), torch.arange(BATCH)


def step(module: torch.nn.Module) -> float:
    """The loss of one step of SGD in train mode."""
    images, labels = batch()
    module.train()
    loss = F.cross_entropy(module(images), labels)
    loss.backward()
    torch.optim.SGD(module.parameters(), 0.01, momentum=0.9).step()
    return float(loss.detach())


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """max |a − b| of max |b|."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def differences(module: torch.nn.Module, native: torch.nn.Module) -> dict[str, float]:
    """How far apart gradients, and parameters and statistics after the step, are."""
    mine, theirs = dict(module.named_parameters()), dict(native.named_parameters())
    assert set(mine) == set(theirs)
    found = {f"gradient of {key}": apart(mine[key].grad, theirs[key].grad) for key in mine}  # type: ignore[arg-type]
    state = module.state_dict()
    counted = {key: value for key, value in native.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert set(state) == set(counted)
    return found | {key: apart(state[key], value) for key, value in counted.items()}


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: zoo.place(export).stem)
def test_a_training_step_is_that_of_the_exported_network(export: zoo.Export, tmp_path: Path) -> None:
    module, native = nn.load(zoo.cached(export)), zoo.network(export.name)
    assert step(module) == pytest.approx(step(native), rel=1e-6)
    found = differences(module, native)
    assert {name: value for name, value in found.items() if not value < TOLERANCE} == {}
    nn.save(module, tmp_path / "trained.onnx")
    images = batch()[0][:1]
    session = ort.InferenceSession(str(tmp_path / "trained.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = native.eval()(images).numpy()
    assert np.abs(session.run(None, {"x": images.numpy()})[0] - expected).max() < 1e-4 * np.ptp(expected)


def test_another_epsilon_in_one_layer_would_be_noticed() -> None:
    module, native = nn.load(zoo.cached(EXPORTS[0])), zoo.network(EXPORTS[0].name)
    native.get_submodule("layer2.0.bn1").eps = 2e-2
    step(module)
    step(native)
    assert max(differences(module, native).values()) > TOLERANCE


def saved_bytes(module: torch.nn.Module) -> int:
    """What a forward pass keeps for the gradients, each piece of memory once, beside the parameters."""
    kept: dict[int, int] = {}
    own = {value.untyped_storage().data_ptr() for value in (*module.parameters(), *module.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = module.train()(batch()[0])
    total = sum(kept.values())
    del output
    return total


@pytest.mark.parametrize(
    "name", ["timm:resnet50", "timm:mobilenetv2_100", "timm:mobilenetv3_large_100", "timm:efficientnet_b0"]
)
def test_no_more_is_kept_for_the_gradients_than_by_the_exported_network(name: str) -> None:
    module, native = (
        nn.load(zoo.cached(zoo.Export(name, "legacy", 20, "static", SIZE, variant="bn"))),
        zoo.network(name),
    )
    assert saved_bytes(module) <= 1.01 * saved_bytes(native)


def test_an_activation_in_two_operators_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    native = zoo.network("timm:efficientnet_b0")
    monkeypatch.setattr("fnatool.nn.program.fused", lambda nodes, *_: list(nodes))
    wasteful = nn.load(zoo.cached(zoo.Export("timm:efficientnet_b0", "legacy", 20, "static", SIZE, variant="bn")))
    assert saved_bytes(wasteful) > 1.01 * saved_bytes(native)


def test_the_step_after_a_copy_is_the_same() -> None:
    module = nn.load(zoo.cached(EXPORTS[0]))
    twin = copy.deepcopy(module)
    assert step(module) == step(twin)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), twin.state_dict().values(), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_training_step_on_a_gpu_is_that_of_the_exported_network() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for export in EXPORTS[:2]:
        module, native = nn.load(zoo.cached(export)).double().cuda(), zoo.network(export.name).double().cuda()
        images, labels = (part.cuda() for part in batch())
        for network in (module, native):
            F.cross_entropy(network.train()(images.double()), labels).backward()
        gradients = {key: parameter.grad for key, parameter in native.named_parameters()}
        assert all(apart(parameter.grad, gradients[key]) < TOLERANCE for key, parameter in module.named_parameters())  # type: ignore[arg-type]
