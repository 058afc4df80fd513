"""From the options of `muse serve` to a server that runs until it is told to stop."""

import logging

import uvicorn
from fastapi import FastAPI

from muse.apps.server.app import create_app
from muse.apps.server.gate import read_keys
from muse.apps.server.logs import settings
from muse.apps.server.options import Serve, check_address
from muse.apps.wishes import load

MOST_CONNECTIONS = 1000
"""Clients beyond them are sent away at once."""


def serve(options: Serve) -> None:
    """Load the model, then listen; on SIGTERM or Ctrl-C take no more and finish what has begun.
    Raises ValueError or OSError if the keys or the model cannot be read, or the address cannot be listened on."""
    digests = read_keys(options.keys_file) if options.keys_file else []
    check_address(options.host, options.port)
    muse = load(options.model, options.precision, options.graphs)
    logging.captureWarnings(True)
    config = configure(create_app(muse, options, digests), options)
    uvicorn.Server(config).run()


def configure(app: FastAPI, options: Serve) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_config=settings(),
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=options.shutdown_seconds,
        proxy_headers=False,
    )
