"""Runs in another virtual environment: mini-swe-agent and swe-rex, measured as we are.

Nothing of this package: `contextrl bench sandbox --against PYTHON` starts it there as
`PYTHON bench_peers.py IMAGE REPEAT` and reads one JSON object per line: peer, name, seconds.
"""

import asyncio
import json
import logging
import statistics
import sys
import time

COMMANDS = 20
RUN_ARGS = ["--rm", "--entrypoint", ""]


def report(peer, name, times):
    row = {"peer": peer, "name": name, "seconds": statistics.median(times), "worst": max(times)}
    print(json.dumps({**row, "repetitions": len(times)}), flush=True)


def mini_swe_agent(image, repeat):
    from minisweagent.environments.docker import DockerEnvironment

    starts, commands = [], []
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
        finally:
            environment.cleanup()
    report("mini-swe-agent", "start to first output, alone", starts)
    report("mini-swe-agent", "one `echo`", commands)


async def swe_rex(image, repeat):
    from swerex.deployment.docker import DockerDeployment
    from swerex.runtime.abstract import BashAction, CreateBashSessionRequest

    starts, commands = [], []
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
        finally:
            await deployment.stop()
    report("swe-rex", "start to first output, alone", starts)
    report("swe-rex", "one `echo`", commands)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    mini_swe_agent(sys.argv[1], int(sys.argv[2]))
    asyncio.run(swe_rex(sys.argv[1], int(sys.argv[2])))
