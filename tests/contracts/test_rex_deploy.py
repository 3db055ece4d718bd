"""swe-rex deployments by a TOML file, against a real server on loopback."""

from __future__ import annotations

import socket

import pytest

from contextrl.envs.errors import EngineUnavailableError
from contextrl.envs.places import open_provider
from contextrl.envs.rex_deploy import read_deployment

from .conftest import deploy_in

pytest.importorskip("swerex", reason="needs the extra `remote`")


def written(folder, text: str):
    path = folder / "deployment.toml"
    path.write_text(text)
    return path


@pytest.mark.docker
def test_a_server_that_runs_holds_one_sandbox(
    namespace_provider, tiny_task, tiny_image, tmp_path, monkeypatch
):
    task = tiny_task.model_copy(update={"image": tiny_image})
    server = deploy_in(namespace_provider._roots)(task)
    host, _, port = server._url.rpartition(":")
    monkeypatch.setenv("REX_TOKEN", server._http.headers["X-API-Key"])
    path = written(
        tmp_path, f'type = "remote"\nhost = "{host}"\nport = {port}\nauth_token = "$REX_TOKEN"\n'
    )
    try:
        with open_provider(deployment=path) as provider:
            with provider.start(task) as sandbox:
                sandbox.exec("cd tests; export X=1", timeout_s=20)
                assert sandbox.exec("pwd; echo $X", timeout_s=20).output.endswith("/tests\n1\n")
                assert sandbox.diff() == ""
            with pytest.raises(EngineUnavailableError, match="expected a fresh machine"):
                provider.start(task)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('type = "local"', "expected type = one of docker, modal, fargate, daytona, remote"),
        ("type = ", "expected a TOML file with a swe-rex deployment"),
        ('type = "remote"', "auth_token: Field required"),
        (
            'type = "docker"\nimgae = "x"',
            "expected fields of DockerDeploymentConfig .* found imgae",
        ),
        (
            'type = "modal"\nstartup_timeout = "soon"',
            "startup_timeout: Input should be a valid number",
        ),
        (
            'type = "remote"\nauth_token = "$NO_SUCH_TOKEN"',
            r"expected \$NO_SUCH_TOKEN in the environ",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line(tmp_path, text, said):
    with pytest.raises(EngineUnavailableError, match=said) as raised:
        read_deployment(written(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_a_server_that_is_not_there_is_one_line(tmp_path, tiny_task, monkeypatch):
    monkeypatch.setattr("contextrl.envs.rex_deploy.WAIT_S", 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = written(tmp_path, f'type = "remote"\nauth_token = "x"\nport = {port}')
    with pytest.raises(EngineUnavailableError, match="expected a swe-rex server at"):
        read_deployment(path)(tiny_task)
    with pytest.raises(EngineUnavailableError, match="No such file"):
        read_deployment(tmp_path / "none.toml")


def test_each_sandbox_gets_its_tasks_image(tmp_path, tiny_task, monkeypatch):
    from swerex.deployment.docker import DockerDeployment

    seen = []

    async def start(self) -> None:
        seen.append(self._config)
        raise RuntimeError("no\nengine")

    monkeypatch.setattr(DockerDeployment, "start", start)
    path = written(tmp_path, 'type = "docker"\npull = "never"\ndocker_args = ["--memory=1g"]')
    with pytest.raises(EngineUnavailableError, match="deployment to start, found: no engine"):
        read_deployment(path)(tiny_task.model_copy(update={"image": "some/image:1"}))
    assert (seen[0].image, seen[0].docker_args) == ("some/image:1", ["--memory=1g"])
