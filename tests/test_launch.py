"""The launch scripts of docs/distribution.md, with programs in the place of Slurm's and of this package's."""

import json
import os
import re
import subprocess

import pytest
import yaml
from conftest import ROOT

from kerasgreedy.train.devices import check_tf_config

PAGE = (ROOT / "docs/distribution.md").read_text()


@pytest.fixture
def launched(tmp_path):
    """(script, place of the run folder, environment) -> TF_CONFIG and arguments that `kerasgreedy` gets."""
    for name, text in {
        "kerasgreedy": 'printf "%s" "$TF_CONFIG" | tr -d "\\n"; printf "\\n%s\\n" "$*"',
        "scontrol": '[ "$*" = "show hostnames node[7-8]" ] && printf "node7\\nnode8\\n"',
        "srun": '[ "$1" = bash ] && exec "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def launch(script, place, **environment):
        script = script.replace("/shared/runs/vgg", str(place))
        answer = subprocess.run(
            ["bash", "-eu", "-c", script],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        config, arguments = answer.stdout.splitlines()
        check_tf_config(config)
        return json.loads(config), arguments

    return launch


def slurm():
    return (
        re.search(r"```\n(#!/bin/bash\n#SBATCH.*?)```", PAGE, re.DOTALL)[1],
        {"SLURM_JOB_NODELIST": "node[7-8]"},
        "SLURM_PROCID",
    )


def kubernetes():
    service, job = yaml.safe_load_all(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}  # a label that Jobs give their pods
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2 and container["command"] == ["bash", "-c"]
    names = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    return container["args"][0], {}, "JOB_COMPLETION_INDEX"


@pytest.mark.parametrize(("system", "hosts"), [
    (slurm, ["node7:12345", "node8:12345"]), (kubernetes, ["train-0.train:12345", "train-1.train:12345"]),
], ids=["slurm", "kubernetes"])  # fmt: skip
def test_each_worker_gets_its_place_in_the_cluster(system, hosts, launched, tmp_path):
    script, environment, number = system()
    place = tmp_path / "runs/vgg"
    for index in range(2):
        config, arguments = launched(script, place, **environment, **{number: str(index)})
        assert config == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        assert arguments == f"train vgg11_k3 --distribute multi_worker -w {place}"
    place.mkdir(parents=True)
    assert launched(script, place, **environment, **{number: "1"})[1] == f"train --resume {place}"
