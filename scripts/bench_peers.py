"""Runs in another virtual environment: mini-swe-agent and swe-rex, measured as we are.

Nothing of this package: `contextrl bench sandbox --against PYTHON` starts it there as
`PYTHON bench_peers.py IMAGE REPEAT` and reads one JSON object per line, a `Measurement` each.
"""

import asyncio
import json
import logging
import re
import statistics
import subprocess
import sys
import time

COMMANDS = 20
RUN_ARGS = ["--rm", "--entrypoint", ""]


def report(peer, name, values, unit="s"):
    row = {"peer": peer, "name": name, "median": statistics.median(values), "worst": max(values)}
    print(json.dumps({**row, "repetitions": len(values), "unit": unit}), flush=True)


def memory_mb(container):
    """As the engine's own client counts it: without file cache."""
    command = ["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", container]
    used = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    number, unit = re.fullmatch(r"([\d.]+)([KMG]?i?B)", used).groups()
    return float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit] / 1e6


def mini_swe_agent(image, repeat):
    from minisweagent.environments.docker import DockerEnvironment

    starts, commands, memory = [], [], []
    for _ in range(repeat):
        started = time.monotonic()
        environment = DockerEnvironment(image=image, cwd="/testbed", run_args=RUN_ARGS)
        try:
            assert environment.execute({"command": "echo hi"})["output"] == "hi\n"
            starts.append(time.monotonic() - started)
            for _ in range(COMMANDS // repeat + 1):
                started = time.monotonic()
                environment.execute({"command": "echo hi"})
                commands.append(time.monotonic() - started)
            memory.append(memory_mb(environment.container_id))
        finally:
            environment.cleanup()
    report("mini-swe-agent", "start to first output, alone", starts)
    report("mini-swe-agent", "one `echo`", commands)
    report("mini-swe-agent", "memory of a waiting sandbox", memory, "MB")


async def swe_rex(image, repeat):
    from swerex.deployment.docker import DockerDeployment
    from swerex.runtime.abstract import BashAction, CreateBashSessionRequest

    starts, commands, memory = [], [], []
    for _ in range(repeat):
        started = time.monotonic()
        deployment = DockerDeployment(image=image, pull="never", docker_args=RUN_ARGS[1:])
        try:
            await deployment.start()
            await deployment.runtime.create_session(CreateBashSessionRequest())
            echo = BashAction(command="echo hi")
            await deployment.runtime.run_in_session(echo)
            starts.append(time.monotonic() - started)
            for _ in range(COMMANDS // repeat + 1):
                started = time.monotonic()
                await deployment.runtime.run_in_session(echo)
                commands.append(time.monotonic() - started)
            memory.append(memory_mb(deployment.container_name))
        finally:
            await deployment.stop()
    report("swe-rex", "start to first output, alone", starts)
    report("swe-rex", "one `echo`", commands)
    report("swe-rex", "memory of a waiting sandbox", memory, "MB")


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    mini_swe_agent(sys.argv[1], int(sys.argv[2]))
    asyncio.run(swe_rex(sys.argv[1], int(sys.argv[2])))
