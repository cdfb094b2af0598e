"""Messages to people: what is sent when, over crashes and dead addresses; never in the way of the job."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from tests.support.pipeline import PRIVATE, A, Job, until, world
from watcher import metrics
from watcher.errors import Ours, SettingsError
from watcher.notify import Letter
from watcher.notify_process import NotSent
from watcher.pipeline.runner import Runner
from watcher.pipeline.settle import settle
from watcher.settings import HttpSettings
from watcher.store import outbox
from watcher.store.conditions import close_condition, open_condition
from watcher.store.schema import Outbox
from watcher.web.gauges import refresh

FIRST, SECOND = "json://first.example/t0ken", "json://second.example/t0ken"
ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}


class Post:
    """Takes the place of Apprise: keeps what is sent, and fails as it is told."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, Letter]] = []
        self.dead: set[str] = set()
        self.tries = 0
        self.fault: Exception = NotSent("error=500")
        self.held: asyncio.Event | None = None
        """While it is there, whoever has sent something does not hear of it."""

    def __call__(self, _: HttpSettings) -> "Post":
        return self

    async def send(self, url: str, letter: Letter) -> None:
        self.tries += 1
        if url in self.dead:
            raise self.fault
        self.letters.append((url, letter))
        if self.held is not None:
            await self.held.wait()

    async def unusable(self, urls: Sequence[str]) -> list[int]:
        return [number for number, url in enumerate(urls, start=1) if url.startswith("slack://b")]

    def subjects(self, url: str = FIRST) -> list[str]:
        return [letter.subject for to, letter in self.letters if to == url]

    def text(self) -> str:
        return "\n".join(f"{letter.subject}\n{letter.body}" for _, letter in self.letters)


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.setattr("watcher.program.Notifier", post)
    return post


@pytest.fixture
async def job(tmp_path: Path, post: Post) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        job.set("download", enabled=False)
        job.set("notify", urls=[FIRST])
        yield job


async def something(job: Job, kind: str = "lost", subject: str = "batch 9", *, over: bool = False) -> None:
    """Let something be not well, or be well again."""
    assert job.program is not None
    now = job.clock.now()
    async with job.program.context.store.write() as session:
        if over:
            await close_condition(session, subject, kind, now=now)
        else:
            await open_condition(session, subject, kind, reason="why", action="do it", now=now)


async def tick(job: Job, runner: Runner, **wait: float) -> None:
    """Let time pass, and give each stage its turn."""
    job.clock.advance(timedelta(**wait))
    await runner.turn()
    await runner.idle()


async def pending(job: Job) -> dict[int, int]:
    assert job.program is not None
    async with job.program.context.store.read() as session:
        return await outbox.pending(session)


async def test_settled_uploads_of_one_scan_are_one_message(job: Job, post: Post) -> None:
    await job.once()
    ((to, letter),) = post.letters
    assert (to, letter.subject, letter.tone) == (FIRST, "2 uploads are settled", "info")
    first, second = letter.body.split("\n")
    assert first.startswith("A71EV2A lb32627-66 upload 1: 2 new compounds, 2 scored")
    assert "; best " in first
    assert "(A031" in first
    assert second.startswith("Mpro lb18145-1 upload 1: 1 new compound, 1 scored"), "the shared one counts once"
    assert "(P0001a)" in second
    await job.once()
    assert len(post.letters) == 1


@pytest.mark.slow
async def test_the_digest_agrees_with_the_export(job: Job, post: Post) -> None:
    job.sandbox.fragalysis.add_upload(*A, [("A0320a", "CCC(=O)N", "Z9"), ("A0321a", "not a molecule", "Z8")])
    await job.once()
    rows = [row for row in await job.rows() if row.target == A[0] and row.score is not None]
    best = min(rows, key=lambda row: row.score or 0)
    easy = len({row.smiles for row in rows if (row.score or 0) < 4})
    line = next(one for one in post.text().splitlines() if one.startswith("A71EV2A"))
    assert f"best {round(best.score or 0, 2):g} (" in line
    assert f"{easy} easy" in line or not easy
    assert "3 new compounds, 3 scored" in line
    assert "1 rejected" in line


