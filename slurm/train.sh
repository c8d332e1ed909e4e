# The body of a training job: train.py with the arguments given, on every GPU of every node (without any, one task a node).
if [[ -f slurm/site.env ]]; then source slurm/site.env; fi
tasks=${SLURM_GPUS_ON_NODE:-1}
unset SLURM_CPUS_PER_GPU SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK # sbatch's, which would contradict srun's own below
# train.py takes note of signals from its first line on; until then one must not kill it
srun --kill-on-bad-exit=1 --ntasks=$((SLURM_JOB_NUM_NODES * tasks)) --ntasks-per-node="$tasks" \
  --cpus-per-task=$((SLURM_CPUS_ON_NODE / tasks)) \
  bash -c 'trap "" USR1 USR2; exec "$@"' - \
  python train.py trainer.devices="$tasks" trainer.num_nodes="$SLURM_JOB_NUM_NODES" "$@"
