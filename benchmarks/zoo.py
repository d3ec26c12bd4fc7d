"""Many real topologies as ONNX: timm's and torchvision's CNNs as torch exports them, and the light graphs of onnx.

Nothing is downloaded: weights are drawn from a seed, at realistic scale. He-scaled weights keep the variance
(var(w) = 2 / fan_in); BatchNorm statistics are those of its own input, off by a random part; everything that
frameworks initialise to zero or one (last BatchNorm of a branch, layer scale, biases) is drawn as well.
So values stay of order one through the depth and a wrongly wired channel shows.
Models are built once and kept in $FNATOOL_ZOO, or ~/.cache/fnatool/zoo.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import math
import os
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

if TYPE_CHECKING:
    import torch

# name -> side of the square input in pixels: small where the network allows
NETWORKS: dict[str, int] = {
    "timm:resnet18": 64,
    "timm:mobilenetv2_100": 64,
    "timm:mobilenetv3_large_100": 64,
    "timm:efficientnet_b0": 64,
    "timm:mnasnet_100": 64,
    "timm:spnasnet_100": 64,
    "timm:fbnetc_100": 64,
    "timm:resnet50": 64,
    "timm:resnext50_32x4d": 64,
    "timm:regnety_004": 64,
    "timm:densenet121": 64,
    "timm:vgg11_bn": 224,
    "timm:inception_v3": 128,
    "timm:convnext_atto": 64,
    "torchvision:shufflenet_v2_x1_0": 64,
    "timm:res2net50_26w_4s": 64,
    "timm:mixnet_s": 64,
    "timm:cspdarknet53": 64,
    "torchvision:squeezenet1_1": 64,
    "torchvision:googlenet": 64,
    "light:bvlc_alexnet": 224,
    "light:densenet121": 224,
    "light:inception_v1": 224,
    "light:inception_v2": 224,
    "light:resnet50": 224,
    "light:shufflenet": 224,
    "light:squeezenet": 224,
    "light:vgg19": 224,
    "light:zfnet512": 224,
    "timm:tinynet_e": 64,
    "timm:ghostnet_100": 64,
    "timm:hardcorenas_a": 64,
    "timm:efficientnet_lite0": 64,
    "timm:seresnet50": 64,
    "timm:legacy_seresnet18": 64,
    "timm:dla34": 64,
    "timm:hrnet_w18_small": 64,
    "timm:repvgg_a0": 64,
    "timm:selecsls42": 64,
    "timm:xception41": 64,
    "timm:nf_resnet26": 64,
    "timm:nf_regnet_b0": 64,
    "timm:eca_nfnet_l0": 64,
    "timm:resnetv2_50": 64,
    "timm:resnetv2_50x1_bit": 64,
    "timm:skresnet18": 64,
    "timm:resnest14d": 64,
    "timm:ese_vovnet19b_dw": 64,
    "timm:dpn68": 64,
    "timm:darknet53": 64,
    "timm:lcnet_050": 64,
    "timm:mobileone_s0": 64,
    "timm:edgenext_xx_small": 64,
    "timm:convnextv2_atto": 64,
    "timm:poolformerv2_s12": 64,
    "torchvision:mnasnet1_0": 64,
    "torchvision:regnet_y_400mf": 64,
    "torchvision:vgg11": 224,
    "torchvision:alexnet": 224,
    "torchvision:fcn_resnet50": 64,
    "torchvision:lraspp_mobilenet_v3_large": 64,
    "torchvision:deeplabv3_mobilenet_v3_large": 64,
    "torchvision:mobilenet_v2": 64,
    "torchvision:mobilenet_v3_small": 64,
    "torchvision:efficientnet_b0": 64,
    "torchvision:densenet121": 64,
    "torchvision:inception_v3": 128,
    "torchvision:convnext_tiny": 64,
    "timm:resnet10t": 64,
    "timm:resnet50_gn": 64,
    "timm:resnetblur18": 64,
    "timm:ecaresnet26t": 64,
    "timm:gcresnext26ts": 64,
    "timm:cspresnet50": 64,
    "timm:cs3darknet_focus_s": 64,
    "timm:regnetx_002": 64,
    "timm:regnetz_005": 64,
    "timm:gernet_s": 64,
    "timm:efficientnetv2_rw_t": 64,
    "timm:tf_mobilenetv3_small_minimal_100": 64,
    "timm:mobilenetv1_100": 64,
    "timm:mobilenetv4_conv_small": 64,
    "timm:mobilenet_edgetpu_v2_xs": 64,
    "timm:semnasnet_075": 64,
    "timm:fbnetv3_b": 64,
    "timm:rexnet_100": 64,
    "timm:ghostnetv2_100": 64,
    "timm:repghostnet_050": 64,
    "timm:repvit_m0_9": 64,
    "timm:fastvit_t8": 64,
    "timm:fasternet_t0": 64,
    "timm:starnet_s1": 64,
    "timm:hgnetv2_b0": 64,
    "timm:lcnetv2_small": 64,
    "timm:inception_v4": 128,
    "timm:inception_next_atto": 64,
    "timm:rdnet_tiny": 64,
    "timm:mambaout_femto": 64,
    "timm:vgg11": 224,
}

# plain     the weights as initializers, BatchNorm as the exporter leaves it (both fold it into convolutions)
# bn        BatchNorm kept
# shared    BatchNorm kept, and all those of one width share γ and β
# half      everything in float16
# stored    weights stored in float16, each cast to float32 before use
# constants weights in Constant nodes instead of initializers
VARIANTS: tuple[str, ...] = ("plain", "bn", "shared", "half", "stored", "constants")

EXPORTERS: tuple[str, ...] = ("dynamo", "legacy", "wheel")
LEAST_VARIANCE = 0.1  # of a channel, in means over channels: a nearly dead one is not blown up
LIGHT_IMAGES = 6  # for the statistics of the light graphs
RUNTIME_NEWEST = 26  # what ONNX Runtime 1.31 runs; onnx itself is ahead
DYNAMO_OLDEST = 18  # below, torch.onnx converts and silently stays at 18 where that fails


@dataclass(frozen=True)
class Export:
    """One model of the zoo; `size` None means the network's own in NETWORKS."""

    name: str
    exporter: str = "dynamo"
    opset: int = 20
    batch: str = "static"
    size: int | None = None
    seed: int = 0
    variant: str = "plain"


