"""Whether input holds training up: step time with the real pipeline and with one batch that lies in memory.

    python -m benchmarks.input --spec simcnn_k3_cifar --width 32 --json

The pipeline is that of `cifar10_greedy` on images in memory: order, pad-4 crop and flip drawn for each image, normalisation. The
images are noise, whose values cost what a photograph's do. Both ways take turns in one process; a ratio is taken within each
round. The narrower the net, the more the input would show. The pipeline alone is measured too.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.figures import Machine, conclude, grouped_bars, new_figure, parser, put_table, spread, spread_text
from benchmarks.ours import Session
from benchmarks.specs import open_spec
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.data.splits import ArraySplit
from kerasgreedy.spec.recipe import Augment, Data

IMAGES = 20_000


def main() -> None:
    """The command."""
    options = _options()
    machine = Machine()
    session = Session()
    session.build(open_spec(options.spec, options.width), options.phase, options.batch, options.precision, cached=False)
    constant = session.batches
    pipeline = _pipeline()
    streamed = _epochs(pipeline, options.batch)
    for batches in (constant, streamed):
        session.batches = batches
        session.steps(3)
    seconds: dict[str, list[float]] = {"one batch": [], "pipeline": []}
    for _ in range(options.rounds):
        for name, batches in (("one batch", constant), ("pipeline", streamed)):
            session.batches = batches
            seconds[name].append(session.steps(options.steps) / options.steps)
    result = {
        "benchmark": "input",
        "spec": options.spec,
        "width": options.width,
        "phase": options.phase,
        "batch": options.batch,
        "step_seconds": {name: spread(own) for name, own in seconds.items()},
        "pipeline_over_one_batch": spread([b / a for a, b in zip(*seconds.values(), strict=True)]),
        "pipeline_alone_images_per_second": _alone(pipeline, options.batch),
        "machine": machine.facts(),
    }
    lines = [[name, f"{own['median'] * 1e3:.1f}"] for name, own in result["step_seconds"].items()]
    put_table(f"{options.spec}, phase {options.phase}, batch {options.batch}", ["fed by", "milliseconds a step"], lines)
    print(f"\npipeline over one batch: {spread_text(result['pipeline_over_one_batch'])}")
    print(f"the pipeline alone: {result['pipeline_alone_images_per_second']:.0f} images/s")
    conclude(options, result, _draw(result) if options.plot else None)


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    times = {name: 1e3 * own["median"] for name, own in result["step_seconds"].items()}
    grouped_bars(axes, list(times), {"milliseconds a step": list(times.values())})
    axes.set_ylabel("milliseconds a step")
    return figure


def _pipeline() -> Pipeline:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    split = ArraySplit(images, rng.integers(0, 10, IMAGES))
    augment = Augment(pad_crop=4, horizontal_flip=True)
    return Pipeline(split, split, Data(dataset="noise", validation=0, augment=augment), (32, 32), seed=0)


def _epochs(pipeline: Pipeline, batch: int) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from pipeline.training(0, epoch, batch)
        epoch += 1


def _alone(pipeline: Pipeline, batch: int) -> float:
    """Images a second when nobody waits for them; the best of three epochs."""
    best = float("inf")
    for epoch in range(3):
        start = time.perf_counter()
        count = sum(1 for _ in pipeline.training(0, epoch, batch))
        best = min(best, (time.perf_counter() - start) / count)
    return batch / best


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--spec", default="simcnn_k3_cifar", help="a SimCNN: a shipped name or a file")
    options.add_argument("--width", type=int, help="filters of the first block; the others in proportion")
    options.add_argument("--phase", type=int, default=1)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--steps", type=int, default=5)
    return options.parse_args()


if __name__ == "__main__":
    main()
