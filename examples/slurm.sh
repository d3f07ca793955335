#!/bin/bash
# Pretrains on several hosts of a Slurm cluster, with PyTorch.
#
#   sbatch --nodes 4 --gpus-per-node 8 examples/slurm.sh \
#       simclr --recipe imagenet --data folder:/data/imagenet \
#       --output runs/simclr
#
# One torchrun runs on each host; each starts a process for each GPU. Slurm's
# warning before the time limit stops the run after its step, with a checkpoint:
# submit the same again with `--resume --output runs/simclr`.
#SBATCH --job-name=kerassl
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
set -euo pipefail

# The first host of the job, where the processes find each other.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export KERAS_BACKEND=torch
# torchrun would kill processes that haven't saved after 30 seconds.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600

srun torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" \
  --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$(head -n 1 <<<"$hosts"):${PORT:-29500}" \
  -m kerassl pretrain "$@"
