"""What TensorBoard shows: charts that training and validation share."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kerasgreedy.runs.metrics_log import MetricsLog


def record(phase, split, head, loss):
    return {
        "phase": phase,
        "phase_name": f"block_{phase + 1}",
        "epoch": 1,
        "split": split,
        "head": head,
        "loss": loss,
        "accuracy": 0.5,
    }


def shown(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [events.Tensors(tag)] for tag in events.Tags()["tensors"]}


def test_splits_are_folders_and_heads_are_tags(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(record(0, "train", "head_1", 2.0), 10)
    log.write(record(0, "validation", "head_1", 2.5), 10)
    log.write({"phase": 0, "phase_name": "block_1", "epoch": 1, "split": "refresh"}, 10)  # no figures
    log.write(record(1, "train", "head_2", 1.0), 20)
    log.flush()
    log.close()
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == ["train", "validation"]
    train, validation = (shown(tmp_path / "tensorboard" / split) for split in ("train", "validation"))
    assert set(train) == {"head_1/loss", "head_1/accuracy", "head_2/loss", "head_2/accuracy"}
    assert set(validation) == {"head_1/loss", "head_1/accuracy"}
    ((event,),) = train["head_2/loss"]
    assert event.step == 20
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4
