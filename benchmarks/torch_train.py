"""A whole greedy run in tuned PyTorch, as a reader of the paper would script it; the rival of `kerasgreedy train`.

    MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456 \
        python -m benchmarks.torch_train --data PATH --spec simcnn_k3_cifar --epochs 3 --out OUT

PATH holds train/<class>/ and test/<class>/. JPEGs are decoded once into uint8 memory; crops (pad 4) and flips are drawn for
each image, a batch at a time; channels are normalised by mean and deviation of the training part. Split, order of files,
schedule and the records of OUT/metrics.jsonl are those of `kerasgreedy train`, so that the two can be laid side by side; with
`--paired` initial weights, order, crops and flips are too, so that runs can be compared one by one.
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.specs import architecture_of, open_spec
from benchmarks.torch_images import Images, OurDraws, OwnDraws
from benchmarks.torch_simcnn import GreedyStep, SimCNN, SimCNNNet
from benchmarks.torch_weights import load_ours


def main() -> None:
    """The command."""
    options = _options()
    options.out.mkdir(parents=True)
    torch.manual_seed(options.seed)
    draws = OurDraws(options.seed) if options.paired else OwnDraws(options.seed)
    images = Images(options.data, options.validation, options.seed, draws)
    spec = open_spec(options.spec, options.width)
    net = SimCNNNet(SimCNN.of(architecture_of(spec, images.classes)), True, options.precision, options.initializer)
    if options.paired:
        with np.load(options.paired) as weights:
            load_ours(net, dict(weights))
    with (options.out / "metrics.jsonl").open("w") as log:
        for depth in range(1, len(net.blocks) + 1):
            train_phase(net, depth, images, options, log)
    (options.out / "results.json").write_text(json.dumps({"depths": test_scores(net, images, options.batch)}))


def train_phase(net: SimCNNNet, depth: int, images: Images, options: argparse.Namespace, log: Any) -> None:
    """Trains block and head `depth`; with `--keep best` it ends with the weights that did best on the validation part."""
    step = GreedyStep(net, depth, options.learning_rate, compiled=options.compiled)
    schedule = torch.optim.lr_scheduler.StepLR(step.optimizer, options.every, options.factor)
    best = (-1.0, None)
    for epoch in range(1, options.epochs + 1):
        loss = right = torch.zeros(())
        seen = 0
        for x, y in images.training(depth - 1, epoch - 1, options.batch, net.memory_format):
            a, b = step(x, y)
            loss, right, seen = loss + a * len(y), right + b, seen + len(y)
        schedule.step()
        place = {"phase": depth - 1, "epoch": epoch, "head": f"head_{depth}"}
        _record(log, {**place, "split": "train", "loss": float(loss) / seen, "accuracy": float(right) / seen})
        if len(images.validation[1]):
            accuracy = evaluate(net, depth, images.validation, images, options.batch)
            _record(log, {**place, "split": "validation", "accuracy": accuracy})
            if options.keep == "best" and accuracy > best[0]:
                best = (accuracy, [copy.deepcopy(part.state_dict()) for part in step.trained])
        for part in step.trained:
            part.train()
    if best[1] is not None:
        for part, state in zip(step.trained, best[1], strict=True):
            part.load_state_dict(state)


def evaluate(net: SimCNNNet, depth: int, data: tuple[np.ndarray, np.ndarray], images: Images, batch: int) -> float:
    """Accuracy of head `depth`, in inference mode."""
    right = 0
    net.eval()
    with torch.no_grad(), net.low_precision():
        for x, y in images.batches(*data, batch, net.memory_format):
            for block in net.blocks[:depth]:
                x = block(x)
            right += int((net.heads[depth - 1](x).argmax(1) == y).sum())
    return right / len(data[1])


def test_scores(net: SimCNNNet, images: Images, batch: int) -> list[dict[str, float]]:
    """Accuracy and loss of all heads on the test part, in one pass."""
    sums = np.zeros((len(net.heads), 2))
    for x, y in images.batches(*images.test, batch, net.memory_format):
        sums += [[float((z.argmax(1) == y).sum()), float(F.cross_entropy(z, y, reduction="sum"))] for z in net.logits(x)]
    count = len(images.test[1])
    return [{"depth": n, "top1": right / count, "loss": loss / count} for n, (right, loss) in enumerate(sums, start=1)]


def _record(log: Any, record: dict[str, Any]) -> None:
    print(json.dumps({**record, "time": time.time()}), file=log, flush=True)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and test/<class>/")
    options.add_argument("--out", type=Path, required=True, help="new folder for metrics.jsonl and results.json")
    options.add_argument("--spec", default="simcnn_k3_cifar")
    options.add_argument("--width", type=int, help="filters of the first block; the others in proportion")
    options.add_argument("--epochs", type=int, default=50, help="of each phase")
    options.add_argument("--every", type=int, default=15, help="epochs between two drops of the learning rate")
    options.add_argument("--factor", type=float, default=0.2, help="of a drop")
    options.add_argument("--learning-rate", type=float, default=0.1)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--validation", type=float, default=0.1, help="share of the training images")
    options.add_argument("--keep", choices=["best", "last"], default="last", help="which epoch's weights a phase ends with")
    options.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    options.add_argument("--initializer", choices=["he_normal", "pytorch"], default="he_normal", help="see SimCNNNet")
    options.add_argument(
        "--paired",
        type=Path,
        metavar="FILE.npz",
        help="begin with these weights of our network (arrays as "
        "`Network.arrays` names them) and take the order, crops and flips that `kerasgreedy train` draws",
    )
    options.add_argument("--compiled", action="store_true", help="steps by torch.compile (inductor)")
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args()


if __name__ == "__main__":
    main()
