"""Example files for clusters: syntax, field names of KubeRay and Slurm, and a run of the Slurm script."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nngen.cli.campaign import app

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install pyyaml")

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
KUBERAY = EXAMPLES / "kuberay"
SBATCH = EXAMPLES / "slurm" / "nngen.sbatch"

WITH_RAY = importlib.util.find_spec("ray") is not None

# Field names of KubeRay's API ray.io/v1 (raycluster_types.go, rayjob_types.go) and of Kubernetes' pods.
FIELDS = {
    "RayCluster": {"rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions"},
    "RayJob": {
        "entrypoint",
        "clusterSelector",
        "rayClusterSpec",
        "submissionMode",
        "runtimeEnvYAML",
        "backoffLimit",
        "activeDeadlineSeconds",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
    },
    "PersistentVolumeClaim": {"accessModes", "resources", "storageClassName"},
}
HEAD = {"rayStartParams", "template", "serviceType"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"}
POD = {"containers", "volumes", "securityContext", "nodeSelector", "tolerations"}
CONTAINER = {"name", "image", "env", "ports", "resources", "volumeMounts"}

SRUN = """#!/usr/bin/env bash
echo "srun $*" >> "$SRUN_LOG"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


def _objects():
    texts = [path.read_text(encoding="utf-8") for path in sorted(KUBERAY.glob("*.yaml"))]
    return [entry for text in texts for entry in yaml.safe_load_all(text)]


def _groups():
    cluster = next(entry for entry in _objects() if entry["kind"] == "RayCluster")["spec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_kuberays_fields_are_its_own():
    assert sorted(entry["kind"] for entry in _objects()) == ["PersistentVolumeClaim", "RayCluster", "RayJob"]
    for entry in _objects():
        assert entry["apiVersion"] == ("v1" if entry["kind"] == "PersistentVolumeClaim" else "ray.io/v1")
        assert set(entry["spec"]) <= FIELDS[entry["kind"]]
    head, *workers = _groups()
    assert set(head) <= HEAD
    for group in workers:
        assert set(group) <= GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("group", _groups(), ids=["head", "trainers"])
def test_pods_hang_together(group):
    assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    pod = group["template"]["spec"]
    assert set(pod) <= POD
    (container,) = pod["containers"]
    assert set(container) <= CONTAINER
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    claims = [entry["metadata"]["name"] for entry in _objects() if entry["kind"] == "PersistentVolumeClaim"]
    for volume in pod["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in claims
    assert container["image"] in (KUBERAY / "Dockerfile").read_text(encoding="utf-8")


def test_the_job_names_the_cluster_and_flags_that_exist():
    objects = {entry["kind"]: entry for entry in _objects()}
    job, cluster = objects["RayJob"]["spec"], objects["RayCluster"]
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    _flags_exist(job["entrypoint"])
    version = cluster["spec"]["rayVersion"]
    assert f"RAY={version}" in (KUBERAY / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_for_the_cpu_takes_the_torch_that_nngen_takes():
    with (EXAMPLES.parent / "pyproject.toml").open("rb") as file:
        needed = tomllib.load(file)["project"]["dependencies"]
    compose = yaml.safe_load((EXAMPLES.parent / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    dockerfile = EXAMPLES.parent / compose["services"]["head"]["build"]["dockerfile"]
    # Another torch would be replaced by the CUDA build of one that fits, five times as large.
    named = re.findall(r"'(torch\w*[><=][^']*)'", dockerfile.read_text(encoding="utf-8"))
    assert sorted(named) == [one for one in needed if one.startswith("torch")]


def test_the_slurm_script_is_bash_and_its_flags_exist():
    subprocess.run(["bash", "-n", SBATCH], check=True)
    text = SBATCH.read_text(encoding="utf-8")
    for line in text.splitlines():
        if "nngen campaign run" in line or line.startswith("#   sbatch"):
            _flags_exist(line)
    asked = re.findall(r"^#SBATCH --([a-z-]+)=", text, flags=re.MULTILINE)
    assert set(asked) == {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "mem", "time", "open-mode"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'")
@pytest.mark.usefixtures("wheel")
def test_the_slurm_script_runs_a_campaign(tmp_path):
    """The two commands of Slurm are stubs; Ray and nngen are real."""
    scratch = Path(f"/tmp/nngen-{os.getpid()}")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho this-node\n")):
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o755)
    slurm = {"JOB_ID": str(os.getpid()), "JOB_NODELIST": "this-node", "CPUS_PER_TASK": "1", "MEM_PER_NODE": "4000"}
    environment = {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in slurm.items()},
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SRUN_LOG": str(tmp_path / "srun.log"),
    }
    families = "ICNet,MobileNetV3,ShuffleNet,SqueezeNet-1"
    command = [SBATCH, "one", "--size", "1", "--families", families, "--threads", "1", "--memory-mib", "2000", "--json"]
    done = subprocess.run(
        ["bash", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    # Ray prints to the same file, as it does in a job's.
    told, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index('{\n  "campaign"') :])
    assert (told["campaign"], told["done"], told["failed"]) == ("one", 1, 0)
    said = (tmp_path / "srun.log").read_text(encoding="utf-8").splitlines()
    assert "ray start" in said[1]
    assert "--head" in said[1]
    assert said[-1].endswith(f"rm -rf {scratch}")
    assert not scratch.exists()


def _flags_exist(line):
    known = {name for argument in app["run"].assemble_argument_collection() for name in argument.names}
    flags = set(re.findall(r"--[a-z][a-z-]*", line))
    assert flags <= known, flags - known
