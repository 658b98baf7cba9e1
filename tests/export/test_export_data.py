"""What an export keeps of the data that a run was trained on."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from exports import BRANCHED, softmax64, tree

import kerasgreedy as kg
from kerasgreedy.errors import InputError
from kerasgreedy.export.card import write_assets
from kerasgreedy.runs.open_run import open_pipeline
from kerasgreedy.runs.workdir import Workdir


def _written(folder, text, name="s.yaml"):
    (folder / name).write_text(text)
    return folder / name


def _folder_run(tmp_path, *sets):
    """A run on small pictures of two classes in folders."""
    root = tmp_path / "secret" / "pets"
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = tf.io.encode_png(rng.integers(0, 256, (12, 9, 3)).astype(np.uint8))
                (root / split / name / f"{index}.png").write_bytes(image.numpy())
    sets = [
        f"data={{dataset: 'folder:{root}', image_size: 8, validation: 0}}",
        "training={epochs: 1, batch_size: 8}",
        "blocks=[{conv: 4}]",
        *sets,
    ]
    return kg.train_spec(
        _written(tmp_path, BRANCHED), _written(tmp_path, "name: r\n", "r.yaml"), sets, tmp_path / "run", quiet=True
    )


def test_paths_of_this_machine_stay_here(tmp_path):
    run = _folder_run(tmp_path)
    done = kg.export_run(run.workdir, tmp_path / "out", quiet=True)
    assert done["card"]["data"] == {
        "dataset": "folder:pets", "licence": "not known", "training_images": 40, "validation_images": 0, "classes": 2,
    }  # fmt: skip
    assert done["card"]["class_names"] == ["cat", "dog"]
    assert b"secret" not in b"".join(tree(tmp_path / "out").values())


@pytest.mark.slow
def test_files_of_which_training_took_the_centre(tmp_path):
    """`serve_encoded` gives for the test files what the network gives for the images that the run was evaluated on."""
    run = _folder_run(tmp_path, "data.test_resize=10")
    done = kg.export_run(run.workdir, tmp_path / "out", quiet=True)
    job, network = kg.prepare(*Workdir.open(run.workdir).documents()), kg.load_network(run.workdir)
    pipeline = open_pipeline(job, None, Workdir.open(run.workdir))
    expected = [softmax64(network.logits(images)[0]) for images, *_ in pipeline.evaluation("test", 8)]
    files = sorted((tmp_path / "secret/pets/test").rglob("*.png"))
    served = tf.saved_model.load(done["out"]).signatures["serve_encoded"]
    received = served(image_bytes=tf.constant([file.read_bytes() for file in files]))["probabilities"]
    np.testing.assert_allclose(received, np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("name", ["two\nlines", "", "no text \udcff"])
def test_names_that_no_list_can_hold_are_refused(name, finished, tmp_path):
    job = kg.prepare(*Workdir.open(finished.workdir).documents())
    names = (name, *job.data.class_names[1:])
    job = dataclasses.replace(job, data=dataclasses.replace(job.data, class_names=names))
    with pytest.raises(InputError, match="is not one line of text; rename the class"):
        write_assets(tmp_path, {}, job)
    assert list(tmp_path.iterdir()) == []
