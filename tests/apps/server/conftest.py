"""Servers of the tiny model on loopback, and a brake for the model."""

import threading

import pytest


class Served:
    """A server in a thread of its own."""

    def __init__(self, muse, digests=(), **options):
        import uvicorn

        from muse.apps.server.app import create_app
        from muse.apps.server.options import Serve

        self.app = create_app(muse, Serve(port=0, **options), list(digests))
        config = uvicorn.Config(self.app, port=0, lifespan="on", log_config=None, ws="none", timeout_keep_alive=1)
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run, daemon=True)
        self.thread.start()
        wait_until(lambda: self.uvicorn.started)
        self.port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def worker(self):
        return self.app.state.server.worker

    def client(self, key="none"):
        """The official client, unmodified, that does not try again by itself."""
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20)

    def stop(self):
        self.uvicorn.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


class Brake:
    """Holds the base transformer before each of its passes, and counts the grids of each."""

    def __init__(self):
        self.may_go, self.is_held, self.rows = threading.Event(), threading.Event(), []

    def __call__(self, module, given):
        self.rows.append(len(given[0]))
        self.is_held.set()
        assert self.may_go.wait(20)


def wait_until(condition, seconds=20):
    """Until something is so, looked at every few milliseconds."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError(f"not so within {seconds} s")


@pytest.fixture(scope="module")
def served(tiny_muse):
    """A server as it comes."""
    server = Served(tiny_muse)
    yield server
    server.stop()


@pytest.fixture
def serving(tiny_muse):
    """Start a server with options of one's own; it is stopped at the end."""
    servers = []

    def start(muse=tiny_muse, **options):
        servers.append(Served(muse, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def brake(tiny_muse):
    """The model stands still until `brake.may_go` is set."""
    brake = Brake()
    handle = tiny_muse.base.register_forward_pre_hook(brake)
    yield brake
    brake.may_go.set()
    handle.remove()


@pytest.fixture
def aside():
    """Run functions beside the test; their results come from `.result()`."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        yield pool.submit
