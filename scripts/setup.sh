#!/usr/bin/env bash
# Makes .venv from pinned constraints and, when asked, a Docker engine that answers.
# Safe to run again at any time: when nothing changed it takes well under a second.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash scripts/setup.sh [--docker | --docker-if-possible] [--test-tools] [--cpu | --gpu]

  --docker              a Docker engine must answer at the end; installed and started if we may
  --docker-if-possible  the same, but go on without one
  --test-tools          bubblewrap and chromium, which some tests run; installed if we may
  --cpu, --gpu          constraint file to install from (default: what .venv has; for a new one gpu
                        when nvidia-smi lists a device)

environment:
  CONTEXTRL_PYTHON       interpreter for .venv (default: the first supported python3 on PATH)
  CONTEXTRL_TORCH_INDEX  CPU set only. URL: take torch from this index. none: from pip's own
                         configuration. auto (default): from download.pytorch.org/whl/cpu if it
                         answers, which avoids gigabytes of CUDA libraries, else as none
  CONTEXTRL_INSTALL      0 forbids installing system packages and starting a daemon
                         (default: 1, for root or with passwordless sudo)
TEXT
}

declare -rA NEED_GB=([cpu]=8 [gpu]=25)
readonly TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly VENV=$ROOT/.venv
# Exactly one of these lies in a .venv of ours, so that half an installation is never taken for one.
readonly COMPLETE=$VENV/.contextrl-complete PARTIAL=$VENV/.contextrl-partial
readonly LOGS=$ROOT/.cache/setup
readonly NEVER_IMPORTED='site-packages/(.*/tests/'\
'|transformers/models/(?!auto|qwen|clip|siglip|bert|bloom|mistral|encoder_decoder)[^/]+/'\
'|ray/(data|llm|rllib|serve|train|tune)/|litellm/proxy/[^/]+/|(mypyc?|networkx|pip|setuptools|wandb)/'\
'|sympy/physics/|torch/(testing/_internal/(?!__init__|logging_tensor|common_dtype|distributed/(__init__|fake_pg))'\
'|_inductor/(codegen|fx_passes|kernel)/))'

# shellcheck source=scripts/setup_system.sh
source "$ROOT/scripts/setup_system.sh" # say, die, step; system packages; the Docker engine

# ------------------------------------------------------------------------------------------------
# Python

supported() { # INTERPRETER: does veRL run on it? A pyenv shim may exist and not start.
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

version_of() {
    command -v "$1" >/dev/null || { echo "no $1" && return; }
    "$1" --version 2>&1 | tail -n 1 || true
}

find_python() { # sets $python
    if [[ -n ${CONTEXTRL_PYTHON:-} ]]; then
        python=$CONTEXTRL_PYTHON
        supported "$python" ||
            die "expected CONTEXTRL_PYTHON to be Python 3.11 or 3.12, found: $(version_of "$python");" \
                "point it at another one"
        return
    fi
    for python in python3 python3.11 python3.12; do
        if supported "$python"; then return; fi
    done
    die "expected Python 3.11 or 3.12 on PATH, found: $(version_of python3);" \
        "install one (Debian 12: apt-get install python3), or set CONTEXTRL_PYTHON"
}

ensure_venv_module() { # Debian packages it apart
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then return; fi
    may_apt || die "expected the venv module of $python, found none; run: apt-get install python3-venv"
    step "install python3-venv" apt_install python3-venv
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "expected the venv module of $python, found none even after installing python3-venv;" \
            "set CONTEXTRL_PYTHON=/usr/bin/python3"
}

# ------------------------------------------------------------------------------------------------
# .venv

# INTERPRETER: what cannot change under an existing .venv. Its scripts hold absolute paths.
identity() {
    echo "$ROOT $variant $("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1)"
}

contents() { # what an installation was made from
    cat "$ROOT/requirements/constraints-$variant.txt" "$ROOT/pyproject.toml" "$ROOT"/scripts/setup*.sh |
        sha256sum
}

