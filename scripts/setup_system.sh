# Sourced by setup.sh, which sets LOGS, VENV and docker. Messages, system packages, the Docker engine.
# shellcheck shell=bash

PATH=$PATH:/usr/sbin:/sbin # dockerd and iptables live there, and a plain user may not look there

if [[ -t 2 ]]; then readonly BOLD=$'\e[1m' PLAIN=$'\e[0m'; else readonly BOLD='' PLAIN=''; fi

say() { printf '%ssetup:%s %s\n' "$BOLD" "$PLAIN" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# step WHAT COMMAND...: the command's output goes to a log; says the seconds, or the log's end.
step() {
    local what=$1 log started=$SECONDS
    shift
    log=$LOGS/$(tr '[:upper:]' '[:lower:]' <<<"$what" | tr -cs '[:alnum:]\n' '-').log
    say "$what ..."
    if ! "$@" >"$log" 2>&1 9>&-; then
        tail -n 15 "$log" >&2
        say "$what: failed after $((SECONDS - started)) s; the whole output: $log"
        return 1
    fi
    say "$what: $((SECONDS - started)) s"
}

# ------------------------------------------------------------------------------------------------
# What we may do to the system

as_root() { if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi; }

may_install() {
    [[ ${CONTEXTRL_INSTALL:-1} != 0 ]] && { ((EUID == 0)) || sudo -n true 2>/dev/null; }
}

may_apt() { may_install && command -v apt-get >/dev/null; }

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"
}

# ------------------------------------------------------------------------------------------------
# The Docker engine. Functions that fail say why in $refusal: expected, found, what to do.

engine_answers() { # asked the way the package asks; $engine_error says why not
    engine_error=$(
        "$VENV/bin/python" - 2>&1 <<'PY'
import sys

import docker

try:
    docker.from_env(timeout=10).ping()
except Exception as error:
    sys.exit(" ".join(str(error).split()))
PY
    )
}

start_engine() {
    local log=$LOGS/dockerd.log deadline=$((SECONDS + 30)) sudo=() daemon=''
    refusal="expected the Docker engine to answer within 30 s of its start, found it silent; see $log"
    if [[ -d /run/systemd/system ]]; then
        refusal+=" or run: systemctl status docker"
        step "start Docker through systemd" as_root systemctl start docker || return 1
    else
        say "start dockerd (its log: $log) ..."
        ((EUID == 0)) || sudo=(sudo -n)
        as_root rm -f "$LOGS/dockerd.pid"
        # In its own session, so that Ctrl-C in this terminal does not stop it under other runs. The
        # process id is kept for whoever must stop what this started (.ci/run).
        setsid "${sudo[@]}" dockerd --pidfile "$LOGS/dockerd.pid" </dev/null >"$log" 2>&1 9>&- &
        daemon=$!
        disown
    fi
    until engine_answers; do
        if ((SECONDS > deadline)) || { [[ -n $daemon ]] && ! kill -0 "$daemon" 2>/dev/null; }; then
            return 1
        fi
        sleep 0.5
    done
}

install_engine() {
    local missing=()
    refusal="expected a Docker engine, found none that answers ($engine_error)"
    if [[ $engine_error == *ermission\ denied* ]]; then
        refusal="expected access to the Docker engine, found: permission denied on its socket;"
        refusal+=" run: sudo usermod -aG docker $(id -un), then log in again"
        return 1
    elif [[ -n ${DOCKER_HOST:-} ]]; then
        refusal+=" at DOCKER_HOST=$DOCKER_HOST; start it there, or unset DOCKER_HOST"
        return 1
    elif ! may_install; then
        refusal+=" and no right to start one; start it (Debian: apt-get install docker.io), or run as root"
        return 1
    fi
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v iptables >/dev/null || missing+=(iptables)
    if ((${#missing[@]})); then
        refusal+=" and no way to install ${missing[*]} with apt-get; install Docker by hand"
        may_apt && step "install ${missing[*]}" apt_install "${missing[@]}" || return 1
    fi
    start_engine
}

setup_docker() {
    local refusal='' engine_error=''
    if engine_answers; then
        say "Docker engine answers"
    elif install_engine; then
        say "Docker engine answers, started just now"
    elif [[ ${docker:?set by setup.sh} == required ]]; then
        die "$refusal"
    else
        say "going on without Docker: $refusal"
        install_or_say bwrap bubblewrap "sandboxes need Docker or it"
    fi
    # The base image is made of Debian's own packages, so that no registry is needed.
    install_or_say mmdebstrap mmdebstrap "images can be pulled but not built"
}

setup_test_tools() {
    install_or_say bwrap bubblewrap "tests of sandboxes without Docker are skipped"
    install_or_say chromium chromium "tests of pages in a browser are skipped"
}

# install_or_say PROGRAM PACKAGE WITHOUT
install_or_say() {
    command -v "$1" >/dev/null && return
    if ! may_apt || ! step "install $2" apt_install "$2"; then
        say "no $2, so $3; run: apt-get install $2"
    fi
}
