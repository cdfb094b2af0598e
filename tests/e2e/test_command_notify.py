"""`watcher notify test`, and messages from the installed command."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.inbox import TOKEN, Inbox
from tests.support.process import Served, Workplace


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as inbox:
        yield inbox


def test_a_test_message_goes_to_each_url(workplace: Workplace, inbox: Inbox) -> None:
    workplace.set("notify", urls=[inbox.url, f"slack://{TOKEN}"])
    done = workplace.call("notify", "test", exit_code=1)
    assert done.stdout.splitlines() == [
        "entry 1 (json://...): ok, sent",
        "entry 2 (slack://...): NOT OK: Apprise cannot use this URL",
    ]
    assert inbox.titles == ["Fragalysis Watcher: a test"]
    assert TOKEN not in done.stdout + done.stderr
    assert not workplace.record.exists()


def test_without_a_url_nobody_is_told(desk: Workplace) -> None:
    assert "notify.urls is empty" in desk.call("notify", "test", exit_code=1).stderr


def test_a_url_that_cannot_be_used_is_a_mistake_in_the_settings(desk: Workplace) -> None:
    desk.set("notify", urls=["json://127.0.0.1:9/", f"slack://{TOKEN}"])
    refused = desk.call("once", exit_code=2)
    assert refused.stderr.splitlines()[-1].startswith("error: notify.urls: entry 2 (slack://...) is no URL that")
    assert TOKEN not in refused.stderr
    assert not desk.record.exists()
    found = next(one for one in desk.json("check", exit_code=1) if one["subject"] == "notify")
    assert not found["ok"]
    assert TOKEN not in found["found"]


@pytest.mark.slow
def test_a_pass_tells_what_it_brought(desk: Workplace, inbox: Inbox) -> None:
    desk.set("fragalysis", targets=["ZIKV*"])
    desk.set("notify", urls=[inbox.url])
    desk.call("once")
    (post,) = inbox.posts
    assert post["title"].startswith("ZIKV_NS5A ")
    assert "scored" in post["message"]
    desk.call("notify", "test")
    assert len(inbox.posts) == 2


@pytest.mark.slow
def test_killed_between_sending_and_knowing_it(workplace: Workplace, served: Served, inbox: Inbox) -> None:
    """The service has the message, the record does not know: it comes once more, and never again."""
    workplace.set("fragalysis", targets=["ZIKV*"], scan_interval="1s")
    workplace.set("notify", urls=[inbox.url])
    with workplace.running("run") as daemon:
        inbox.before_answer = lambda: os.kill(daemon._popen.pid, signal.SIGKILL)
        assert daemon.wait() == -signal.SIGKILL
    assert len(inbox.posts) == 1
    inbox.before_answer = lambda: None
    with workplace.running("run") as daemon:
        daemon.said("notification_sent")
        assert daemon.stop() == 0
    workplace.call("once")
    assert [post["message"] for post in inbox.posts] == [inbox.posts[0]["message"]] * 2
    assert set(served.purchases.values()) == {1}
