#!/usr/bin/env bash
# The main job: tasks, a policy, pairs, GRPO + CA in real sandboxes, and what it all did.
#
#   bash scripts/run_swe_contextrl.sh                        a tiny policy on this machine's CPU
#   bash scripts/run_swe_contextrl.sh preset=qwen3-8b        Qwen3-8B on GPUs; klear-8b likewise
#   bash scripts/run_swe_contextrl.sh ca.lam=0               any further argument overrides a setting
#   bash scripts/run_swe_contextrl.sh --resume runs/NAME     go on with an interrupted run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/run_job.sh
source scripts/run_job.sh
# Without an engine the job runs in namespaces, if it can, and says so.
run_job swe_job tiny-cpu --docker-if-possible "$@"
