"""Commands: what they print, their JSON, their exit codes."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from kerasgreedy.reports.run_files import read_metrics


def test_summary(command):
    code, out, _ = command("summary", "simcnn_k3_mf512_imagenet")
    assert code == 0 and "46,457,832 parameters (46.5M)" in out and "14x14x1024" in out
    code, out, _ = command("summary", "vgg16", "--json")
    figures = json.loads(out.splitlines()[-1])
    assert figures["parameters"] == 138_357_544 and len(figures["blocks"]) == 13
    assert set(figures["blocks"][0]) == {"name", "output_shape", "parameters", "multiply_adds"}
    assert json.loads(command("summary", "vgg16", "--set", "classes=10", "--json")[1])["classes"] == 10


def test_plan(command):
    code, out, _ = command("plan", "vgg11_k3", "--set", "training.epochs=7")
    assert code == 0 and "block_1 ... block_7" in out and "head_8" in out and "360 test images of 32x32x1" in out
    plan = json.loads(command("plan", "simcnn_k1_cifar", "-r", "quickstart", "--json")[1].splitlines()[-1])
    assert [phase["trains"] for phase in plan["phases"]] == [[f"block_{i}", f"head_{i}"] for i in range(1, 6)]
    assert set(plan["phases"][0]) >= {"name", "trains", "frozen", "epochs", "losses", "solver", "cache"}
    assert plan["input_shape"] == [32, 32, 3]


def test_schema_and_version(command):
    assert json.loads(command("schema", "recipe")[1])["properties"]["strategy"]["enum"][0] == "greedy"
    assert command("--version")[1].startswith("kerasgreedy 0.")


def test_train_evaluate_compare(command, files, tmp_path):
    spec, recipe = files
    code, out, err = command("train", spec, "-r", recipe, "--workdir", tmp_path / "a", "--json")
    assert code == 0 and "phase 3/3 block_3" in err and "epoch 2/2" in err and "img/s" in err
    trained = json.loads(out.splitlines()[-1])
    assert trained["workdir"] == str(tmp_path / "a")
    code, out, _ = command("evaluate", tmp_path / "a", "--json")
    scores = json.loads(out.splitlines()[-1])
    assert scores["depths"] == trained["depths"] and scores["ensemble"] == trained["ensemble"] and scores["examples"] == 50
    assert set(scores["depths"][0]) == {"depth", "top1", "top5", "loss"}
    assert 0 <= scores["ensemble"]["top1"] <= 1

    code, out, _ = command("train", spec, "-r", recipe, "-s", "strategy=end_to_end", "-w", tmp_path / "b", "-q")
    assert code == 0 and "top-1 %" in out
    code, out, _ = command("compare", tmp_path / "a", tmp_path / "b", "--plot", tmp_path / "c.png")
    assert code == 0 and "end_to_end" in out and "top-1 % at depth 3" in out
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    both = json.loads(command("compare", tmp_path / "a", tmp_path / "b", "--json")[1])
    assert [run["strategy"] for run in both["runs"]] == ["greedy", "end_to_end"]


def test_the_first_line_says_that_quickstart_is_taken(command, files, tmp_path):
    spec, _ = files
    sets = ["--set", "training.epochs=1", "--set", "data.image_size=8", "--set", "data.train_examples=100"]
    code, _, err = command("train", spec, *sets, "-w", tmp_path / "run")
    assert code == 0 and "quickstart" in err.splitlines()[0]


def test_divergence_exits_with_4(command, files, tmp_path):
    spec, recipe = files
    code, _, err = command(
        "train", spec, "-r", recipe, "-s", "training.optimizer.learning_rate=1e30", "-w", tmp_path / "run", "-q"
    )
    assert code == 4 and "diverged" in err and "Traceback" not in err


def test_a_fault_of_the_program_exits_with_1_and_debug_shows_it(command, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("ouch")

    monkeypatch.setattr("kerasgreedy.spec.load.load_spec", broken)
    code, _, err = command("summary", "vgg16")
    assert code == 1 and err.startswith("fault of the program: ZeroDivisionError: ouch")
    with pytest.raises(ZeroDivisionError):
        command("summary", "vgg16", "--debug")


def test_sigterm_exits_with_3_and_resume_goes_on(files, tmp_path):
    spec, recipe = files
    program = (
        "import signal, sys\nfrom kerasgreedy.train.progress import Reporter\n"
        "original = Reporter.step\n"
        "def step(self, phase, epoch, step, *rest):\n"
        "    original(self, phase, epoch, step, *rest)\n"
        "    if (phase.index, epoch, step) == (1, 0, 2): signal.raise_signal(signal.SIGTERM)\n"
        "Reporter.step = step\n"
        f"sys.argv = ['kerasgreedy', 'train', {str(spec)!r}, '-r', {str(recipe)!r}, '-w', {str(tmp_path / 'run')!r}]\n"
        "from kerasgreedy.cli.main import main\nmain()\n"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "error: stopped by SIGTERM in phase block_2, epoch 1, step 2; saved" in done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "kerasgreedy", "train", "--resume", str(tmp_path / "run"), "--json"],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120,
    )  # fmt: skip
    assert again.returncode == 0 and "resumed at phase 2, epoch 1, step 3" in again.stderr
    assert len(json.loads(again.stdout.splitlines()[-1])["depths"]) == 3
    assert len(read_metrics(tmp_path / "run")) == 15  # two epochs of training and three of validation for each block
