"""A head on a network: what is behind the taps goes, the head's nodes come, and nothing else changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import onnx_graphsurgeon as gs

from passes.errors import UserError
from passes.graph.normal import Normalised
from passes.graph.normalise import normalise
from passes.graph.operators import SIZES
from passes.graph.shapes import infer
from passes.graph.view import Node, View, build, view
from passes.graph.work import named, refuse_control_flow
from passes.heads import classifier, deeplabv3, retinanet, simplebaseline, ssdlite
from passes.heads.classifier import own_classifier
from passes.heads.detection import BoxCoding
from passes.heads.encoder import Ancestry, ancestry, is_projection
from passes.heads.image import HeadImage, image_of
from passes.heads.inheriting import Array, OwnHead, inherited, missing
from passes.heads.style import HeadSpec, HeadStyle, HeadWork
from passes.heads.tap import Stride, Tap
from passes.heads.taps import FLOATS, Chart, chart, wide
from passes.heads.writer import Writer, initializers
from passes.network.analysis import Analysis
from passes.network.stages import table_of_whole

MAX_COUNT = 1 << 16  # classes, joints, widths
MAX_LEVELS = 16
LEAST_KEPT = 0.5  # of the parameters that any map comes from: with less a head has not what the seed learnt
CANDIDATES = 5  # that a refusal names


@dataclass(frozen=True)
class Attached:
    """The network with its head, what it taps, its image, the stage table of what is left of the seed, and how a
    detector is read.

    normal: the network in normal form, to be analysed; kept: the parameters of the seed that are left, of all that it
    has; base: the graph that the taps are tensors of, the one given where that has them all, else its normal form; own:
    the head, as the network's own from now on; inherits: all its weights that no class has for itself are those of the
    head before.
    """

    graph: gs.Graph
    base: gs.Graph
    normal: Normalised
    taps: tuple[Tap, ...]
    image: HeadImage
    table: list[list[dict[str, str]]]
    detection: BoxCoding | None
    kept: tuple[int, int]
    own: OwnHead
    inherits: bool = False


HEADS = (classifier.STYLE, deeplabv3.STYLE, retinanet.STYLE, ssdlite.STYLE, simplebaseline.STYLE)
STYLES: Mapping[str, HeadStyle] = {style.name: style for style in HEADS}
"""name → a kind of head."""


def attach(graph: gs.Graph, analysis: Analysis, head: HeadSpec, *, rng: np.random.Generator) -> Attached:
    """The network up to the taps, with the head on them; arrays are shared with the graph given, which is not changed.

    analysis: of this graph; its sizes are those that levels and anchors are made for. rng: for the initial weights.
    Raises UserError for a head that cannot be, RefusedModel for a graph that cannot be read.
    """
    refuse_control_flow(graph)
    style = _style(head)
    before = _before(head, style, analysis)
    if before is not None:
        head = replace(head, width=before.width, levels=before.levels)
    image = image_of(analysis)
    found = _chart(analysis, head)
    known = ancestry(analysis)
    taps = _taps(head, style, found, known) if before is None else _taps_of(before, found)
    base = _with_tensors(graph, [tap.tensor for tap in taps], analysis)
    seen = view(base)
    kept = _ancestors(named(seen.nodes), [tap.tensor for tap in taps])
    taken = _names(kept, seen.inputs, style)
    dtypes = list(dict.fromkeys(tap.dtype for tap in taps))
    if len(dtypes) > 1:
        raise UserError(f"the taps hold {' and '.join(dtypes)} numbers; a head has one kind")
    # a network that computes its sizes goes on doing so
    computed = image.free or any(node.op in SIZES for node in kept)
    writer, spare = (
        Writer(seen.opset, dtypes[0], rng=one, computed=computed, taken=taken)
        for one in (rng, np.random.default_rng(0))
    )
    work = HeadWork(head, found, image, taps, writer)
    detection = style.build(work)
    constants = None if before is None else _inherited(work, style, spare, seen)
    _require_rows(head, style, before, inherits=constants is not None)
    made = build([*kept, *writer.nodes], {**seen.constants, **initializers(constants or writer.constants)}, base)
    normal = _with_outputs(made, style, analysis, image, dtype=dtypes[0])
    table = table_of_whole(analysis.stages, {node.name for node in kept})
    share = (known.params(tap.tensor for tap in taps), sum(known.counts))
    return Attached(
        graph=made,
        base=base,
        normal=normal,
        taps=taps,
        image=image,
        table=table,
        detection=detection,
        kept=share,
        own=OwnHead(style.name, tuple(tap.tensor for tap in taps), head.width, head.levels),
        inherits=constants is not None,
    )


def _chart(analysis: Analysis, head: HeadSpec) -> Chart:
    """The maps that the head may tap when nobody says: those of the network without the classifier or head that it
    has.
    """
    rows = own_classifier(analysis)
    tapped = () if head.own is None or not _is_there(head.own, analysis) else head.own.taps
    return chart(analysis, None if rows is None else rows.features, tapped)


def _is_there(own: OwnHead, analysis: Analysis) -> bool:
    """The network still computes what its head taps."""
    return all(tensor in analysis.view.producer for tensor in own.taps)


def _taps_of(own: OwnHead, found: Chart) -> tuple[Tap, ...]:
    """What the seed's own head taps."""
    return tuple(found.tap_at(tensor, found.name_of(tensor)) for tensor in own.taps)


