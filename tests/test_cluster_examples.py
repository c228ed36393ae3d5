"""The examples for clusters: read as their readers read them, and tried with a stand-in for the cluster."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from jaxrl_engine.runtime.config import parse

ROOT = Path(__file__).resolve().parent.parent
SLURM = ROOT / "examples" / "slurm.sh"
FAKE_SRUN = """#!/bin/bash
shift 2
echo "$@" >> "$CALLS"
IFS=' ' read -r code rest < "$CODES"
echo "$rest" > "$CODES"
mkdir -p "$RUN"; touch "$RUN/config.yaml"
if [ "$code" = 3 ]; then sleep 0.1; touch "$RUN/summary.json"; fi
exit "$code"
"""


def slurm(directory, codes):
    """Run the job with a srun that ends with these codes in turn; return the job's own code and what srun was told."""
    (directory / "srun").write_text(FAKE_SRUN)
    (directory / "srun").chmod(0o755)
    (directory / "codes").write_text(codes + "\n")
    environment = {
        **os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "CALLS": str(directory / "calls"),
        "CODES": str(directory / "codes"), "RUN": str(directory / "run"), "SLURM_JOB_ID": "17",
    }  # fmt: skip
    done = subprocess.run(["bash", str(SLURM)], env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, (directory / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "ended", "calls"),
    [("0", 0, 1), ("143", 143, 1), ("2", 2, 1), ("1 137 0", 0, 3), ("1 1 1 1 0", 1, 4), ("1 3 0", 3, 2)],
)  # 3: the run has written down how it ended
def test_a_job_starts_again_what_broke_and_nothing_else(tmp_path, codes, ended, calls):
    code, told = slurm(tmp_path, codes)
    assert (code, len(told)) == (ended, calls)
    assert "--run-dir" in told[0] and all("--resume" in line and "--run-dir" not in line for line in told[1:])


def arguments(command):
    """What a shell command line of the engine's gives to it."""
    return command.split("python -m jaxrl_engine.run", 1)[1].split()


def test_the_engine_understands_what_the_job_tells_it(tmp_path):
    _, (told,) = slurm(tmp_path, "0")
    invocation = parse(arguments(told))
    assert invocation.distributed == "auto"
    # A task per GPU, two nodes of eight: the groups of the shuffle and the environments divide among them.
    assert invocation.config.num_envs % 16 == 0 == invocation.config.ppo.shuffle_groups % 16


def test_the_pods_are_the_ranks():
    service, job = yaml.safe_load_all((ROOT / "examples" / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = {each["name"]: each["value"] for each in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(settings["RANKS"])
    assert service["spec"]["clusterIP"] == "None" and service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["restartPolicy"] == "Never"  # the only one that podFailurePolicy admits
    *shell, script = container["command"]
    assert shell == ["bash", "-c"]
    echo = script.replace("exec python -m jaxrl_engine.run", "echo python -m jaxrl_engine.run")
    variables = {**settings, "RUN": "/nowhere", "JOB_COMPLETION_INDEX": "3", "PATH": os.environ["PATH"]}
    said = subprocess.run([*shell, echo], env=variables, capture_output=True, text=True, check=True).stdout
    invocation = parse(arguments(said))
    assert invocation.distributed == f"{job['metadata']['name']}-0.{pod['subdomain']}:7000,3,4"
    assert invocation.devices == "all" and str(invocation.run_dir) == "/nowhere"
    gpus = int(settings["RANKS"]) * container["resources"]["limits"]["nvidia.com/gpu"]
    assert invocation.config.num_envs % gpus == 0 == invocation.config.ppo.shuffle_groups % gpus
