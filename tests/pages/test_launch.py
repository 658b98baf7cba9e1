"""docs/distribution.md, block by block; its launch scripts with programs in the place of Slurm's and of this package's."""

import json
import os
import subprocess

import pytest
import yaml

from kerasgreedy.runs import cluster
from kerasgreedy.runs.devices import check_tf_config


@pytest.fixture
def launched(tmp_path):
    """(script, place of the run folder, environment) -> TF_CONFIG and arguments that `kerasgreedy` gets."""
    (tmp_path / "programs").mkdir()
    for name, text in {
        "kerasgreedy": 'printf "%s" "$TF_CONFIG" | tr -d "\\n"; printf "\\n%s\\n" "$*"',
        "scontrol": '[ "$*" = "show hostnames node[7-8]" ] && printf "node7\\nnode8\\n"',
        "srun": '[ "$1" = bash ] && exec "$@"',
    }.items():
        (tmp_path / "programs" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "programs" / name).chmod(0o755)

    def launch(script, place, **environment):
        script = script.replace("/shared/runs/vgg", str(place))
        answer = subprocess.run(
            ["bash", "-eu", "-c", script],
            env={"PATH": f"{tmp_path}/programs:{os.environ['PATH']}", **environment},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        config, arguments = answer.stdout.splitlines()
        check_tf_config(config)
        return json.loads(config), arguments

    return launch


@pytest.mark.slow
def test_page_distribution(page, launched, monkeypatch):
    """A run on two devices, one of two workers, one that goes on elsewhere; what each worker of a cluster is told."""
    monkeypatch.setattr(cluster, "_resolve", lambda hosts: None)  # those of the page are of nobody's network
    monkeypatch.setattr(cluster, "_check_own", lambda place: None)
    two, _, resumed = page.commands("kerasgreedy train vgg11_k3 --devices 2")
    page.says("the first line of a run says both: `on 2 GPUs: batches of 128, 64 on each`")
    assert "on 2 CPUs: batches of 16, 8 on each" in two.err
    assert "training is already done" in resumed.err
    facts = [json.loads((page.folder / f"runs/{name}/run.json").read_text())["devices"] for name in ("two", "workers")]
    assert [(row["replicas"], row["workers"]) for row in facts] == [(2, 1), (2, 2)]
    assert [path.name for path in (page.folder / "runs").iterdir() if path.is_dir()].count(
        "workers"
    ) == 1  # only the chief writes

    by_hand = page.take("TF_CONFIG=").text
    place = page.folder / "vgg"
    for index in range(2):  # "and the same with `"index": 1` on host2"
        told = told_to(launched, by_hand.replace('"index": 0', f'"index": {index}'), place)
        assert told == (["host1:12345", "host2:12345"], index, f"train vgg11_k3 --distribute multi_worker -w {place}")
    page.says('and the same with `"index": 1` on host2')
    slurm = page.take("#!/bin/bash\n#SBATCH").text
    kubernetes = container_of(page.take("apiVersion: v1", "yaml").text)["args"][0]
    for script, environment, number, hosts in (
        (slurm, {"SLURM_JOB_NODELIST": "node[7-8]"}, "SLURM_PROCID", ["node7:12345", "node8:12345"]),
        (kubernetes, {}, "JOB_COMPLETION_INDEX", ["train-0.train:12345", "train-1.train:12345"]),
    ):
        for index in range(2):
            told = told_to(launched, script, place, **environment, **{number: str(index)})
            assert told == (hosts, index, f"train vgg11_k3 --distribute multi_worker -w {place}")
        place.mkdir()
        assert told_to(launched, script, place, **environment, **{number: "1"})[2] == f"train --resume {place}"
        place.rmdir()


def told_to(launched, script, place, **environment):
    """Hosts, own index and arguments that a worker gets."""
    config, arguments = launched(script, place, **environment)
    assert config["task"]["type"] == "worker" and list(config["cluster"]) == ["worker"]
    return config["cluster"]["worker"], config["task"]["index"], arguments


def container_of(text):
    """The container of a Job, whose Service, label and volumes fit."""
    service, job = yaml.safe_load_all(text)
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}  # a label that Jobs give their pods
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2 and container["command"] == ["bash", "-c"]
    names = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    return container
