"""The published networks with their heads: parameters and multiply-adds of FNA++, tables 2 to 4, for the seed and what
FNA found.

The rule is theirs: convolutions' multiply-adds and bias adds.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from nets import bundled

from fnatool import specs
from passes import apply, parse, plan
from passes.graph.macs import bias_adds
from passes.heads import HeadSpec, attach
from passes.network.analyse import analyse

TOLERANCE = 1e-3
DEEPLAB, RETINANET, SSDLITE = HeadSpec("deeplabv3", 19), HeadSpec("retinanet", 80), HeadSpec("ssdlite", 80)


def counted(spec: str, head: HeadSpec, *, found_by_fna: bool) -> tuple[int, int]:
    """Parameters and multiply-adds with bias adds of the bundled seed, or of the network of the spec, at the spec's
    image size.
    """
    seed = bundled()
    analysis = analyse(seed)
    document = json.loads((specs.FOLDER / f"{spec}.json").read_text())
    if not found_by_fna:
        document["knobs"] = {
            name: value for name, value in document["knobs"].items() if name in ("input.size", "output_stride")
        }
    way = plan(analysis, parse(document))
    body = apply(seed, way)
    whole = analyse(attach(body, analyse(body, table=way.table), head, rng=np.random.default_rng(0)).graph)
    assert whole.cost.macs is not None
    return whole.cost.params, whole.cost.macs + sum(bias_adds(node, whole.shapes.shapes) for node in whole.view.nodes)


@pytest.mark.parametrize(
    ("spec", "head", "found_by_fna", "params", "macs", "exactly"),
    [
        ("fna-seg", DEEPLAB, False, 2.568e6, 24.52e9, (2_567_507, 24_521_711_616)),
        ("fna-seg", DEEPLAB, True, 2.466e6, 24.17e9, (2_466_419, 24_174_895_104)),
        ("fna-retinanet", RETINANET, False, 11.488e6, 133.05e9, (11_488_244, 133_053_449_976)),
        ("fna-retinanet", RETINANET, True, 11.732e6, 133.03e9, (11_732_244, 133_029_704_376)),
        ("fna-ssdlite", SSDLITE, False, 4.323e6, 0.808e9, (4_322_988, 808_218_304)),
        ("fna-ssdlite", SSDLITE, True, 4.630e6, 0.880e9, (4_630_316, 880_333_504)),
    ],
)
def test_the_published_networks_have_their_counts(
    spec: str, head: HeadSpec, found_by_fna: bool, params: float, macs: float, exactly: tuple[int, int]
) -> None:
    found = counted(spec, head, found_by_fna=found_by_fna)
    assert found == exactly
    assert found[0] == pytest.approx(params, rel=TOLERANCE)
    assert found[1] == pytest.approx(macs, rel=TOLERANCE)


def test_the_pose_head_has_the_counts_of_its_paper() -> None:
    """SimpleBaseline on ResNet-50 has 34.0M parameters (Xiao et al. 2018), 23.508M of them the backbone's; the head
    reads 2048 channels.
    """
    channels, joints = 2048, 17
    head = 16 * channels * 256 + 2 * 16 * 256 * 256 + 3 * 512 + 256 * joints + joints
    assert 23.508e6 + head == pytest.approx(34.0e6, rel=TOLERANCE)
    seed = bundled()
    whole = analyse(attach(seed, analyse(seed), HeadSpec("simplebaseline", joints), rng=np.random.default_rng(0)).graph)
    own = sum(
        size for name, size in whole.cost.tensor_params.items() if name.startswith(("head.deconv", "head.predictor"))
    )
    assert own == head - 16 * (channels - 320) * 256
