# Sourced by run_swe_contextrl.sh and run_vl_contextrl.sh: set up the machine, then run one job.
# shellcheck shell=bash

# run_job MODULE DEFAULT_PRESET SETUP_FLAG ARGUMENT...: of the presets, those of the job's kind are
# known: with `vl` in their names for the vision job, without it for the other.
run_job() {
    local module=$1 preset=$2 flag=$3 known=() each argument device=() command
    local script=scripts/run_${module%_job}_contextrl.sh resumed='' before='' subject settings
    shift 3
    for argument in "$@"; do
        case $argument in
            preset=*) preset=${argument#preset=} ;;
            --resume=*) resumed=${argument#--resume=} ;;
            *) [[ $before != --resume ]] || resumed=$argument ;;
        esac
        before=$argument
    done
    for each in verl_ext/config/preset/*.yaml; do
        each=$(basename "$each" .yaml)
        if [[ $module == vl_job && $each == *vl* || $module != vl_job && $each != *vl* ]]; then
            known+=("$each")
        fi
    done
    if [[ " ${known[*]} " != *" $preset "* ]]; then
        echo "error: expected a preset of: ${known[*]}, found $preset" >&2
        exit 1
    fi
    subject="preset $preset"
    settings=verl_ext/config/preset/$preset.yaml
    # A resumed run keeps the preset it began with, and all that was set beside it.
    if [[ -n $resumed && -f $resumed/composed.yaml ]]; then
        subject="run $resumed"
        settings=$resumed/composed.yaml
    fi
    if ! grep -q '^  needs_gpu: false' "$settings"; then
        device=(--gpu)
        nvidia-smi -L >/dev/null 2>&1 || {
            echo "error: $subject expects a CUDA GPU, nvidia-smi found none; run it on a GPU node, or" \
                "run the default preset: bash $script" >&2
            exit 1
        }
    fi

    bash scripts/setup.sh ${flag:+"$flag"} "${device[@]}"
    # Tensors of a few megabytes are allocated anew at every operation; in huge pages a step on a CPU
    # takes a seventh less.
    if ((${#device[@]} == 0)); then
        export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
        # Bars of models that are read in a blink, between our own lines.
        export HF_HUB_DISABLE_PROGRESS_BARS=${HF_HUB_DISABLE_PROGRESS_BARS:-1}
    fi
    command=(.venv/bin/python -m "contextrl.scripts.$module" "$@")
    echo "+ ${command[*]}" >&2
    exec "${command[@]}"
}
