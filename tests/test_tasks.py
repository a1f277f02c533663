"""Tasks have names, and their failures an ear."""

import asyncio
import gc

import pytest

from forwarder.tasks import cancel, settle, spawn


async def broken() -> None:
    raise ValueError("broken")


async def test_a_failure_is_heard() -> None:
    """By whoever asked for it."""
    heard: list[BaseException] = []
    task = spawn(broken(), name="broken", failed=heard.append)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [str(error) for error in heard] == ["broken"]
    assert task.get_name() == "broken"


async def test_a_failure_that_nobody_asked_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With the name of the task."""
    await asyncio.wait([spawn(broken(), name="watch-rules")])
    await asyncio.sleep(0)
    assert "task watch-rules failed: broken" in caplog.text


async def test_cancelling_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """And waits until it has ended."""
    task = spawn(asyncio.sleep(60), name="sleeper")
    await cancel(task)
    assert task.cancelled()
    assert caplog.text == ""


def test_what_a_service_has_built_is_left_out_of_garbage_collection() -> None:
    """And given back for the other tests."""
    before = gc.get_freeze_count()
    try:
        settle()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
