"""Who shares weights with whom, and when they are loaded and freed. llama.cpp is a stand-in here."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.engine.loading import weights as module
from modelyard.engine.loading.weights import WeightsKey, WeightsPool, contents_digest
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import ON_HOST, Placement

WAIT_S = 10.0
KEY, OTHER = (WeightsKey((Path(f"/{name}.gguf"),), ON_HOST, name) for name in ("smollm2", "gemma3"))


class Loads:
    """Stands in for llama.cpp: each load waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.count = 0
        self.freed = 0
        self.go_on = threading.Event()
        self.error: UnusableModel | None = None
        self.known: list[frozenset[int] | None] = []
        self.rests: list[str] = []

    def load(
        self,
        paths: Sequence[Path],
        *,
        placement: Placement,
        on_progress: Callable[[float], bool],
        end_tokens: frozenset[int] | None,
        are_repacked: bool,
    ) -> Loads.Weights:
        self.count += 1
        self.known.append(end_tokens)
        self.begun.release()
        assert self.go_on.wait(WAIT_S)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if not on_progress(0.5):
            raise UnusableModel("given up")
        return Loads.Weights(self)

    class Weights:
        def __init__(self, loads: Loads) -> None:
            self.loads = loads
            self.end_tokens = frozenset({7})

        def rest(self) -> None:
            self.loads.rests.append("rest")

        def wake(self, on_progress: Callable[[float], bool]) -> bool:
            self.loads.rests.append("wake")
            return on_progress(0.5)

        def free(self) -> None:
            self.loads.freed += 1


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    loads = Loads()
    monkeypatch.setattr(module, "Weights", loads.load)
    return loads


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


class Waiter:
    """An engine that acquires on a thread of its own; ``waits`` once it asked whether to go on waiting."""

    def __init__(self, threads: ThreadPoolExecutor, pool: WeightsPool, key: WeightsKey = KEY) -> None:
        self.asked = threading.Event()
        self.gives_up = False
        self.weights: Future[object] = threads.submit(pool.acquire, key, self._progress)

    def _progress(self, _: float) -> bool:
        self.asked.set()
        return not self.gives_up


def test_engines_on_the_same_files_load_once_and_the_last_frees(loads: Loads) -> None:
    pool = WeightsPool()
    loads.go_on.set()
    first, second = (pool.acquire(KEY, lambda _: True) for _ in range(2))
    assert first is second
    assert (loads.count, pool.users(KEY)) == (1, 2)
    pool.release(KEY)
    assert (loads.freed, pool.users(KEY)) == (0, 1)
    pool.release(KEY)
    assert (loads.freed, pool.users(KEY)) == (1, 0)
    assert pool.acquire(KEY, lambda _: True) is not first


def test_other_files_and_other_pools_share_nothing(loads: Loads) -> None:
    loads.go_on.set()
    pool = WeightsPool()
    acquired = [pool.acquire(KEY, lambda _: True), pool.acquire(OTHER, lambda _: True)]
    acquired.append(WeightsPool().acquire(KEY, lambda _: True))
    assert len(set(map(id, acquired))) == 3


def test_who_comes_while_they_load_waits_for_them(loads: Loads, threads: ThreadPoolExecutor) -> None:
    pool = WeightsPool()
    first = Waiter(threads, pool)
    assert loads.begun.acquire(timeout=WAIT_S)
    second = Waiter(threads, pool)
    assert second.asked.wait(WAIT_S)
    loads.go_on.set()
    assert first.weights.result(WAIT_S) is second.weights.result(WAIT_S)
    assert (loads.count, pool.users(KEY)) == (1, 2)


def test_who_waits_can_give_up_alone(loads: Loads, threads: ThreadPoolExecutor) -> None:
    pool = WeightsPool()
    first = Waiter(threads, pool)
    assert loads.begun.acquire(timeout=WAIT_S)
    second = Waiter(threads, pool)
    second.gives_up = True
    with pytest.raises(UnusableModel):
        second.weights.result(WAIT_S)
    loads.go_on.set()
    first.weights.result(WAIT_S)
    assert pool.users(KEY) == 1


def test_when_the_first_gives_up_the_next_loads_itself(loads: Loads, threads: ThreadPoolExecutor) -> None:
    pool = WeightsPool()
    first = Waiter(threads, pool)
    assert loads.begun.acquire(timeout=WAIT_S)
    second = Waiter(threads, pool)
    assert second.asked.wait(WAIT_S)
    first.gives_up = True
    loads.go_on.set()
    with pytest.raises(UnusableModel):
        first.weights.result(WAIT_S)
    second.weights.result(WAIT_S)
    assert (loads.count, pool.users(KEY)) == (2, 1)


def test_a_load_that_fails_leaves_nothing_behind(loads: Loads) -> None:
    pool = WeightsPool()
    loads.go_on.set()
    loads.error = UnusableModel("not a GGUF file")
    with pytest.raises(UnusableModel, match="not a GGUF"):
        pool.acquire(KEY, lambda _: True)
    assert pool.users(KEY) == 0
    assert pool.acquire(KEY, lambda _: True)


