#!/bin/bash
# One training run over all GPUs of several machines, a task per GPU, as a SLURM job: sbatch examples/slurm.sh
# The run's directory must lie on a file system that all machines share.
#SBATCH --job-name=jaxrl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

RUN=${RUN:-runs/slurm-${SLURM_JOB_ID:?this is started by sbatch}}
ATTEMPTS=${ATTEMPTS:-4}
STARTED=$(mktemp)
trap 'rm -f "$STARTED"' EXIT

for attempt in $(seq "$ATTEMPTS"); do
    # The directory of a run that has begun has a config.yaml: such a run goes on from its last checkpoint.
    where=(--run-dir "$RUN")
    if [ -f "$RUN/config.yaml" ]; then where=(--resume "$RUN"); fi
    touch "$STARTED"
    # auto reads SLURM's variables: rank 0 is the first task of the first node, and each task takes one GPU. A rank that
    # breaks takes no other along at once: these notice within ten seconds and say why they end.
    srun --kill-on-bad-exit=0 --wait=60 \
        python -m jaxrl_engine.run --platform gpu --distributed auto --distributed-timeout 300 \
        --env reacher --num-envs 65536 --num-steps 32 --total-steps 10000000000 \
        --ppo.shuffle-groups 16 --evaluation.count 10 --quiet "${where[@]}"
    code=$?
    case $code in
        0 | 2 | 130 | 143) exit "$code" ;; # finished, a wrong setting, or asked to end with a checkpoint
    esac
    if [ "$RUN/summary.json" -nt "$STARTED" ]; then exit "$code"; fi # the run itself failed, and would again
    echo "attempt $attempt of $ATTEMPTS ended with exit code $code" >&2
done
exit 1