def _before(head: HeadSpec, style: HeadStyle, analysis: Analysis) -> OwnHead | None:
    """The seed's own head, where the new one takes its place and what it taps is there; a classifier finds its rows by
    itself.
    """
    own = None if style.taps_features else head.goes_on
    return own if own is not None and _is_there(own, analysis) else None


def _inherited(work: HeadWork, style: HeadStyle, spare: Writer, seen: View) -> dict[str, Array] | None:
    """The weights of the head, with those of the seed's; None where the seed's has others. spare: to build one for a
    class more with.
    """
    style.build(replace(work, head=replace(work.head, count=work.head.count + 1, keep=()), writer=spare))
    fresh, wider = work.writer.constants, spare.constants
    if missing(fresh, wider, seen.constants):
        return None
    return inherited(fresh, wider, seen.constants, keep=work.head.keep, count=work.head.count)


def _require_rows(head: HeadSpec, style: HeadStyle, before: OwnHead | None, *, inherits: bool) -> None:
    """Rows can be kept where the style reads them itself, or the seed has such a head. Raises UserError."""
    if not head.keep or style.taps_features or inherits:
        return
    if before is None:
        made_by = "one that 'fnatool head' has made, and no taps, width or levels are asked for"
        raise UserError(f"rows of a {style.name} head can be kept where the model has {made_by}")
    raise UserError(
        "the model's own head has other weights than it was made with (folded?), so none of its rows can be kept"
    )


def default_taps(analysis: Analysis, head: HeadSpec) -> tuple[str, ...]:
    """The names of what the head taps when nobody says; none where it taps what the seed's own classifier reads. Raises
    UserError.
    """
    found = _chart(analysis, head)
    style = _style(head)
    taps = _taps(head, style, found, ancestry(analysis))
    return tuple(tap.name for tap in taps if found.is_map(tap.tensor))


def seen_by(analysis: Analysis, head: HeadSpec) -> tuple[str, ...]:
    """The tensors that a head sees the network by: its taps, and in place of one that was pooled the last map. Raises
    UserError.
    """
    found = _chart(analysis, head)
    last = [tensor for tensor in found.way if found.is_map(tensor)][-1:]
    taps = [tap.tensor for tap in _taps(head, _style(head), found, ancestry(analysis))]
    return tuple(dict.fromkeys(tensor if found.is_map(tensor) or not last else last[0] for tensor in taps))


def _style(head: HeadSpec) -> HeadStyle:
    """The style, with options that it has and that can be."""
    style = STYLES.get(head.style)
    if style is None:
        raise UserError(f"'{head.style}' is no style of head; there are {', '.join(STYLES)}")
    for name, value in (("width", head.width), ("levels", head.levels)):
        if value is not None and name not in style.options:
            raise UserError(f"a {head.style} head has no choice of {name}; leave it out")
    if len(head.taps) > style.most_taps:
        raise UserError(f"a {head.style} head taps {style.most_taps} map(s), not {len(head.taps)}")
    for word, number, most in (
        (style.counts, head.count, MAX_COUNT),
        ("width", head.width, MAX_COUNT),
        ("levels", head.levels, MAX_LEVELS),
    ):
        if number is not None and not 1 <= number <= most:
            raise UserError(f"{word}: {number} is out of range, which goes from 1 to {most}")
    return style


def _taps(head: HeadSpec, style: HeadStyle, found: Chart, known: Ancestry) -> tuple[Tap, ...]:
    """Those named, or those of the style: on the way through the encoder, or where that keeps too little, on all that
    every path passes.

    In both with the exits of stages before other maps, or without. Raises UserError where all of these keep less than
    half of what maps come from, naming maps that could be tapped.
    """
    if head.taps:
        return tuple(found.tap(name) for name in head.taps)
    if style.taps_features:
        features = _features(found)
        if features is not None and (head.keep or features.tensor in found.way or not found.is_map(features.tensor)):
            return (features,)
    least = LEAST_KEPT * known.params(tensor for tensor in known.sets if _is_finished(tensor, found))
    first = _on_the_way(style, found)
    for other in (found, replace(found, staged=False), wide(found), replace(wide(found), staged=False)):
        taps = _on_the_way(style, other)
        if taps and known.params(tap.tensor for tap in taps) >= least:
            return taps
    if not first:
        found.maps()  # raises
    raise UserError(_too_little(first, found, known))


