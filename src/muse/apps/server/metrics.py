"""What Prometheus may know of the server."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The server's own registry, so that two servers of one process do not mix."""

    def __init__(self, num_waiting: Callable[[], int]):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own = self.registry
        self.requests = Counter("muse_requests", "Requests answered.", ("route", "status"), registry=own)
        self.seconds = Histogram(
            "muse_request_seconds", "Time to the last byte.", ("route",), buckets=SECONDS, registry=own
        )
        self.batches = Counter(
            "muse_batches", "Batches drawn, abandoned, refused or failed.", ("outcome",), registry=own
        )
        self.batch_size = Histogram("muse_batch_pictures", "Pictures drawn side by side.", buckets=SIZES, registry=own)
        self.batch_seconds = Histogram("muse_batch_seconds", "Time that a batch took.", buckets=SECONDS, registry=own)
        self.pictures = Counter("muse_pictures", "Pictures drawn.", registry=own)
        Gauge("muse_queue_pictures", "Pictures that wait.", registry=own).set_function(num_waiting)

    def on_batch(self, size: int, seconds: float, outcome: str) -> None:
        """Count a batch of the worker."""
        self.batches.labels(outcome).inc()
        if outcome == "drawn":
            self.batch_size.observe(size)
            self.batch_seconds.observe(seconds)
            self.pictures.inc(size)

    def on_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is the pattern of its path, of which there are few."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self.registry)