# What torch cannot export, and why
FAILS: dict[Export, str] = {
    Export(
        "timm:resnet18", opset=13
    ): "torch writes opset 18 at least; the onnx converter has no way from 14 to 13 for Relu",
    Export(
        "timm:mobilenetv2_100", opset=13
    ): "torch writes opset 18 at least; the onnx converter has no way from 14 to 13 for Add",
    Export("timm:densenet121", opset=14): "the onnx converter has no way from 15 to 14 for BatchNormalization",
    Export("torchvision:shufflenet_v2_x1_0", opset=14): "the onnx converter has no way from 18 to 17 for Split",
    Export("timm:mixnet_s", opset=16): "the onnx converter has no way from 18 to 17 for Split",
}


def build(export: Export) -> onnx.ModelProto:
    """The network as ONNX in exactly this opset, input (1 or free, 3, size, size), its output finite and of order one.

    Raises ValueError for an unknown choice or an output out of scale, and what the exporter and onnx.checker raise.
    """
    _validate(export)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = _light(export) if export.name.startswith("light:") else _exported(export)
        if _opset(proto) != export.opset:
            proto = _converted(proto, export.opset)
        proto = _transformed(proto, export.variant)
    onnx.checker.check_model(proto)
    return proto


def cached(export: Export) -> Path:
    """Where this model lies in the cache; built and written in one step where it was not there."""
    target = place(export)
    if target.exists():
        return target
    proto = build(export)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, suffix=".part")
    os.close(descriptor)
    try:
        onnx.save(proto, temporary)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink()
        raise
    return target


def place(export: Export) -> Path:
    """The file of this model in the cache, there or not."""
    folder = Path(os.environ.get("FNATOOL_ZOO") or Path.home() / ".cache" / "fnatool" / "zoo")
    side = export.size or NETWORKS[export.name]
    parts = [export.name.replace(":", "."), export.exporter, f"op{export.opset}", export.batch, str(side)]
    parts += [f"s{export.seed}"] if export.seed else []
    parts += [export.variant] if export.variant != "plain" else []
    return folder / ("-".join(parts) + ".onnx")


