#!/usr/bin/env bash
# The main job: tasks, a policy, pairs, GRPO + CA in real sandboxes, and what it all did.
#
#   bash scripts/run_swe_contextrl.sh                        a tiny policy on this machine's CPU
#   bash scripts/run_swe_contextrl.sh preset=qwen3-8b        Qwen3-8B on GPUs; klear-8b likewise
#   bash scripts/run_swe_contextrl.sh ca.lam=0               any further argument overrides a setting
#   bash scripts/run_swe_contextrl.sh --resume runs/NAME     go on with an interrupted run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=tiny-cpu
for argument in "$@"; do
    case $argument in preset=*) preset=${argument#preset=} ;; esac
done
file=verl_ext/config/preset/$preset.yaml
[[ -f $file ]] || {
    known=$(cd verl_ext/config/preset && echo *.yaml)
    echo "error: expected a preset of: ${known//.yaml/}, found $preset" >&2
    exit 1
}
device=()
if ! grep -q '^  needs_gpu: false' "$file"; then
    device=(--gpu)
    nvidia-smi -L >/dev/null 2>&1 || {
        echo "error: preset $preset expects a CUDA GPU, nvidia-smi found none; run it on a GPU node, or" \
            "run the default preset: bash scripts/run_swe_contextrl.sh" >&2
        exit 1
    }
fi

# Without an engine the job runs in namespaces, if it can, and says so.
bash scripts/setup.sh --docker-if-possible "${device[@]}"
command=(.venv/bin/python -m contextrl.scripts.swe_job "$@")
echo "+ ${command[*]}" >&2
exec "${command[@]}"
