#!/bin/bash
# Two machines with eight GPUs each. Submit it from a folder that all machines see: sbatch slurm.sh
#SBATCH --job-name=learn-to-steer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname --ip-address | awk '{print $1}'):6379
export OMP_NUM_THREADS=1 # a worker for each GPU; the number of threads changes results on CPUs by rounding

# Starts Ray on all machines, runs the command on the first, and ends Ray. If the job is stopped, submit it again: it
# goes on where it stopped.
srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_NNODES" --num-gpus 8 -- \
    learn-to-steer fit --model flux:dev --limit 24000 --ray "$address" --out out/flux-dev
