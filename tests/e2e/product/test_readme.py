"""What the README says under "With Fluent Bit": the files that `forwarder init` writes and the shipped configuration fit together."""

import pytest

from forwarder.cli.keys import read_env_file

pytestmark = pytest.mark.e2e


def test_init_backend_receive_and_fluent_bit(product, sample, rows_of, until):
    """Keys on every hop, and the events arrive."""
    ports = product.ports
    product.configure()  # leaves a forwarder.yaml that --force replaces
    init = product.program(
        "init", "init", "--yes", "--force", "--data-dir", str(product.folder),
        "--forward-listen", f"127.0.0.1:{ports['forward']}", "--backend-url", f"http://127.0.0.1:{ports['backend']}",
    )  # fmt: skip
    init.start()
    until(lambda: not init.running, "forwarder init")
    assert init.stop() == 0, init.output()
    written = product.folder / "forwarder.yaml"
    written.write_text(written.read_text().replace("127.0.0.1:9000", f"127.0.0.1:{ports['telemetry']}"))
    product.backend = product.program("backend", "backend", "--config", "backend.yaml")
    product.start()
    keys = read_env_file(product.folder / ".env")
    product.append(list(sample.lines(5000)))
    product.fluent_bit(FORWARD_SHARED_KEY=keys["FORWARD_SHARED_KEY"]).start()
    expected = rows_of(sample)
    product.settled(len(expected))
    assert sorted(product.stored()) == expected
    assert "a key is needed to write" in product.backend.output()
