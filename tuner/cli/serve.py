"""The command that answers requests for predictions over HTTP."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.arguments import Uri
from tuner.cli.complete import experiments
from tuner.cli.deploy import Code, Trust
from tuner.deploy.serve.limits import MEGABYTE, MOST_PIXELS, Limits
from tuner.process.packages import check_installed

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "grpc_reflection", "prometheus_client")
"""The packages of the extra ``serve``."""


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="As for predict; NAME=MODEL gives it the name that clients use. Aliases of the registry are followed.",
            autocompletion=experiments,
        ),
    ],
    host: Annotated[str, typer.Option(help="The address to listen on; others than this machine need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for a free one.")] = 8000,
    address: Annotated[
        str | None, typer.Option(help="A Ray to run on; default: RAY_ADDRESS, else a local one.")
    ] = None,
    replicas: Annotated[
        str, typer.Option(metavar="N|MIN..MAX", help="Replicas of each model; of a range as many as the load needs.")
    ] = "1",
    gpus: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The share of a GPU of each replica; default: equal shares of all."),
    ] = None,
    canary: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="The share of requests that NAME@candidate answers.")
    ] = 0.0,
    token_file: Annotated[
        Path | None, typer.Option(help="The file with the token of clients; default: TUNER_SERVE_TOKEN.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The file of the TLS certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The file of its key.")] = None,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Most megabytes of a request.")] = (
        Limits.request_bytes / MEGABYTE
    ),
    max_pixels: Annotated[int, typer.Option(min=1, max=MOST_PIXELS, help="Most pixels of an image.")] = Limits.pixels,
    max_queue: Annotated[int, typer.Option(min=1, help="Most requests that wait; more are told to come later.")] = (
        Limits.queue
    ),
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Most seconds for a request to arrive, and to be answered.")
    ] = Limits.seconds,
    trust: Trust = None,
    code: Code = None,
    uri: Uri = None,
) -> None:
    """Answer requests for predictions over HTTP, until Ctrl-C; what was accepted is answered.

    POST an image to /v1/models/NAME/predict. Where an alias of the registry moves, the new version takes over.
    """
    check_installed(_PACKAGES, "serve", "tuner serve")
    from tuner.cli.printing.serving import print_ready
    from tuner.deploy.serve.http.server import Address
    from tuner.deploy.serve.log import log_on_standard_error
    from tuner.deploy.serve.service import Settings
    from tuner.deploy.serve.service import serve as run

    settings = Settings(
        models,
        Address(host, port, tls_cert, tls_key),
        Limits.of(max_megabytes, max_pixels, max_queue, timeout),
        replicas=replicas,
        gpus=gpus,
        share=canary,
        token_file=token_file,
        cluster=address,
        trust=trust or (),
        code=code,
        uri=uri,
    )
    log_on_standard_error()
    run(settings, partial(print_ready, models))
