"""New classes on the blocks of a run, an export, a Keras model: the blocks are theirs and stay, and the features are right."""

import json
import shutil

import keras
import numpy as np
import pytest
from conftest import TINY_SPEC, same_weights, spec_of, weights
from keras import layers
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from kerasgreedy.errors import InputError, SpecError, WorkdirError
from kerasgreedy.export.export_run import Export, export_run
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network
from kerasgreedy.runs import start_sources
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.transfer_run import first_blocks, transfer_learn

QUICK = ["training.epochs=2", "data.validation=6", "training.batch_size=8", "data.test=0.25"]

GREY = ["input_shape=[8, 8, 1]", "data.image_size=null"]


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Pictures of three digits, under other names."""
    place = tmp_path_factory.mktemp("data") / "flowers"
    digits = load_digits()
    for label, name in enumerate(("aster", "daisy", "rose")):
        (place / name).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:20]):
            Image.fromarray((image * 15.9).astype(np.uint8)).save(place / name / f"{number:02}.png")
    return place


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "digits"
    export_run(finished.workdir, folder, Export(features_depth=2))
    return folder


def blocks_of(run, count):
    return {
        key: value for key, value in weights(run.workdir).items() if key.split("/")[0] in [f"block_{i + 1}" for i in range(count)]
    }


def test_of_a_run(finished, flowers, tmp_path, call):
    """Its blocks stay bit for bit, its normalisation holds, and the features are cached; the command says what it does."""
    command = f"transfer-learn {finished.workdir} --data {flowers} -w {tmp_path / 'new'} " + " ".join(
        f"-s {s}" for s in QUICK[:3]
    )
    code, out, err = call(command)
    assert code == 0, err
    assert "a fifth of each class is kept for testing" in err and "run folder:" in out and "cifar" not in err
    run = resume_run(tmp_path / "new", quiet=True)
    same_weights(blocks_of(run, 3), blocks_of(finished, 3))
    facts, theirs = (json.loads((place / "run.json").read_text()) for place in (run.workdir, finished.workdir))
    assert facts["normalization"] == theirs["normalization"] and facts["data"]["class_names"] == ["aster", "daisy", "rose"]
    (phase,) = json.loads((run.workdir / "plan.json").read_text())
    assert (phase["trains"], phase["cache"], phase["frozen"]) == (["head_3"], "memory", ["block_1", "block_2", "block_3"])
    assert run.network.architecture.heads[-1].parameters == 4 * 6 * 3 + 3  # linear, on 2x2


@pytest.mark.slow
def test_the_head_is_a_logistic_regression_on_the_features(finished, flowers, tmp_path):
    """Trained to its end without validation images, it answers as scikit-learn's does."""
    sets = ["data.validation=0", "data.test=0.25", "training.keep=last", "training.epochs=400", "training.batch_size=45"]
    sets += ["training.schedule=constant", "training.optimizer={name: sgd, learning_rate: 0.1, weight_decay: 0.02}"]
    run = transfer_learn(
        finished.workdir, overrides=[f"data.dataset=folder:{flowers}", *sets], workdir=tmp_path / "new", quiet=True
    )
    images, labels = [], []
    for label, folder in enumerate(sorted(flowers.iterdir())):
        for file in sorted(folder.iterdir()):
            images.append(np.asarray(Image.open(file), np.float32)[..., None])
            labels.append((label, f"{folder.name}/{file.name}"))
    mean, deviation = (np.array(part, np.float32) for part in finished.network.facts.normalization)
    x = (np.stack(images) - mean) / deviation
    for block in finished.network.blocks:
        x = block(x, training=False)
    x = np.asarray(x)
    pooled = x.reshape(len(x), 2, x.shape[1] // 2, 2, x.shape[2] // 2, -1).mean(axis=(2, 4)).reshape(len(x), -1)
    tests = set(json.loads((run.workdir / "run.json").read_text())["data"]["test_files"])
    kept = np.array([not any(name.endswith(test) for test in tests) for _, name in labels])
    targets = np.array([label for label, _ in labels])
    pooled = np.concatenate([pooled, np.ones((len(pooled), 1))], axis=1)  # weight decay takes the bias too
    exact = LogisticRegression(C=1 / (0.02 * kept.sum()), max_iter=9000, tol=1e-10, fit_intercept=False)
    theirs = exact.fit(pooled[kept], targets[kept]).coef_.T
    head = {key.rpartition("/")[2]: value for key, value in weights(run.workdir).items() if key.startswith("head_3")}
    ours = np.concatenate([head["kernel"], head["bias"][None]])
    # Both are known up to the same number added to all classes, which decay takes away.
    np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())


