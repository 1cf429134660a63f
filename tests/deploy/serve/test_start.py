"""What is checked before a service starts."""

import asyncio
import contextlib
import socket
import subprocess
from pathlib import Path

import pytest
from commands import tuner

from tuner.deploy.serve.http.server import Address, check_tls, listening
from tuner.deploy.serve.http.token import VARIABLE, token_for
from tuner.deploy.serve.rollout.naming import Wanted, version_of, wanted
from tuner.errors import UserError

TOKEN = "a-token-of-a-test"


class TestToken:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
    def test_this_machine_alone_needs_none(self, host: str) -> None:
        assert token_for(host, None, {}) is None
        assert token_for(host, None, {VARIABLE: TOKEN}) == TOKEN, "it may ask for one"

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "example.org", ""])
    def test_others_need_one(self, host: str) -> None:
        with pytest.raises(UserError, match="can be reached by others, and there is no token"):
            token_for(host, None, {})
        assert token_for(host, None, {VARIABLE: TOKEN}) == TOKEN

    def test_of_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(f"{TOKEN}\n")
        assert token_for("0.0.0.0", file, {VARIABLE: "another-token-of-a-test"}) == TOKEN

    @pytest.mark.parametrize(
        ("content", "what"),
        [(None, "No such file"), (b"", "it is empty"), (b"short", "at least 16"), (b"\xff" * 20, "it is no text")],
    )
    def test_a_file_that_has_none(self, content: bytes | None, what: str, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "token").write_bytes(content)
        with pytest.raises(UserError, match=what):
            token_for("127.0.0.1", tmp_path / "token", {VARIABLE: TOKEN})


class TestAddress:
    def test_a_port_that_is_taken(self) -> None:
        with contextlib.closing(listening(Address(port=0))) as opened:
            opened.listen()
            with pytest.raises(UserError, match="Address already in use"):
                listening(Address(port=opened.getsockname()[1]))

    @pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "a" * 300])
    def test_an_address_of_no_interface(self, host: str) -> None:
        with pytest.raises(UserError, match=r"--host|--port"):
            listening(Address(host, 0))

    def test_answers_are_sent_at_once(self) -> None:
        async def is_delayed() -> bool:
            accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

            async def on_client(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                delay = not writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                accepted.set_result(delay)
                writer.close()

            async with await asyncio.start_server(on_client, sock=listening(Address(port=0))) as running:
                with socket.create_connection(running.sockets[0].getsockname()):
                    return await accepted

        assert not asyncio.run(is_delayed()), "Nagle's algorithm has the body of an answer wait for 40 ms"

    def test_urls(self) -> None:
        assert Address().url(8000) == "http://127.0.0.1:8000"
        assert Address("::1", certificate=Path("x")).url(1) == "https://[::1]:1"

    def test_tls(self, tmp_path: Path) -> None:
        certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        check_tls(Address())
        check_tls(Address(certificate=certificate, key=key))
        for files, what in (
            ((certificate, None), "--tls-key: it is missing"),
            ((None, key), "--tls-cert: it is missing"),
            ((tmp_path / "no.pem", key), "there is no file"),
            ((key, certificate), "no certificate with its key"),
        ):
            with pytest.raises(UserError, match=what):
                check_tls(Address(certificate=files[0], key=files[1]))


class TestNames:
    @pytest.mark.parametrize(
        ("argument", "name", "model", "followed"),
        [
            ("digits", "digits", "digits", ("digits", "champion")),
            ("digits@candidate", "digits", "digits@candidate", ("digits", "candidate")),
            ("models:/digits@champion", "digits", "models:/digits@champion", ("digits", "champion")),
            ("models:/digits/3", "digits", "models:/digits/3", None),
            ("best=digits", "best", "digits", ("digits", "champion")),
            ("./runs/a model", "a-model", "./runs/a model", None),
            ("s3://bucket/runs/x=1", "x-1", "s3://bucket/runs/x=1", None),
            ("cats=s3://bucket/x", "cats", "s3://bucket/x", None),
        ],
    )
    def test_of_models(self, argument: str, name: str, model: str, followed: tuple[str, str] | None) -> None:
        assert wanted([argument]) == [Wanted(name, model)] and wanted([argument])[0].followed == followed

    def test_of_versions(self) -> None:
        names = [version_of(each) for each in ("models:/digits/3", "1f2e", "/models/cats", "s3://bucket/runs/cats")]
        assert names == ["3", "1f2e", "cats", "cats"]

    def test_two_of_one_name(self) -> None:
        with pytest.raises(UserError, match="two models would be named 'digits'"):
            wanted(["digits", "models:/digits/2"])


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["digits", "--host", "0.0.0.0"], "can be reached by others, and there is no token"),
        (["digits", "other=x", "--tls-cert", "cert.pem"], "--tls-key: it is missing"),
        (["./nowhere", "--port", "0"], "there is no folder './nowhere'"),
        (["digits", "--port", "0"], "there is no store to read"),
        (["a=x", "a=y"], "two models would be named 'a'"),
        (["digits", "--canary", "2"], "equal to 1"),
        (["digits", "--replicas", "8..1"], "'8..1' is no number of replicas"),
        (["digits", "--gpus", "2"], "less than or equal to 1"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], what: str, tmp_path: Path) -> None:
    status, said = tuner(tmp_path, "serve", *arguments)
    assert status == 2 and what in said and "Traceback" not in said


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, said = tuner(tmp_path, "serve", "digits", "--port", str(taken.getsockname()[1]))
    assert status == 2 and "Address already in use" in said and "--port 0 takes a free one" in said
