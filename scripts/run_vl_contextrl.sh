#!/usr/bin/env bash
# The second job: image questions and pairs of images, GRPO + CA, and what it all did. No Docker.
#
#   bash scripts/run_vl_contextrl.sh                          a tiny Qwen2.5-VL on this machine's CPU
#   bash scripts/run_vl_contextrl.sh preset=tiny-vl3-cpu      a tiny Qwen3-VL
#   bash scripts/run_vl_contextrl.sh preset=qwen2.5-vl-7b     on GPUs; qwen3-vl-8b likewise
#   bash scripts/run_vl_contextrl.sh ca.lam=0                 any further argument overrides a setting
#   bash scripts/run_vl_contextrl.sh --resume runs/NAME       go on with an interrupted run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/run_job.sh
source scripts/run_job.sh
run_job vl_job tiny-vl-cpu "" "$@"
