"""Actions on layers that know the training images, and on filters that a head has found."""

from dataclasses import asdict
from typing import Any

import numpy as np

from kerasgreedy.graph.architecture import Component
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Node
from kerasgreedy.network.fitting import Fitting
from kerasgreedy.network.head_filters import TINY, filters_of, norms_of
from kerasgreedy.network.rectify import broken, rectified
from kerasgreedy.plan.batch_sizes import whole_shares
from kerasgreedy.plan.convex_actions import FiltersAction, FiltersEntry, FitAction, FitEntry, RectifyAction, RectifyEntry
from kerasgreedy.spec.convex_layers import GatedConv
from kerasgreedy.spec.doors import imported
from kerasgreedy.train.performing import Doing, Outcome, sizes


def fit(action: FitAction, doing: Doing) -> Outcome:
    """Fits layers, one after the other."""
    network, job = doing.network, doing.job
    fitted: dict[str, dict[str, Any]] = {}
    for place in action.layers:
        component, node = network.architecture.components[place.split("/")[0]], network.architecture.node(place)
        fitted[place] = imported(kind_of(node.layer).fit)(_fitting(doing, component, node))
    return Outcome(network, job.spec, FitEntry(**sizes(action, network, network), fitted=fitted), {})


def take_filters(action: FiltersAction, doing: Doing) -> Outcome:
    """Gives a layer the filters of a head."""
    network = doing.network
    name, layer = action.layer.split("/")
    filters, norms = filters_of(network, action.head)
    missing = max(0, action.filters - len(norms))  # where a removal has left fewer
    filters, norms = np.pad(filters, [(0, 0)] * 3 + [(0, missing)]), np.pad(norms, (0, missing))
    order = np.argsort(-norms, kind="stable")[: action.filters]
    kernel = network.component(name).get_layer(layer).kernel
    kernel.assign((filters[..., order] / np.maximum(norms_of(filters[..., order]), TINY)).astype(np.float32))
    entry = FiltersEntry(
        **sizes(action, network, network),
        head=action.head,
        layer=action.layer,
        filters=action.filters,
        of=len(norms) - missing,
        norm_share=float(norms[order].sum() / (norms.sum() or 1.0)),
        zero=int(np.sum(norms[order] == 0)),
    )
    return Outcome(network, doing.job.spec, entry, {})


def rectify(action: RectifyAction, doing: Doing) -> Outcome:
    """Puts a head with relu in the place of one with fixed gates."""
    network = doing.network
    with doing.strategy.scope():
        changed, spec = rectified(network, doing.job.spec, action.head)
    head = network.architecture.components[action.head]
    gated = next(node for node in head.nodes if isinstance(node.layer, GatedConv))
    inputs = _fitting(doing, head, head.nodes[0]).inputs(min(action.images, doing.job.train_images))
    found = broken(network, changed, action.head, inputs)
    left = changed.architecture.components[action.head]
    filters = next(node.output_shape[-1] for node in left.nodes if isinstance(node.layer, GatedConv))
    of = gated.output_shape[-1] * network.architecture.classes
    entry = RectifyEntry(**sizes(action, network, changed), head=action.head, filters=(filters, of), broken=asdict(found))
    return Outcome(changed, spec, entry, {})


def _fitting(doing: Doing, component: Component, node: Node) -> Fitting:
    batch_size = whole_shares(doing.job.recipe.training.batch_size, doing.strategy.num_replicas_in_sync)
    return Fitting(
        doing.network,
        component,
        node,
        lambda most: doing.pipeline.evaluation("train", batch_size, most),
        doing.job.train_images,
        doing.job.recipe.seed,
        doing.seen,
    )