is_same() { # is the .venv there, of this Python, and for this place and variant?
    [[ -f $COMPLETE && -x $VENV/bin/python ]] &&
        [[ $(head -n 1 "$COMPLETE") == "$(identity "${CONTEXTRL_PYTHON:-$VENV/bin/python}")" ]]
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

check_disk() {
    local need=${NEED_GB[$variant]} free_kb
    free_kb=$(df -Pk "$ROOT" | awk 'NR == 2 { print $4 }')
    ((free_kb >= need * 1024 * 1024)) ||
        die "expected $need GB free under $ROOT, found $((free_kb / 1024 / 1024)) GB; free some space"
}

make_venv() {
    if [[ -e $VENV && ! -f $COMPLETE && ! -f $PARTIAL ]]; then
        die "expected no .venv or one made by this script, found another; move $VENV away"
    fi
    check_disk
    rm -rf "$VENV"
    mkdir "$VENV"
    touch "$PARTIAL"
    step "make .venv with $(version_of "$python")" "$python" -m venv "$VENV"
}

install_torch() { # PIN: from the index that CONTEXTRL_TORCH_INDEX means, if any
    local wanted=${CONTEXTRL_TORCH_INDEX:-auto}
    case $wanted in
        none) ;;
        auto)
            [[ $(uname -s) == Linux ]] || return 0
            timeout 6 "$VENV/bin/python" -c \
                'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=4)' \
                "$TORCH_CPU_INDEX/torch/" 2>/dev/null || return 0
            step "install $1 from $TORCH_CPU_INDEX" \
                pip install --no-deps --index-url "$TORCH_CPU_INDEX" "$1" ||
                say "going on with pip's own configuration for $1"
            ;;
        *)
            step "install $1 from $wanted" pip install --no-deps --index-url "$wanted" "$1" ||
                die "expected $1 at CONTEXTRL_TORCH_INDEX=$wanted, found a failure; try none or auto"
            ;;
    esac
}

install() {
    local constraints=$ROOT/requirements/constraints-$variant.txt extras=train,dev
    mv -f "$COMPLETE" "$PARTIAL" 2>/dev/null || true
    step "install the pinned build tools" pip install -c "$constraints" pip setuptools wheel
    if [[ $variant == cpu ]]; then
        install_torch "$(grep '^torch==' "$constraints")"
    else
        extras+=,gpu
    fi
    # Without build isolation, so that sdists are built by the pinned tools too. Compiled afterwards,
    # on all cores: pip does it on one, and not at all is slow where Python may not write what it
    # compiled (PYTHONDONTWRITEBYTECODE).
    step "install contextrl[$extras], the $variant set" \
        pip install --no-build-isolation --no-compile -c "$constraints" -e "${ROOT}[$extras]"
    step "compile it" compile_packages
    if [[ $variant == cpu ]]; then prepare_torchvision; fi
    { identity "$VENV/bin/python" && contents; } >"$PARTIAL"
    mv "$PARTIAL" "$COMPLETE"
}

# Some hold templates and examples that are no Python. What is left out is not imported here, or is
# compiled code already (mypy).
compile_packages() {
    local site
    site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$VENV/bin/python" -m compileall -q -j 0 -x "$NEVER_IMPORTED" "$site" \
        "$ROOT"/{agents,envs,pairs,scripts,verl_ext} || true
}

# PyPI's torchvision is built for CUDA: beside a CPU torch its import fails in any process that did
# not prepare it, so every process of this .venv does. It costs a few files, torch is not imported.
prepare_torchvision() {
    local site
    site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo 'import contextrl.verl_ext' >"$site/contextrl-torchvision.pth"
}

setup_venv() {
    if is_same; then
        if [[ $(tail -n 1 "$COMPLETE") == "$(contents)" ]]; then
            say ".venv is complete ($variant set)"
            return
        fi
        say ".venv is of an earlier version: bringing it up to date"
    else
        find_python
        ensure_venv_module
        make_venv
    fi
    install
}

# ------------------------------------------------------------------------------------------------

docker=no
test_tools=no
variant=''
while (($#)); do
    case $1 in
        --docker) docker=required ;;
        --docker-if-possible) docker=optional ;;
        --test-tools) test_tools=yes ;;
        --cpu | --gpu) variant=${1#--} ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
if [[ -z $variant ]]; then
    if [[ -f $COMPLETE ]]; then
        variant=$(head -n 1 "$COMPLETE" | awk '{ print $(NF - 1) }')
    elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
        variant=gpu
    else
        variant=cpu
    fi
fi

mkdir -p "$LOGS"
if command -v flock >/dev/null; then # two set-ups at once would install into each other
    exec 9>"$LOGS/lock"
    flock -n 9 || { say "waiting for another set-up to finish ..." && flock 9; }
fi
setup_venv
if [[ $docker != no ]]; then setup_docker; fi
if [[ $test_tools == yes ]]; then setup_test_tools; fi