def _validate(export: Export) -> None:
    if export.name not in NETWORKS:
        raise ValueError(f"{export.name!r} is not in the zoo; 'python -m benchmarks.zoo list' lists {len(NETWORKS)}")
    exporters = ("wheel",) if export.name.startswith("light:") else ("dynamo", "legacy")
    choices = (
        ("exporter", export.exporter, exporters),
        ("batch", export.batch, ("static",) if export.exporter == "wheel" else ("static", "free")),
        ("variant", export.variant, VARIANTS),
    )
    for what, given, allowed in choices:
        if given not in allowed:
            raise ValueError(f"{what} {given!r} of {export.name}: choose one of {', '.join(allowed)}")


# ---------------------------------------------------------------- torch


def network(name: str, *, seed: int = 0) -> torch.nn.Module:
    """The torch network in eval mode, its weights drawn at realistic scale from the seed."""
    import torch

    library, _, model_name = name.partition(":")
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _timm(model_name) if library == "timm" else _torchvision(model_name)
    return redraw(model.eval(), NETWORKS[name], seed=seed)


def _timm(name: str) -> torch.nn.Module:
    import timm

    model: torch.nn.Module = timm.create_model(name, pretrained=False)
    return model


def _torchvision(name: str) -> torch.nn.Module:
    import torch
    import torchvision  # type: ignore[import-untyped]

    class Segmentation(torch.nn.Module):
        """Only the map of scores, of the dict that torchvision's segmentation networks return."""

        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.model(x)["out"]
            return scores

    segments = name in torchvision.models.list_models(module=torchvision.models.segmentation)
    options: dict[str, bool | None] = {"weights": None}
    if segments:
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):  # the classifiers for training only are not exported
        options |= {"aux_logits": False, "init_weights": False}
    model: torch.nn.Module = torchvision.models.get_model(name, **options)
    return Segmentation(model) if segments else model


def redraw(model: torch.nn.Module, size: int, *, seed: int) -> torch.nn.Module:
    """The model with every parameter and BatchNorm statistic drawn anew, checked on images that it was not fitted to.

    Raises ValueError where its output is not finite or its spread not within 1e-3 … 1e3.
    """
    import torch

    rng = torch.Generator().manual_seed(seed)
    hooks = []
    with torch.no_grad():
        for module in model.modules():
            for key, parameter in module.named_parameters(recurse=False):
                parameter.copy_(_drawn(module, key, parameter, rng))
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                hooks.append(module.register_forward_pre_hook(lambda m, args: _calibrate(m, args[0], rng)))
        images = 32 if size <= 128 else 8  # the last maps of small images are 2 x 2: few values for a statistic
        model(torch.randn(images, 3, size, size, generator=rng))
        for hook in hooks:
            hook.remove()
        _in_scale(model(torch.randn(2, 3, size, size, generator=rng)).numpy())
    return model


def _drawn(module: torch.nn.Module, key: str, parameter: torch.nn.Parameter, rng: torch.Generator) -> torch.Tensor:
    """New values for a parameter, by what it is."""
    import torch

    normal: torch.Tensor = torch.randn(parameter.shape, generator=rng)
    is_norm = "norm" in type(module).__name__.lower()
    if key.endswith(("bias", "beta")):
        return normal * 0.1
    if isinstance(module, torch.nn.PReLU):
        return normal * 0.05 + 0.25
    if is_norm and parameter.dim() == 1:
        return torch.rand(parameter.shape, generator=rng) + 0.5
    if key == "weight" and parameter.dim() > 1:
        return normal * math.sqrt(2 / parameter[0].numel())  # He: var(w) = 2 / fan_in
    if parameter.numel() == 1:
        return parameter.detach()
    if max(parameter.shape) == parameter.numel():
        return normal * 0.3 + 0.5  # layer scale, gains of a branch
    return normal / math.sqrt(parameter.shape[-1])


def _calibrate(norm: torch.nn.Module, x: torch.Tensor, rng: torch.Generator) -> None:
    """The statistics are those of x per channel, the mean off by N(0, 0.1) spreads, the variance by U(0.5, 1.5)."""
    import torch

    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean, var = x.mean(axes), x.var(axes, correction=0)
    var = var.clamp(min=max(LEAST_VARIANCE * float(var.mean()), 1e-6))
    noise = torch.randn(mean.shape, generator=rng)
    norm.get_buffer("running_mean").copy_(mean + 0.1 * noise * var.sqrt())
    norm.get_buffer("running_var").copy_(var * (torch.rand(mean.shape, generator=rng) + 0.5))


