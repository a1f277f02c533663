"""The table of metrics."""

from pathlib import Path

from forwarder.telemetry import METRICS, Telemetry, markdown


def test_every_metric_is_exposed_with_its_help() -> None:
    """What the table says is what Prometheus reads."""
    text = Telemetry().exposition().decode()
    for metric in METRICS:
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        assert f"# HELP {name} {metric.help}" in text or f"# HELP {metric.name} {metric.help}" in text


def test_units_stand_in_names() -> None:
    """Seconds and bytes; no metric measures in anything else."""
    for metric in METRICS:
        assert metric.name.startswith("forwarder_")
        if "econds" in metric.help and metric.kind != "counter":
            assert metric.name.endswith("_seconds"), metric.name


def test_the_documentation_shows_the_table() -> None:
    """docs/metrics.md is made from it."""
    assert markdown() in Path("docs/metrics.md").read_text()


def test_values_add_up_over_labels() -> None:
    """For tests and status."""
    telemetry = Telemetry()
    telemetry["forwarder_lines_received"].labels("a").inc(2)
    telemetry["forwarder_lines_received"].labels("b").inc(3)
    assert telemetry.value("forwarder_lines_received") == 5
    assert telemetry.value("forwarder_lines_received", source="b") == 3
