"""The Prometheus counts of a service. Several worker processes add up where PROMETHEUS_MULTIPROC_DIR names a folder they share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from vitrail.evaluation.intervals import wilson
from vitrail.serve.store.base import Rate

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Upper edges of the latency histogram, in seconds."""
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Meter:
    """The counts of one process, in a registry of its own."""

    def __init__(self, system: str, items: int, facts: dict[str, str]) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("vitrail_requests", "Requests answered.", ["route", "method", "status"], registry=registry)
        self.seconds = Histogram("vitrail_request_seconds", "Seconds from a request to its answer.", ["route"], buckets=BUCKETS, registry=registry)
        self.events = Counter("vitrail_events", "Events taken, by whether they were new.", ["outcome"], registry=registry)
        self.degraded = Counter("vitrail_degraded", "Answers cut short by their time budget.", registry=registry)
        self.lost = Counter("vitrail_served_lost", "Served answers that the store could not keep.", registry=registry)
        self.shadow = Counter("vitrail_shadow_requests", "Questions asked of the shadow too.", ["variant", "outcome"], registry=registry)
        self.overlap = Counter("vitrail_shadow_overlap", "Over those, the sum of the shares of items in common.", ["variant"], registry=registry)
        Gauge("vitrail_catalogue_items", "Items in the catalogue.", registry=registry, multiprocess_mode="max").set(items)
        names = {"system": system, **facts}
        Gauge("vitrail_model_info", "The system that answered first.", list(names), registry=registry, multiprocess_mode="max").labels(**names).set(1)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request done."""
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def page(self, rates: Mapping[str, Rate]) -> bytes:
        """Everything as Prometheus reads it, with what became of each variant's answers."""
        shared = self.registry
        if os.environ.get(FOLDER):
            shared = CollectorRegistry()
            MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        variants = CollectorRegistry()
        variants.register(_Variants(rates))
        return generate_latest(shared) + generate_latest(variants)


class _Variants:
    """Counts from the store, made when they are asked for."""

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self.rates = rates

    def collect(self) -> Iterable[Metric]:
        """Gauges by variant."""
        rows = {name: (rate, wilson(rate.clicked_requests, rate.requests)) for name, rate in sorted(self.rates.items())}
        values = {
            "requests": ("Answers given.", lambda rate, _: rate.requests),
            "shown_items": ("Items in them.", lambda rate, _: rate.shown),
            "clicked_items": ("Of these, with an event that names the request.", lambda rate, _: rate.clicked),
            "clicked_requests": ("Answers with such an item.", lambda rate, _: rate.clicked_requests),
            "click_rate": ("Share of answers with such an item.", lambda rate, _: rate.clicked_requests / max(rate.requests, 1)),
            "click_rate_low": ("Lower end of its 95 % Wilson interval.", lambda _, ends: ends[0]),
            "click_rate_high": ("Upper end of its 95 % Wilson interval.", lambda _, ends: ends[1]),
        }
        for name, (what, value) in values.items():
            family = GaugeMetricFamily(f"vitrail_variant_{name}", what, labels=["variant"])
            for variant, row in rows.items():
                family.add_metric([variant], value(*row))  # type: ignore[no-untyped-call]
            yield family