def _share_norms(model: torch.nn.Module) -> None:
    """All BatchNorms of one width have the same γ and the same β, as one parameter."""
    import torch

    first: dict[int, torch.nn.Module] = {}
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.affine:
            same = first.setdefault(module.num_features, module)
            for key in ("weight", "bias"):
                module.register_parameter(key, same.get_parameter(key))


def _exported(export: Export) -> onnx.ModelProto:
    """The network as torch.onnx writes it."""
    import torch

    model = network(export.name, seed=export.seed)
    if export.variant == "shared":
        _share_norms(model)
    keep_norms = export.variant in ("bn", "shared")
    side = export.size or NETWORKS[export.name]
    x = torch.randn(1 if export.batch == "static" else 2, 3, side, side)
    free = export.batch == "free"
    if export.exporter == "dynamo":
        program = torch.onnx.export(
            model,
            (x,),
            dynamo=True,
            opset_version=max(export.opset, DYNAMO_OLDEST),
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("batch")},) if free else None,
            optimize=not keep_norms,
            verbose=False,
        )
        assert program is not None
        proto: onnx.ModelProto = program.model_proto
        return proto
    mode = torch.onnx.TrainingMode
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (x,),
        buffer,  # type: ignore[arg-type]  # this exporter takes a stream
        dynamo=False,
        opset_version=export.opset,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}} if free else None,
        training=mode.PRESERVE if keep_norms else mode.EVAL,
        do_constant_folding=not keep_norms,
    )
    return onnx.load_model_from_string(buffer.getvalue())


# ---------------------------------------------------------------- the light graphs of the onnx wheel


def _light(export: Export) -> onnx.ModelProto:
    """The light graph with drawn weights as initializers (also listed as inputs, as they were) for ConstantOfShape."""
    file_name = f"light_{export.name.partition(':')[2]}.onnx"
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    proto = onnx.load(folder / file_name)
    graph, rng = proto.graph, np.random.default_rng(export.seed)
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    literal = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in constants:
        shapes[node.output[0]] = [int(n) for n in literal[node.input[0]]]
        graph.node.remove(node)
        graph.input.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shapes[node.output[0]]))
    scales = _scales(graph)
    weights = {}
    for name, shape in shapes.items():
        if name in literal and literal[name].dtype != np.float32:
            continue
        normal = rng.standard_normal(shape, dtype=np.float32)
        uniform = rng.random(shape, dtype=np.float32) + np.float32(0.5)
        if len(shape) > 1:
            weights[name] = normal * np.float32((2 / np.prod(shape[1:])) ** 0.5)  # He: var(w) = 2 / fan_in
        else:
            weights[name] = uniform if name in scales else normal * np.float32(0.1)
    unused = {node.input[0] for node in constants}
    kept = [tensor for tensor in graph.initializer if tensor.name not in unused and tensor.name not in weights]
    _replace_initializers(graph, kept + [numpy_helper.from_array(array, name) for name, array in weights.items()])
    inputs = [value for value in graph.input if value.name not in unused]
    del graph.input[:]
    graph.input.extend(inputs)
    _calibrate_graph(proto, rng)
    return proto


def _scales(graph: onnx.GraphProto) -> set[str]:
    """The vectors that multiply: scale and variance of a BatchNorm, and what a Mul takes after Unsqueeze."""
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Unsqueeze"}
    multiplied = {name for node in graph.node if node.op_type == "Mul" for name in node.input}
    return {norm.input[i] for norm in norms for i in (1, 4)} | {source.get(name, name) for name in multiplied}


