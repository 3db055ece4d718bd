"""One command as a line of script: what `PersistentShell` sends, and how its end is marked."""

from __future__ import annotations

import secrets
import shlex

BASH = ("bash", "--noprofile", "--norc")


def command_line(command: str, n_stdin: int = 0) -> tuple[bytes, bytes]:
    """The nonce, and a line of script that evals the command and prints the nonce at its end.

    The command reads the `n_stdin` bytes that follow the line. The line spells the nonce in two
    halves, so that echoing the line does not print the nonce. The traps replace the shell in place:
    fds 200 and 201 are its own ends of the channel.
    """
    first, second = secrets.token_hex(8), secrets.token_hex(8)

    def end(how: str) -> str:
        return (
            'CONTEXTRL_STATUS=$?; IFS=" " builtin read -r _ _ _ _ CONTEXTRL_PID </proc/loadavg; '
            f'builtin printf "%s%s {how} %d %d %d %q\\n" {first} {second} '
            '"$CONTEXTRL_STATUS" "$CONTEXTRL_PID" "$$" "$PWD" >&201; '
            "builtin unset CONTEXTRL_STATUS CONTEXTRL_PID"
        )

    again = f"builtin exec -a bash /proc/$$/exe {' '.join(BASH[1:])} <&200 >/dev/null 2>&1"
    run = f"builtin eval {shlex.quote(command)}"
    if n_stdin:  # `cat` takes what the command leaves, which else the shell would run
        run = (
            f"command -p head -c {n_stdin} <&200 | {{ ({run} >&201 2>&1); CONTEXTRL_STATUS=$?; "
            'command -p cat >/dev/null 2>&1; builtin exit "$CONTEXTRL_STATUS"; }'
        )
    else:
        run += " </dev/null >&201 2>&1"
    line = (
        f"builtin trap '{end('exit')}; {again}' EXIT; "
        f"builtin trap '{end('killed')}; {again}' USR1; "
        f"{run}; {end('ok')}; "
        "builtin trap - EXIT USR1\n"
    )
    return f"{first}{second}".encode(), line.encode("utf-8", "surrogateescape")