@pytest.mark.slow
async def test_what_comes_later_is_told_as_such(job: Job, post: Post) -> None:
    async with job.run() as runner:
        await job.again(runner)
        target = job.sandbox.fragalysis.add_upload(*A, [("A0399a", "CCCCO", "Z9")])
        target.uploads.pop()  # its rows belong to the first upload, and come late
        target.published = 1
        await job.later(runner, minutes=11)
        assert post.subjects()[1:] == ["A71EV2A lb32627-66 upload 1, settled again"]
        assert post.letters[1][1].body.startswith("1 new compound, 1 scored")
        job.sandbox.fragalysis.add_upload(*A, [])
        await job.again(runner)
        await job.later(runner, minutes=11)
    assert post.subjects()[2:] == ["A71EV2A lb32627-66 upload 2"]
    assert post.letters[2][1].body == "nothing new was bought"


@pytest.mark.slow
async def test_what_is_not_bought_is_told_with_its_reason(job: Job, post: Post) -> None:
    job.set("fragalysis", first_seen="baseline")
    await job.once()
    assert "nothing new was bought; 2 not bought: it was there when the target was first seen" in post.text()


@pytest.mark.parametrize("wanted", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_structures_are_in_no_message_unless_they_are_wanted(job: Job, post: Post, wanted: bool) -> None:
    job.set("notify", include_structures=wanted)
    job.set("limits", submit_private=True)
    job.set("fragalysis", token=job.sandbox.fragalysis.session_token, targets=["Secret"])
    job.sandbox.fragalysis.add_target(*PRIVATE, public=False)
    job.sandbox.fragalysis.add_upload(*PRIVATE, [("S0001a", "CC(C)CCNS(C)=O", "Z7")])
    async with job.run() as runner:
        await job.again(runner)
        assert job.program is not None
        async with job.program.context.store.write() as session:
            words = "the service said: CC(C)CCNS(C)=O cannot be read"
            await open_condition(session, "x", "lost", reason=words, action="z", now=job.clock.now())
        await tick(job, runner)
    digest, trouble = (letter.body for _, letter in post.letters)
    assert "(S0001a" in digest
    assert "cannot be read" in trouble
    assert ["CC(C)CCNS(C)=O" in body for body in (digest, trouble)] == [wanted, wanted]


async def test_trouble_that_heals_in_time_is_not_told(job: Job, post: Post) -> None:
    job.fault("fragalysis", "status", status=503, times=30)
    async with job.run() as runner:
        await runner.scan.request()
        for _ in range(4):
            await tick(job, runner, minutes=1)
        assert [*await job.conditions()] == ["fragalysis: unreachable"]
        job.sandbox.clear_faults()
        for _ in range(6):
            await tick(job, runner, minutes=2)
        assert await job.conditions() == {}
        await tick(job, runner, minutes=30)
    assert "unreachable" not in post.text()


@pytest.mark.slow
async def test_trouble_that_lasts_is_told_once_and_its_end_once(job: Job, post: Post) -> None:
    job.set("notify", events=["attention", "recovered"])
    job.fault("fragalysis", "status", status=503, times=None)
    async with job.run() as runner:
        await runner.scan.request()
        for _ in range(20):
            await tick(job, runner, minutes=5)
        assert post.subjects() == ["Needs attention: fragalysis: unreachable"]
        assert "503" in post.letters[0][1].body
        assert "What to do: nothing" in post.letters[0][1].body
        job.sandbox.clear_faults()
        for _ in range(5):
            await tick(job, runner, minutes=5)
    assert post.subjects()[1:] == ["Over: fragalysis: unreachable"]
    assert [letter.tone for _, letter in post.letters] == ["warning", "success"]


async def test_what_needs_a_person_is_told_at_once(job: Job, post: Post) -> None:
    async with job.run() as runner:
        await something(job)
        await something(job)  # once more: no event
        await tick(job, runner, seconds=1)
        assert post.subjects() == ["Needs attention: batch 9: lost"]
        assert post.letters[0][1].body == "why\nWhat to do: do it"
        await something(job, over=True)
        await tick(job, runner, seconds=1)
    assert post.subjects() == ["Needs attention: batch 9: lost", "Over: batch 9: lost"]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        pytest.param([], [], marks=pytest.mark.slow),
        pytest.param(["settled"], ["2 uploads are settled"], marks=pytest.mark.slow),
        pytest.param(["attention"], ["Needs attention: batch 9: lost"], marks=pytest.mark.slow),
        pytest.param(["recovered"], ["Over: batch 9: lost"], marks=pytest.mark.slow),
    ],
)
async def test_only_what_is_chosen_is_told(job: Job, post: Post, events: list[str], told: list[str]) -> None:
    job.set("notify", events=events)
    async with job.run() as runner:
        await something(job)
        await job.again(runner)
        await something(job, over=True)
        await something(job, "unreachable", "x")
        await something(job, "unreachable", "x", over=True)
        await job.later(runner, seconds=1)
    assert post.subjects() == told