def _calibrate_graph(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Every BatchNorm has its own input's statistics, off as in _calibrate; the output is in scale."""
    norms = [node for node in proto.graph.node if node.op_type == "BatchNormalization"]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    noises = [rng.standard_normal(weights[norm.input[1]].shape, dtype=np.float32) for norm in norms]
    factors = [rng.random(noise.shape, dtype=np.float32) + np.float32(0.5) for noise in noises]
    for norm, noise, factor in zip(norms, noises, factors, strict=True):
        # With μ' = μ + 0.1 n σ, σ'² = f σ²:  γ (x − μ') / σ' + β  =  γ/√f (x − μ) / σ  +  β − 0.1 n γ/√f
        scale = weights[norm.input[1]] / np.sqrt(factor)
        weights[norm.input[1]], weights[norm.input[2]] = scale, weights[norm.input[2]] - np.float32(0.1) * noise * scale
    statistics: dict[str, np.ndarray] = {}
    for norm, noise, factor, x in zip(norms, noises, factors, _norm_inputs(proto, weights, rng), strict=True):
        mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
        var = np.maximum(var, max(LEAST_VARIANCE * float(var.mean()), 1e-6))
        statistics[norm.input[3]], statistics[norm.input[4]] = (
            mean + np.float32(0.1) * noise * np.sqrt(var),
            var * factor,
        )
    others = [tensor for tensor in proto.graph.initializer if tensor.name not in statistics]
    _replace_initializers(
        proto.graph, others + [numpy_helper.from_array(array, name) for name, array in statistics.items()]
    )
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    last = probe.graph.node[-1]
    if last.op_type == "Softmax":  # look before it
        probe.graph.output[0].CopyFrom(helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None))
        probe.graph.node.remove(last)
    _in_scale(_run(probe, rng)[0])


