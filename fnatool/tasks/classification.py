"""Classification: cross entropy with smoothed labels; the share of images whose class comes first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from fnatool.tasks.decode import Classified
from fnatool.tasks.description import Classification
from fnatool.tasks.parts import Batch, Outputs, Part, Parts


def loss(outputs: Outputs, batch: Batch, description: Classification, *, smoothing: float = 0.1) -> Parts:
    """Cross entropy of logits [N, K] and labels [N], with a share `smoothing` of each label spread over all classes."""
    logits, labels = outputs["logits"].float(), batch["labels"]
    value = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    return {"cross_entropy": Part(value, torch.tensor(len(labels), device=logits.device))}


def compare(prediction: Classified, truth: int, description: Classification) -> int:
    """How many other classes seem at least as probable as the true one: who cannot tell has not found it."""
    return int((prediction.logits >= prediction.logits[truth]).sum()) - 1


def score(evidence: Sequence[int], description: Classification) -> dict[str, float]:
    """top1, and top5 where there are more than five classes: shares of the images."""
    best = {"top1": 1} | ({"top5": 5} if len(description.classes) > 5 else {})
    return {name: sum(rank < most for rank in evidence) / len(evidence) for name, most in best.items()}