@pytest.mark.slow
async def test_without_an_address_nothing_is_written(job: Job, post: Post) -> None:
    job.set("notify", urls=[])
    async with job.run() as runner:
        await something(job)
        await job.again(runner)
        await something(job, over=True)
    assert await job.all(Outbox) == []
    assert post.tries == 0


async def test_a_dead_address_is_in_nobodys_way(job: Job, post: Post) -> None:
    job.set("notify", urls=[FIRST, SECOND])
    post.dead.add(FIRST)
    started = job.clock.now()
    await job.once()
    assert job.bought == ALL
    assert job.clock.now() - started < timedelta(minutes=3), "a pass does not wait for it"
    assert post.subjects(SECOND) == ["2 uploads are settled"]
    assert await job.conditions() == {}
    async with job.run() as runner:
        for _ in range(12):
            await tick(job, runner, minutes=20)
        (shown,) = await job.open_conditions()
        assert (shown.subject, shown.kind) == ("notify.urls entry 1", "notifications_failing")
        assert shown.reason == "entry 1 (json://...) takes no messages, error=500; 2 wait"
        assert "t0ken" not in f"{shown.reason} {shown.action}"
        await something(job)
        await tick(job, runner, minutes=20)
        assert await pending(job) == {1: 3}
        post.dead.clear()
        for _ in range(3):
            await tick(job, runner, minutes=20)
        assert await pending(job) == {}
        assert [*await job.conditions()] == ["batch 9: lost"]
    assert "\n".join(post.subjects(FIRST)).count("settled") == 1
    assert sum("batch 9" in letter.subject + letter.body for to, letter in post.letters if to == FIRST) == 1
    assert post.subjects(SECOND) == ["2 uploads are settled", "Needs attention: batch 9: lost"], "each once"
    assert "notifications" not in post.text(), "this one cannot be told"
    assert {row.error for row in await job.all(Outbox)} == {None}


@pytest.mark.slow
async def test_waits_grow_to_a_quarter_of_an_hour(job: Job, post: Post) -> None:
    post.dead.add(FIRST)
    async with job.run() as runner:
        await something(job)
        for _ in range(6 * 12):
            await tick(job, runner, minutes=5)
    assert 6 * 3 <= post.tries <= 6 * 4 + 12


@pytest.mark.slow
async def test_one_spoiled_message_holds_up_no_other(job: Job, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    original = post.send

    async def picky(url: str, letter: Letter) -> None:
        if "poison" in letter.subject + letter.body:
            raise NotSent("error=400")
        await original(url, letter)

    monkeypatch.setattr(post, "send", picky)
    async with job.run() as runner:
        await something(job, subject="poison")
        for number in range(4):
            await something(job, subject=f"batch {number}")
        for _ in range(20):
            await tick(job, runner, seconds=30)
        assert await pending(job) == {1: 1}
    told = post.text()
    assert [told.count(f"Needs attention: batch {number}: lost") for number in range(4)] == [1, 1, 1, 1]


async def crash_after_sending(job: Job, post: Post, runner: Runner) -> None:
    sent = len(post.letters)
    post.held = asyncio.Event()
    settling = asyncio.create_task(settle(runner))
    await until(lambda: len(post.letters) > sent)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)


async def test_a_crash_costs_one_repeat_at_most(job: Job, post: Post) -> None:
    async with job.run(crash=True) as runner:
        await something(job)
        await crash_after_sending(job, post, runner)
    post.held = None
    assert [row.begun_at is not None for row in await job.all(Outbox)] == [True]
    async with job.run() as runner:
        await tick(job, runner, seconds=1)
        for _ in range(3):
            await tick(job, runner, minutes=30)
        await something(job, over=True)
        await tick(job, runner, seconds=1)
    assert post.subjects() == [*["Needs attention: batch 9: lost"] * 2, "Over: batch 9: lost"]