def _norm_inputs(proto: onnx.ModelProto, weights: dict[str, np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """What enters each BatchNorm, for a few images, where all of them normalise by their own input's statistics."""
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    _replace_initializers(probe.graph, [numpy_helper.from_array(array, name) for name, array in weights.items()])
    del probe.graph.output[:]
    for node in probe.graph.node:
        if node.op_type == "BatchNormalization":  # at the graph's batch of 1 that is InstanceNormalization
            epsilon = [attribute for attribute in node.attribute if attribute.name == "epsilon"]
            del node.attribute[:], node.input[3:]
            node.attribute.extend(epsilon)
            node.op_type = "InstanceNormalization"
            probe.graph.output.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
    if not probe.graph.output:
        return []
    runs = [_run(probe, rng) for _ in range(LIGHT_IMAGES)]
    return [np.concatenate(values) for values in zip(*runs, strict=True)]


def _run(proto: onnx.ModelProto, rng: np.random.Generator) -> list[np.ndarray]:
    """The outputs in ONNX Runtime for a random input."""
    import onnxruntime

    constant = {tensor.name for tensor in proto.graph.initializer}
    feed = {}
    for value in proto.graph.input:
        if value.name not in constant:
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            feed[value.name] = rng.standard_normal(shape, dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feed)]


def _in_scale(output: np.ndarray) -> None:
    spread = float(output.std())
    if not 1e-3 < spread < 1e3:  # also false for NaN
        raise ValueError(f"the output's spread is {spread:.3g}, not within 1e-3 and 1e3: the weights are out of scale")


# ---------------------------------------------------------------- other ways to store the same network


def _transformed(proto: onnx.ModelProto, variant: str) -> onnx.ModelProto:
    if variant == "half":
        _to_half(proto)
    elif variant == "stored":
        _store_half(proto.graph)
    elif variant == "constants":
        _to_constants(proto.graph)
    return proto


def _to_half(proto: onnx.ModelProto) -> None:
    """Inputs, outputs, weights and constants are float16; inferred shapes are dropped. For graphs without Resize."""
    graph = proto.graph
    if any(node.op_type == "Resize" for node in graph.node):
        raise ValueError("the variant 'half' is for graphs without Resize, whose scales stay float32")
    tensors = list(graph.initializer)
    for node in graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del graph.value_info[:]


def _store_half(graph: onnx.GraphProto) -> None:
    """Every float initializer is stored in float16 and cast to float32 before use."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            name = tensor.name
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    _put_first(graph, casts)


def _to_constants(graph: onnx.GraphProto) -> None:
    """No initializers: each is the value of a Constant node."""
    nodes = []
    for tensor in graph.initializer:
        nodes.append(helper.make_node("Constant", [], [tensor.name], name=f"{tensor.name}.constant", value=tensor))
    _put_first(graph, nodes)
    inputs = [value for value in graph.input if value.name not in {tensor.name for tensor in graph.initializer}]
    del graph.initializer[:], graph.input[:]
    graph.input.extend(inputs)


def _put_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _replace_initializers(graph: onnx.GraphProto, tensors: list[onnx.TensorProto]) -> None:
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _converted(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same network in another opset."""
    converted: onnx.ModelProto = version_converter.convert_version(proto, opset)
    for node in converted.graph.node:
        if opset < 18 and node.op_type.startswith("Reduce"):  # the converter leaves an attribute that came with 18
            kept = [attribute for attribute in node.attribute if attribute.name != "noop_with_empty_axes"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return converted


def _opset(proto: onnx.ModelProto) -> int:
    return max(int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


# ---------------------------------------------------------------- what to build


# One of each kind of wiring, small and quick to export
REPRESENTATIVE: tuple[Export, ...] = (
    Export("timm:resnet18"),
    Export("timm:mobilenetv2_100", "legacy", 13, "free"),
    Export("timm:mobilenetv3_large_100", "legacy", 17, "free"),
    Export("timm:regnety_004"),
    Export("timm:densenet121", "legacy", 13, "free"),
    Export("timm:convnext_atto"),
    Export("torchvision:shufflenet_v2_x1_0"),
    Export("timm:mixnet_s", "legacy", 13, "free"),
    Export("torchvision:squeezenet1_1", "legacy", 17, "free"),
    Export("torchvision:googlenet", "legacy", 13, "free"),
    Export("timm:ghostnet_100", "legacy", 13, "free"),
    Export("light:shufflenet", "wheel", 9),
    Export("light:squeezenet", "wheel", 9),
    Export("timm:mobilenetv2_100", "legacy", 9, "free"),
    Export("timm:mobilenetv2_100", "legacy", 17, variant="shared"),
    Export("timm:mobilenetv2_100", variant="half"),
    Export("timm:mobilenetv2_100", variant="constants"),
)


def _sweep() -> tuple[Export, ...]:
    """Everything, in the order to build it: default exports, the older exporter, variants, opsets."""
    lights = [name for name in NETWORKS if name.startswith("light:")]
    torches = [name for name in NETWORKS if name not in lights]
    exports = [Export(name, "wheel", 9) if name in lights else Export(name) for name in NETWORKS]
    exports += [Export(name, "legacy", (13, 17)[i % 2], "free") for i, name in enumerate(torches)]
    for name in ("timm:resnet18", "timm:mobilenetv2_100"):
        exports += [Export(name, "legacy", opset, "free") for opset in (9, 11, 12)]
        exports += [Export(name, "legacy", 17, "static", variant=variant) for variant in VARIANTS]
        exports += [Export(name, variant=variant) for variant in VARIANTS[1:]]
        exports += [Export(name, opset=opset) for opset in (13, 14, 15, 16, 17, 18, 19)]
        exports += [Export(name, opset=opset) for opset in (RUNTIME_NEWEST, onnx.defs.onnx_opset_version())]
        exports += [Export(name, "legacy", opset) for opset in (14, 15, 16, 18, 19, 20)]
    exports += [Export(name, "dynamo", (18, 19)[i % 2], "free") for i, name in enumerate(torches[:20])]
    exports += [Export(name, "dynamo", (14, 15, 16, 17)[i % 4]) for i, name in enumerate(torches[2:20])]
    exports += [Export(name, "legacy", (14, 20)[i % 2], variant="bn") for i, name in enumerate(torches[2:20])]
    return tuple(dict.fromkeys(export for export in (*exports, *REPRESENTATIVE) if export not in FAILS))


SWEEP: tuple[Export, ...] = _sweep()


def main() -> None:
    """Build or list the models, one line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.partition("\n\n")[0])
    parser.add_argument("command", choices=("build", "list"))
    parser.add_argument("--representative", action="store_true", help="only the quick ones")
    parser.add_argument("--name", default="*", metavar="PATTERN", help="only networks like this, as timm:res*")
    options = parser.parse_args()
    exports = REPRESENTATIVE if options.representative else SWEEP
    failed = 0
    for export in exports:
        if not fnmatch.fnmatch(export.name, options.name):
            continue
        if options.command == "list":
            print("here   " if place(export).exists() else "missing", place(export).stem)
            continue
        failed += not _report(export)
    if failed:
        raise SystemExit(f"{failed} of the exports failed")


def _report(export: Export) -> bool:
    """Builds one model and prints how that went; True where it is there."""
    start = time.perf_counter()
    try:
        target = cached(export)
    except Exception as error:  # noqa: BLE001 — exporters raise everything; the next is to be built all the same
        reason = " ".join(str(error).split())[:400]
        print(f"FAILED {place(export).stem}: {type(error).__name__}: {reason}", flush=True)
        return False
    print(f"{time.perf_counter() - start:6.1f} s {target.stat().st_size / 1e6:7.1f} MB {target.stem}", flush=True)
    return True


if __name__ == "__main__":
    main()