def test_pages_of_files_are_given_back_while_weights_are_only_kept_and_mapped_again_for_an_engine(loads: Loads) -> None:
    loads.go_on.set()
    pool = WeightsPool()
    for _ in range(2):
        pool.acquire(KEY, lambda _: True)
    parked = pool.park([KEY])
    pool.release(KEY)
    assert loads.rests == []
    pool.release(KEY)
    assert loads.rests == ["rest"]
    another = pool.park([KEY])
    another.release()
    assert loads.rests == ["rest"]
    pool.acquire(KEY, lambda _: True)
    parked.release()
    assert loads.rests == ["rest", "wake"]
    assert (loads.freed, pool.users(KEY)) == (0, 1)
    pool.release(KEY)
    assert (loads.freed, loads.rests) == (1, ["rest", "wake"])


def test_an_engine_that_gives_up_while_pages_are_mapped_again_leaves_the_weights_as_they_were(loads: Loads) -> None:
    loads.go_on.set()
    pool = WeightsPool()
    pool.acquire(KEY, lambda _: True)
    parked = pool.park([KEY])
    pool.release(KEY)
    with pytest.raises(UnusableModel):
        pool.acquire(KEY, lambda _: False)
    assert loads.rests == ["rest", "wake", "rest"]
    assert pool.users(KEY) == 1
    parked.release()
    assert (loads.freed, pool.users(KEY)) == (1, 0)


def test_weights_that_are_released_while_their_pages_are_given_back_are_freed_after_it(
    loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads.go_on.set()
    pool = WeightsPool()
    pool.acquire(KEY, lambda _: True)
    parked = pool.park([KEY])

    def rest(_: Loads.Weights) -> None:
        parked.release()
        assert loads.freed == 0

    monkeypatch.setattr(Loads.Weights, "rest", rest)
    assert pool.release(KEY)
    assert (loads.freed, pool.users(KEY)) == (1, 0)


def test_a_key_tells_files_apart_by_place_shards_layers_and_what_is_in_them(tmp_path: Path) -> None:
    one, two, link = tmp_path / "1.gguf", tmp_path / "2.gguf", tmp_path / "link.gguf"
    one.write_bytes(b"x" * 5000)
    two.write_bytes(b"x" * 5000)
    link.symlink_to(one)
    key = WeightsKey.of([one])
    assert WeightsKey.of([link]) == key
    assert str(WeightsKey.of([link])) == str(key)
    others = [WeightsKey.of([two]), WeightsKey.of([one, two]), WeightsKey.of([one], Placement())]
    one.write_bytes(b"y" * 5000)
    others.append(WeightsKey.of([one]))
    assert len({key, *others}) == len({str(key), *map(str, others)}) == 5


def test_contents_are_told_apart_by_their_beginning_end_and_size(tmp_path: Path) -> None:
    file = tmp_path / "weights.gguf"
    digests = set()
    for content in (
        b"a" + bytes(3 * 2**20) + b"a",
        b"b" + bytes(3 * 2**20) + b"a",
        b"a" + bytes(3 * 2**20) + b"b",
        b"a" + bytes(4 * 2**20) + b"a",
        b"",
    ):
        file.write_bytes(content)
        digests.add(contents_digest([file]))
    assert len(digests) == 5


def test_the_contents_of_an_unchanged_file_are_read_once_in_a_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, pool = tmp_path / "m.gguf", WeightsPool()
    file.write_bytes(b"weights")
    first = pool.key_of([file], ON_HOST)
    monkeypatch.setattr(module, "contents_digest", lambda _: "computed again")
    assert pool.key_of([file], ON_HOST) == first
    os.utime(file, ns=(0, first.stamps[0].modified_ns + 1))
    assert pool.key_of([file], ON_HOST).contents == "computed again"


def test_weights_that_are_gone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match="cannot be read"):
        WeightsKey.of([tmp_path / "gone.gguf"])


def test_what_ends_an_answer_is_asked_for_once(loads: Loads) -> None:
    loads.go_on.set()
    pool = WeightsPool()
    for _ in range(2):
        pool.acquire(KEY, lambda _: True)
        pool.release(KEY)
    pool.acquire(OTHER, lambda _: True)
    assert loads.known == [None, frozenset({7}), None]


def test_a_file_that_is_written_over_in_its_middle_is_other_weights(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(bytes(3 << 20))
    before = WeightsKey.of([file])
    with file.open("r+b") as stream:
        stream.seek(3 << 19)
        stream.write(b"other")
    os.utime(file, ns=(0, before.stamps[0].modified_ns + 1))
    after = WeightsKey.of([file])
    assert contents_digest([file]) == before.contents == after.contents
    assert before != after
    assert str(before) != str(after)
    assert before.lasting_contents != after.lasting_contents


def test_what_names_weights_for_the_next_start_survives_a_move_to_another_disk(tmp_path: Path) -> None:
    file, moved = tmp_path / "m.gguf", tmp_path / "moved.gguf"
    file.write_bytes(b"weights")
    shutil.copyfile(file, moved)
    os.utime(moved, ns=(0, 1))
    assert WeightsKey.of([file]).lasting_contents == WeightsKey.of([moved]).lasting_contents