def _is_finished(tensor: str, found: Chart) -> bool:
    """It has positions, known or not where in the image, and is neither a prediction nor computed from one."""
    shape = found.analysis.shapes.shapes.get(tensor, ())
    spread = len(shape) == 4 and sum(extent > 1 for extent in shape[1:]) > 1
    return spread and tensor not in found.behind and not is_projection(tensor, found.analysis.view)


def _on_the_way(style: HeadStyle, found: Chart) -> tuple[Tap, ...]:
    """The style's own taps; none where no map is on the way."""
    if not any(found.is_map(tensor) for tensor in found.way):
        return ()
    return tuple(found.tap(found.name_of(tensor)) for tensor in style.taps(found))


def _too_little(taps: Sequence[Tap], found: Chart, known: Ancestry) -> str:
    whole = sum(known.counts)
    best: dict[Stride, tuple[int, str]] = {}
    for tensor, grid in found.grids.items():
        if found.is_map(tensor) and _is_finished(tensor, found):
            best[grid.stride] = max(
                best.get(grid.stride, (0, "")), (known.params([tensor]), tensor), key=lambda row: row[0]
            )
    rows = sorted(best.items(), key=lambda item: -item[1][0])[:CANDIDATES]
    words = [
        f"'{found.name_of(tensor)}' (stride {float(min(stride)):g}, {kept / whole:.0%})"
        for stride, (kept, tensor) in rows
        if kept
    ]
    named = " and ".join(f"'{tap.name}'" for tap in taps)
    kept, verb = known.params(tap.tensor for tap in taps) / whole, "comes" if len(taps) == 1 else "come"
    return (
        f"{named}, which this head would tap, {verb} from {kept:.0%} of the seed's parameters only; say with "
        "--taps (in a config "
        f"'head.taps') what it is to read, such as {', '.join(words)}"
    )


def _features(found: Chart) -> Tap | None:
    """What the seed's own classifier reads, pooled or not; None where a head cannot read it."""
    rows = own_classifier(found.analysis)
    if rows is None:
        return None
    name = found.name_of(rows.features)
    if found.is_map(rows.features):
        return found.tap(name)
    shapes, image = found.analysis.shapes, image_of(found.analysis)
    batch, *extents = shapes.shapes.get(rows.features, (0,))
    dtype = FLOATS.get(shapes.types.get(rows.features, 0))
    if dtype is None or not extents or math.prod(extents) != max(extents) or batch != shapes.shapes[image.name][0]:
        return None  # positions of a sequence on axis 0 are no images
    height, width = image.size
    return Tap(
        name=name,
        tensor=rows.features,
        channels=max(extents),
        space=(1, 1),
        stride=(Fraction(height), Fraction(width)),
        dtype=dtype,
    )


def _with_tensors(graph: gs.Graph, tensors: Iterable[str], analysis: Analysis) -> gs.Graph:
    """The graph where it computes these tensors of its analysis, else its normal form, which does: a moved Transpose
    leaves others.
    """
    computed = {tensor.name for node in graph.nodes for tensor in node.outputs}
    return graph if computed.issuperset(tensors) else build(analysis.view.nodes, analysis.view.constants, graph)


def _ancestors(nodes: Sequence[Node], tensors: Iterable[str]) -> list[Node]:
    """The nodes that the tensors come from, in order."""
    wanted = set(tensors)
    kept = []
    for node in reversed(nodes):
        if any(name in wanted for name in node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _names(kept: Sequence[Node], inputs: Iterable[str], style: HeadStyle) -> frozenset[str]:
    """All names of what stays. Raises UserError where one is needed for an output."""
    tensors = {*inputs, *(name for node in kept for name in (*node.inputs, *node.outputs))}
    for name in style.outputs:
        if name in tensors:
            raise UserError(
                f"the head's output is called '{name}', and a tensor before the taps is too; rename that one"
            )
    return frozenset(tensors | {node.name for node in kept} | set(style.outputs))


def _with_outputs(graph: gs.Graph, style: HeadStyle, analysis: Analysis, image: HeadImage, *, dtype: str) -> Normalised:
    """The graph has the head's outputs, typed; axes that follow a free image size have names. Returned is its normal
    form.

    Raises RefusedModel for a misfit.
    """
    sizes = {image.name: analysis.shapes.shapes[image.name]}
    tensors = graph.tensors()
    graph.outputs = [tensors[name] for name in style.outputs]
    normal = normalise(graph, sizes)
    shapes = infer(normal.seen, sizes).shapes
    for name, axes in style.outputs.items():
        extents = shapes[name][1:]
        named_axes = (*axes, *("",) * (len(extents) - len(axes)))
        shape = [axis if axis and image.free else extent for axis, extent in zip(named_axes, extents, strict=True)]
        tensors[name].dtype = np.dtype(dtype)
        tensors[name].shape = [image.batch, *shape]
    for tensor in normal.graph.outputs:
        tensor.dtype, tensor.shape = tensors[tensor.name].dtype, tensors[tensor.name].shape
    return normal
