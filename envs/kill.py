"""Which processes die with a command. A script, as it runs where the processes are."""

from __future__ import annotations

# Arguments: shell pid, last pid before the command, session (0: any), signal for the shell or "".
# Only builtins, so that it works where no further process can be started. A process is the
# command's if it is younger than the command and descends from the shell or from nobody.
KILL_SCRIPT = r"""
shell=$1 last=$2 scope=$3 signal=$4
[ -z "$signal" ] || kill -s "$signal" "$shell"
for _ in 1 2 3 4 5 6 7 8 9 10; do
  parent=() session=() state=() found=0
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    pid=${line%% *}
    set -- ${line##*) }
    state[pid]=$1 parent[pid]=$2 session[pid]=$4
  done
  for pid in "${!parent[@]}"; do
    ((pid > last && pid != shell && pid != $$ && pid != 1)) || continue
    ((scope == 0 || session[pid] == scope)) || continue
    [ "${state[pid]}" != Z ] || continue
    up=${parent[pid]}
    while ((up > last && up != shell)); do up=${parent[up]:-0}; done
    ((up <= 1 || up == shell || (scope != 0 && session[up] != scope))) || continue
    kill -KILL "$pid" 2>/dev/null && found=1
  done
  ((found)) || break
done
"""
