"""The sidecar with the real Fluent Bit, against a receiver behind TLS that acknowledges."""

import os
import signal
import time

import pytest

pytestmark = pytest.mark.e2e


def numbered(first, last):
    return [b'{"kind":"Event","auditID":"%d"}' % number for number in range(first, last)]


@pytest.fixture
def receiver(ack_server, authority):
    return ack_server(context=authority.server_context())


def test_lines_wait_until_there_is_a_service_and_then_arrive_within_three_seconds(
    apiserver, kubeconfig, sidecar, receiver, authority, wait_until
):
    """Service and certificates come after the lines; nothing is lost, and a person would not notice the wait."""
    running = sidecar(kubeconfig(apiserver.url))
    running.write(numbered(0, 500))
    wait_until(running.ready, "Fluent Bit")
    apiserver.put_secret(authority.secret())
    wait_until(lambda: running.metric("forwarder_certificate_known") == 1, "the certificates")
    time.sleep(2)  # longer than it takes to fail once
    assert receiver.lines == []
    begin = time.monotonic()
    apiserver.put_service(receiver.port)
    wait_until(lambda: receiver.lines, "the first line")
    assert time.monotonic() - begin <= 3.0
    wait_until(lambda: len(receiver.lines) >= 500, "the others")
    assert sorted(receiver.lines) == sorted(numbered(0, 500))
    wait_until(lambda: running.metric("forwarder_agent_log_lag_bytes") == 0, "no lag")
    assert running.metric("fluentbit_uptime") is not None, "its own metrics stand beside ours"
    assert oct((running.folder / "ssl" / "audittailer-client.key").stat().st_mode & 0o777) == "0o600"
    assert running.stop() == 0
    assert running.agents() == []


def test_a_service_that_goes_and_returns_elsewhere_loses_nothing(
    apiserver, kubeconfig, sidecar, ack_server, authority, wait_until
):
    """Without the Service nothing is sent; it returns with another port, behind which another receiver stands."""
    first, second = (ack_server(context=authority.server_context()) for _ in range(2))
    apiserver.put_secret(authority.secret())
    apiserver.put_service(first.port)
    running = sidecar(kubeconfig(apiserver.url))
    running.write(numbered(0, 100))
    wait_until(lambda: len(first.lines) >= 100, "the first lines")
    apiserver.delete("services", "kubernetes-audit-tailer")
    wait_until(lambda: running.metric("forwarder_target_known") == 0, "the Service to be gone")
    wait_until(lambda: running.metric("forwarder_relay_connections") == 0, "the old connections to end")
    running.write(numbered(100, 200))
    time.sleep(1.5)
    assert len(first.lines) == 100
    apiserver.put_service(second.port)
    wait_until(lambda: len(second.lines) >= 100, "the lines of the meantime")
    assert sorted(first.lines + second.lines) == sorted(numbered(0, 200))


def test_certificates_rotate_under_load_without_a_lost_line(
    apiserver, kubeconfig, sidecar, receiver, authority, wait_until
):
    """Three rotations while lines are written: Fluent Bit loads each without a new start, and every line arrives."""
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    running = sidecar(kubeconfig(apiserver.url))
    running.write(numbered(0, 10))
    wait_until(lambda: receiver.lines, "the first line")
    number = 10
    for rotation in range(1, 4):
        agents = running.agents()
        apiserver.put_secret(authority.secret())
        done = f'forwarder_agent_reloads_total{{result="reloaded"}} {rotation}'
        end = time.monotonic() + 15
        while running.metric('forwarder_agent_reloads_total{result="reloaded"}', 0) < rotation:
            assert time.monotonic() < end, done
            running.write(numbered(number, number + 5))
            number += 5
            time.sleep(0.05)
        assert running.agents() == agents
    wait_until(lambda: len(set(receiver.lines)) >= number, "every line")
    assert set(receiver.lines) == set(numbered(0, number))


def test_a_receiver_that_asks_for_a_shared_key_gets_it(
    apiserver, kubeconfig, sidecar, ack_server, authority, wait_until, tmp_path
):
    """From a file, by the handshake inside TLS."""
    (tmp_path / "key").write_text("a shared key\n")
    receiver = ack_server(context=authority.server_context(), shared_key="a shared key")
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    running = sidecar(kubeconfig(apiserver.url), shared_key_file=tmp_path / "key")
    running.write(numbered(0, 10))
    wait_until(lambda: len(receiver.lines) >= 10, "the lines")
    assert "a shared key" not in running.output()


