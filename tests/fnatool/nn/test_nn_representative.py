"""Real topologies in torch and in ONNX Runtime: a representative part of `python -m benchmarks.reading`, at several
batches.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import zoo
from benchmarks.reading import measure
from fnatool import nn


@pytest.mark.parametrize("export", zoo.REPRESENTATIVE, ids=lambda export: zoo.place(export).stem)
def test_a_network_computes_what_the_runtime_does(export: zoo.Export) -> None:
    found = measure(export)
    assert found.drift <= found.tolerance


@pytest.mark.parametrize("export", zoo.REPRESENTATIVE[::2], ids=lambda export: zoo.place(export).stem)
def test_a_sample_does_not_know_its_batch(export: zoo.Export) -> None:
    module = nn.load(zoo.cached(export))
    reading = module.origin.reading
    shape = reading.shapes.shapes[reading.inputs[0]]
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((5, *shape[1:])).astype(np.float32))
    with torch.no_grad():
        alone = torch.cat([module(images[k : k + 1]) for k in range(5)])
        for count in (1, 2, 5):
            spread = float(alone.max() - alone.min())
            assert float((module(images[:count]) - alone[:count]).abs().max()) < 1e-4 * spread