@pytest.mark.slow
async def test_what_ends_while_it_is_being_told_is_told_to_its_end(job: Job, post: Post) -> None:
    async with job.run(crash=True) as runner:
        await something(job)
        await crash_after_sending(job, post, runner)
        await something(job, over=True)
    post.held = None
    async with job.run() as runner:
        await tick(job, runner, seconds=1)
    assert "Over: batch 9: lost" in post.text()


@pytest.mark.slow
async def test_a_message_that_nobody_began_to_send_is_dropped_when_it_is_over(job: Job, post: Post) -> None:
    async with job.run(crash=True):
        await something(job)
        await something(job, over=True)
    async with job.run() as runner:
        await tick(job, runner, minutes=1)
    assert post.tries == 0


@pytest.mark.slow
async def test_stopping_waits_for_what_is_being_sent(job: Job, post: Post) -> None:
    async with job.run() as runner:
        await something(job)
        post.held = asyncio.Event()
        settling = asyncio.create_task(settle(runner))
        await until(lambda: post.letters)
        stopping = asyncio.create_task(runner.stop(timedelta(seconds=8)))
        await asyncio.sleep(0)
        post.held.set()
        await asyncio.gather(stopping, settling)
    post.held = None
    await job.once()
    assert post.subjects()[0] == "Needs attention: batch 9: lost"
    assert "batch 9" not in "".join(post.subjects()[1:])


@pytest.mark.slow
async def test_trouble_from_before_a_start_has_a_moment_to_heal(job: Job, post: Post) -> None:
    async with job.run():
        await something(job, "unreachable", "fragalysis")
    job.clock.advance(timedelta(hours=5))
    async with job.run() as runner:
        await job.again(runner)
        assert "fragalysis" not in post.text()
        await something(job, "unreachable", "batch 7")
    job.clock.advance(timedelta(hours=5))
    async with job.run() as runner:
        await settle(runner)
    assert post.subjects()[-1] == "Needs attention: batch 7: unreachable"


@pytest.mark.slow
async def test_an_address_that_is_gone_is_told_nothing_more(job: Job, post: Post) -> None:
    job.set("notify", urls=[FIRST, SECOND])
    post.dead |= {FIRST, SECOND}
    async with job.run() as runner:
        await something(job)
        for _ in range(12):
            await tick(job, runner, minutes=20)
        assert len(await job.open_conditions()) == 3
    job.set("notify", urls=[FIRST])
    post.dead.clear()
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await tick(job, runner, seconds=1)
    assert [one["messages"] for one in logs if one["event"] == "notifications_dropped"] == [1]
    assert post.subjects(SECOND) == []
    assert len(post.subjects(FIRST)) == 1, "mended settings are tried at once"
    assert [*await job.conditions()] == ["batch 9: lost"]


@pytest.mark.slow
async def test_a_child_that_does_not_start_is_this_machine(job: Job, post: Post) -> None:
    post.dead.add(FIRST)
    post.fault = Ours("no more processes")
    async with job.run() as runner:
        await something(job)
        await job.again(runner)
        assert "notify: machine" in await job.conditions()
        assert job.bought == ALL
        post.dead.clear()
        for _ in range(3):
            await job.later(runner, minutes=6)
        assert [*await job.conditions()] == ["batch 9: lost"]
    assert "batch 9" in post.text()


async def test_a_url_that_cannot_be_used_stops_the_start(job: Job, post: Post) -> None:
    job.set("notify", urls=[FIRST, "slack://bobs-secret"])
    with pytest.raises(SettingsError) as refused:
        async with job.run():
            pass
    assert "notify.urls: entry 2 (slack://...)" in str(refused.value)
    assert "bobs-secret" not in str(refused.value)
    assert not Path(job.file).exists(), "nothing was begun"  # noqa: ASYNC240


@pytest.mark.slow
async def test_it_is_counted(job: Job, post: Post) -> None:
    def sample(outcome: str) -> float:
        return metrics.REGISTRY.get_sample_value("watcher_notifications_total", {"outcome": outcome}) or 0.0

    sent, failed = sample("sent"), sample("failed")
    async with job.run() as runner:
        post.dead.add(FIRST)
        await something(job)
        await tick(job, runner, seconds=1)
        assert job.program is not None
        await refresh(job.program.context)
        assert metrics.REGISTRY.get_sample_value("watcher_notifications_pending") == 1
        post.dead.clear()
        await tick(job, runner, minutes=30)
    assert sample("sent") == sent + 1
    assert sample("failed") > failed