def test_of_an_export(finished, exported, flowers, tmp_path):
    """The SavedModel alone is enough: the run may be gone."""
    run = transfer_learn(exported, overrides=[f"data.dataset=folder:{flowers}", *QUICK], workdir=tmp_path / "new", quiet=True)
    same_weights(blocks_of(run, 2), blocks_of(finished, 2))
    assert run.network.facts.normalization == finished.network.facts.normalization
    assert len(run.network.blocks) == 2 and run.results["depths"][0]["depth"] == 2
    with pytest.raises(InputError, match="--blocks: received 3; .* gives 2"):
        transfer_learn(exported, blocks=3, workdir=tmp_path / "other", quiet=True)
    with pytest.raises(InputError, match="gives blocks, and no heads; say start_blocks"):
        train_spec(
            exported / "1/assets/spec.yaml", None, [f"start_from={exported}", "data.image_size=null"], tmp_path / "w", quiet=True
        )
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_an_export_that_changed_is_refused(finished, flowers, tmp_path):
    export_run(finished.workdir, tmp_path / "export", Export())
    file = next((tmp_path / "export/1/variables").glob("*.data*"))
    file.write_bytes(file.read_bytes()[:-9] + b"123456789")
    with pytest.raises(Exception, match="damaged"):
        transfer_learn(
            tmp_path / "export", overrides=[f"data.dataset=folder:{flowers}", *QUICK], workdir=tmp_path / "new", quiet=True
        )
    assert not (tmp_path / "new").exists()


def keras_model(scaling=True):
    """As `TINY`'s first block; then something that no spec says."""
    images = keras.Input((8, 8, 1))
    x = layers.Rescaling(1 / 127.5, -1.0)(images) if scaling else images
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1e-5)(x))
    model = keras.Model(images, layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3, activation="gelu")(x))))
    model.layers[2 if scaling else 1].set_weights([np.random.default_rng(0).normal(size=(3, 3, 1, 4))])
    return model


def test_of_a_keras_model(flowers, tmp_path, monkeypatch, files, call):
    model = keras_model()
    model.save(tmp_path / "net.keras")
    sets = [f"data.dataset=folder:{flowers}", *GREY, *QUICK]
    own = {"spec": files[0], "blocks": 1, "quiet": True}
    run = transfer_learn(tmp_path / "net.keras", overrides=sets, workdir=tmp_path / "new", **own)
    np.testing.assert_array_equal(weights(run.workdir)["block_1/conv_1/kernel"], model.layers[2].get_weights()[0])
    assert run.network.facts.normalization == ([127.5], [127.5])
    with pytest.raises(InputError, match="start_pixels: .* scales its images itself; leave it out"):
        transfer_learn(tmp_path / "net.keras", overrides=[*sets, "start_pixels=tf"], workdir=tmp_path / "a", **own)
    keras_model(scaling=False).save(tmp_path / "bare.keras")
    with pytest.raises(InputError, match="say start_pixels"):
        transfer_learn(tmp_path / "bare.keras", overrides=sets, workdir=tmp_path / "a", **own)
    bare = transfer_learn(tmp_path / "bare.keras", overrides=[*sets, "start_pixels=tf"], workdir=tmp_path / "bare", **own)
    same_weights(weights(bare.workdir), weights(run.workdir))
    monkeypatch.setattr(start_sources, "_application", lambda name, shape: model)
    named = transfer_learn("keras.applications:MyNet", overrides=sets, workdir=tmp_path / "named", **own)
    same_weights(weights(named.workdir), weights(run.workdir))
    images = keras.Input((8, 8, 1))
    keras.Model(images, layers.Lambda(lambda x: x)(images)).save(tmp_path / "code.keras")
    with pytest.raises(InputError, match="cannot be loaded"):
        transfer_learn(tmp_path / "code.keras", overrides=sets, workdir=tmp_path / "a", **own)
    (tmp_path / "broken.keras").write_bytes(b"PK no model")
    code, _, err = call(
        f"transfer-learn {tmp_path / 'broken.keras'} --spec {files[0]} --data {flowers} -s data.image_size=8 -w {tmp_path / 'b'}"
    )
    assert code == 2 and "cannot be loaded" in err and "Traceback" not in err and not (tmp_path / "b").exists()


def test_the_whole_network_trains_on_after_that(finished, flowers, tmp_path):
    overrides = [f"data.dataset=folder:{flowers}", *QUICK]
    head = transfer_learn(finished.workdir, blocks=2, overrides=overrides, workdir=tmp_path / "head", quiet=True)
    more = [*overrides, f"start_from={head.workdir}", "strategy=end_to_end", "training.optimizer.learning_rate=0.001"]
    whole = train_spec(head.workdir / "spec.yaml", "transfer", more, tmp_path / "whole", quiet=True)
    moved = blocks_of(whole, 2)
    assert any(np.any(moved[key] != value) for key, value in blocks_of(finished, 2).items())