def test_a_receiver_with_another_name_gets_nothing(apiserver, kubeconfig, sidecar, ack_server, authority, wait_until):
    """The same authority signed it, but it is not the receiver that was meant."""
    other = ack_server(context=authority.server_context("somebody-else"))
    right = ack_server(context=authority.server_context())
    apiserver.put_secret(authority.secret())
    apiserver.put_service(other.port)
    running = sidecar(kubeconfig(apiserver.url))
    running.write(numbered(0, 10))
    wait_until(lambda: running.metric('forwarder_relay_dials_total{result="through"', 0) >= 2, "two tries")
    assert other.lines == []
    apiserver.put_service(right.port)
    wait_until(lambda: set(right.lines) == set(numbered(0, 10)), "the lines at the right one")
    assert other.lines == []


def test_certificates_that_come_while_the_receiver_is_away_are_loaded(
    apiserver, kubeconfig, sidecar, ack_server, authority, wait_until
):
    """A hot reload would wait for the chunks that cannot be delivered; Fluent Bit is started anew and loses none of them."""
    receiver = ack_server(context=authority.server_context())
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    running = sidecar(kubeconfig(apiserver.url))
    running.write(numbered(0, 10))
    wait_until(lambda: len(receiver.lines) >= 10, "the first lines")
    receiver.silent = True  # it takes connections, and nothing more
    running.write(numbered(10, 20))
    wait_until(lambda: running.metric("forwarder_agent_log_lag_bytes") == 0, "the lines to be read")
    apiserver.put_secret(authority.secret())
    wait_until(lambda: running.metric('forwarder_agent_starts_total{reason="replaced"', 0) >= 1, "a new start")
    receiver.silent = False
    receiver.disconnect()
    wait_until(lambda: set(receiver.lines) == set(numbered(0, 20)), "the others")


def test_fluent_bit_killed_twenty_times_loses_nothing(apiserver, kubeconfig, sidecar, receiver, authority, wait_until):
    """It is started again each time, and every line of the log arrives."""
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    running = sidecar(kubeconfig(apiserver.url))
    for kill in range(20):
        running.write(numbered(kill * 100, kill * 100 + 100))
        agents = wait_until(running.agents, "Fluent Bit") or running.agents()
        wait_until(running.ready, "it to answer")
        os.kill(agents[0], signal.SIGKILL)
        wait_until(lambda old=agents: set(running.agents()) - set(old), "the next one")
    wait_until(lambda: len(set(receiver.lines)) >= 2000, "every line")
    assert set(receiver.lines) == set(numbered(0, 2000))


def test_a_sidecar_killed_with_9_leaves_no_fluent_bit_and_loses_nothing(
    apiserver, kubeconfig, sidecar, receiver, authority, wait_until
):
    """The kernel ends Fluent Bit with it; the next sidecar goes on with what is on the volume."""
    apiserver.put_secret(authority.secret())
    running = sidecar(kubeconfig(apiserver.url))
    running.write(numbered(0, 300))
    wait_until(running.ready, "Fluent Bit")
    wait_until(lambda: running.metric("forwarder_agent_log_lag_bytes") == 0, "the lines to be read")
    assert running.agents()
    running.stop(signal.SIGKILL)
    wait_until(
        lambda: running.agents() == [], "Fluent Bit to be gone"
    )  # at once, but for a write that waits for a busy disk
    running.audit_log.unlink()  # what was read is on the volume
    running.start()
    apiserver.put_service(receiver.port)
    wait_until(lambda: len(receiver.lines) >= 300, "every line")
    assert set(receiver.lines) == set(numbered(0, 300))


def test_sigterm_ends_both_in_time_while_nothing_can_be_delivered(apiserver, kubeconfig, sidecar, wait_until):
    """Fluent Bit would wait for its chunks for ever; it is ended within its grace, and its lines stay on disk."""
    running = sidecar(kubeconfig(apiserver.url))
    running.write(numbered(0, 300))
    wait_until(running.ready, "Fluent Bit")
    wait_until(lambda: running.metric("forwarder_agent_log_lag_bytes") == 0, "the lines to be read")
    begin = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - begin < 15
    assert running.agents() == []
    assert list((running.folder / "state" / "storage").rglob("*.flb"))