def test_a_source_that_changed_before_its_weights_were_taken(flowers, tmp_path, monkeypatch, files):
    """A kill between the run folder and its first checkpoint, and another model in the file since."""
    from kerasgreedy.train import entry_points

    keras_model().save(tmp_path / "net.keras")
    own = {"spec": files[0], "blocks": 1, "quiet": True, "workdir": tmp_path / "new"}
    monkeypatch.setattr(entry_points, "_train", lambda *_: (_ for _ in ()).throw(SystemError("killed")))
    with pytest.raises(SystemError):
        transfer_learn(tmp_path / "net.keras", overrides=[f"data.dataset=folder:{flowers}", *GREY, *QUICK], **own)
    monkeypatch.undo()
    other = keras_model()
    other.layers[1].scale = 1 / 255
    other.save(tmp_path / "net.keras")
    with pytest.raises(InputError, match="changed since this run began: its images are normalised otherwise"):
        resume_run(tmp_path / "new", quiet=True)


@pytest.mark.slow
def test_named_and_repeated_blocks_and_sets_by_name(files, tmp_path, call):
    files[0].write_text("name: n\nblocks: [{conv: 3}, {layers: [{conv: 4}], repeat: 3, name: wide}]\n")
    source = train_spec(*files, ["training.epochs=1"], tmp_path / "source", quiet=True)
    same = ["data.validation=32", "data.train_examples=160", "data.test_examples=50", "training.epochs=1"]
    for count in (1, 2, 3, 4):
        own = {"overrides": ["data.dataset=digits", "data.corrupt=error", *same], "workdir": tmp_path / str(count)}
        run = transfer_learn(source.workdir, blocks=count, quiet=True, **own)
        assert [block.name for block in run.network.architecture.blocks] == ["block_1", "wide_1", "wide_2", "wide_3"][:count]
    code, out, err = call(
        f"transfer-learn {source.workdir} --data digits {' '.join(f'-s {s}' for s in same)} -w {tmp_path / 'named'}"
    )
    assert code == 0 and "run folder" in out, err


def test_three_channels_for_grey_images(flowers, tmp_path, files):
    keras_model(scaling=False).save(tmp_path / "bare.keras")
    with pytest.raises(InputError, match="start_pixels: 'torch' is of images of 3 channels"):
        sets = [f"data.dataset=folder:{flowers}", *GREY, *QUICK, "start_pixels=torch"]
        transfer_learn(tmp_path / "bare.keras", files[0], "transfer", 1, sets, tmp_path / "new", True)


def test_a_card_that_does_not_say(exported, tmp_path, flowers):
    shutil.copytree(exported, tmp_path / "export")
    card = tmp_path / "export/1/assets/model_card.json"
    card.write_text(json.dumps({key: v for key, v in json.loads(card.read_text()).items() if key != "features_depth"}))
    with pytest.raises(WorkdirError, match="damaged .features_depth: None"):
        transfer_learn(tmp_path / "export", overrides=[f"data.dataset=folder:{flowers}", *QUICK], workdir=tmp_path / "new")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("transfer-learn nowhere --data FLOWERS", "SOURCE: received 'nowhere'; allowed: a run folder, an exported version"),
        ("transfer-learn RUN --data FLOWERS --spec vgg16", "a run and an export have their own; leave it out"),
        ("transfer-learn RUN --data FLOWERS --blocks 4", "--blocks: received 4; RUN gives 3"),
        ("transfer-learn keras.applications:VGG16 --data FLOWERS", "a Keras model needs --spec"),
        ("transfer-learn RUN --data FLOWERS -s start_pixels=tf", "start_pixels: is for a Keras model"),
        (
            "transfer-learn RUN --data FLOWERS -s data.image_size=16 -s input_shape=[16,16,1]",
            "start_from: block_1 differs between",
        ),
        ("transfer-learn keras.applications:Vgg16 --spec vgg16 --data FLOWERS -s data.image_size=32", "did you mean 'VGG16'"),
    ],
)
def test_bad_words(command, message, finished, flowers, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(command.replace("RUN", str(finished.workdir)).replace("FLOWERS", str(flowers)))
    assert code == 2 and message.replace("RUN", str(finished.workdir)) in " ".join(err.split()), err
    assert not (tmp_path / "runs").exists()


def test_start_pixels_has_to_stand_beside_a_start(files, tmp_path):
    with pytest.raises(SpecError, match="start_pixels: there is no start_from; leave it out"):
        train_spec(*files, ["start_pixels=tf"], tmp_path / "run", quiet=True)


def test_first_blocks_of_repeated_ones():
    text = "name: s\nblocks: [{conv: 2}, {layers: [{conv: 3}], repeat: 3, head: {hidden_layers: 1}}, {conv: 4}]\n"
    spec = spec_of(text).value
    assert [sum(b.get("repeat", 1) for b in first_blocks(spec, n)) for n in range(1, 6)] == [1, 2, 3, 4, 5]
    assert all("head" not in block for block in first_blocks(spec, 5))
    whole, part = (
        architecture(spec_of(text, *sets).value, (8, 8, 1), 3) for sets in ([], [f"blocks={json.dumps(first_blocks(spec, 3))}"])
    )
    assert [b.nodes for b in part.blocks] == [b.nodes for b in whole.blocks[:3]]
    assert Network(part).names[:3] == ["block_1", "block_2", "block_3"] and TINY_SPEC
