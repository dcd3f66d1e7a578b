"""The engine on a GPU: fused kernels, captured steps, nothing waited for. ``python
tests/engine/test_gpu.py`` runs it without pytest.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

import torch

from aim.config import SamplingParams
from aim.engine import (
    Cancelled,
    Engine,
    Event,
    Failed,
    Finished,
    Preparing,
    Progress,
    Request,
    Server,
)
from aim.engine.backend import Backend, pick
from aim.engine.memory import limit, pool_bytes
from aim.models.prior import Prior
from tests.tiny import random_gpt, random_model

with suppress(ImportError):
    import pytest

    pytestmark = pytest.mark.gpu

AIM = {
    "d_model": 256,
    "n_layer": 6,
    "vocab_size": 1024,
    "num_tokens": 96,
    "headdim": 32,
    "d_state": 32,
}
GPT = {"d_model": 256, "n_layer": 6, "vocab_size": 1024, "num_tokens": 100, "n_head": 4}
PARAMS = [
    SamplingParams(3.0),
    SamplingParams(1.0),
    SamplingParams(1.5, 0.7, 40),
    SamplingParams(4.0, 1.2, 0, 0.8),
    SamplingParams(2.0, 0.0),
]


def either_prior(test: Callable[[str], None]) -> Callable[[], None]:
    """The test with AiM, then with the Transformer; with pytest or without."""

    def both() -> None:
        for prior in ("aim", "gpt"):
            try:
                test(prior)
            except Exception as error:
                raise AssertionError(f"with {prior}: {error}") from error

    return both


def random_prior(prior: str, dtype: torch.dtype) -> Prior:
    """A random model that draws about a hundred codes, on the GPU; the same weights in every
    dtype.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = random_model(**AIM) if prior == "aim" else random_gpt(**GPT)
    return model.to_dtype(dtype).to("cuda")


@lru_cache
def backend(dtype: torch.dtype, wanted: str = "gpu", prior: str = "aim") -> Backend:
    """A random model on the backend that is wanted."""
    return pick(random_prior(prior, dtype), wanted, "off")


def mixed(count: int, **changes: object) -> list[Request]:
    """Requests that differ in everything."""
    return [Request(i % 5, PARAMS[i % len(PARAMS)], seed=1000 + i, **changes) for i in range(count)]  # type: ignore[arg-type]


def finished(events: list[Event]) -> dict[int, list[int]]:
    """Codes by request id, in the order of their arrival."""
    assert not [e for e in events if isinstance(e, Failed)], [
        e.error for e in events if isinstance(e, Failed)
    ]
    return {e.request_id: e.codes.tolist() for e in events if isinstance(e, Finished)}


def staggered(engine: Engine, requests: list[Request], every: int = 7) -> list[Event]:
    """One request more every few codes, so that ages differ and rows join, leave and move."""
    events: list[Event] = []
    calls, todo = 0, list(requests)
    while todo or not engine.idle:
        if todo and calls % every == 0:
            engine.submit(todo.pop(0))
        events += engine.step()
        calls += 1
    return events


@either_prior
def test_sixteen_mixed_requests_equal_eager_float32_token_for_token(prior: str) -> None:
    ours, eager = backend(torch.float32, prior=prior), backend(torch.float32, "eager", prior)
    requests = mixed(16, explain=True)
    expected = list(eager.engine(16).run(requests))
    for run in (
        lambda engine: list(engine.run(requests)),
        lambda engine: staggered(engine, requests),
    ):
        engine = ours.engine(16)
        got = run(engine)
        assert finished(got) == finished(expected)
        assert engine.graphs.captures == 1, "in float32 there is one size of batch"
    notes = {e.request_id: torch.from_numpy(e.notes) for e in expected if isinstance(e, Finished)}
    for event in got:
        if isinstance(event, Finished):
            torch.testing.assert_close(
                torch.from_numpy(event.notes)[:, :8],
                notes[event.request_id][:, :8],
                atol=1e-3,
                rtol=1e-3,
            )


@either_prior
def test_bfloat16_logits_are_near_float32(prior: str) -> None:
    """Step by step, rows of different ages."""
    exact = random_prior(prior, torch.float32)
    c = exact.config
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(c.vocab_size, (8, c.num_tokens), generator=generator).cuda()
    labels = (torch.arange(8) % (c.num_classes + 1)).cuda()
    starts, row = 9 * torch.arange(8).cuda(), torch.arange(8).cuda()
    with torch.inference_mode():
        want = exact(codes[:, :-1], labels)
        for wanted in ("gpu", "eager"):
            model = backend(torch.bfloat16, wanted, prior).model
            cond, state, got = model.condition(labels), model.new_state(8), torch.zeros_like(want)
            for now in range(c.num_tokens + int(starts.max())):
                at = now - starts
                positions = torch.where(at < c.num_tokens, at, -1).clamp(min=-1)
                logits = model.step(
                    codes[row, (positions - 1).clamp(min=0)], positions, cond, state
                )
                busy = positions >= 0
                got[row[busy], positions[busy]] = logits[busy]
            error = ((got - want).norm() / want.norm()).item()
            assert error < 2e-2, (wanted, error)


@either_prior
def test_float32_codes_do_not_depend_on_company(prior: str) -> None:
    engine, requests = backend(torch.float32, prior=prior).engine(8), mixed(12)
    together = finished(list(engine.run(requests)))
    assert finished(staggered(engine, requests)) == together
    for request in requests[:5]:
        assert finished(list(engine.run([request])))[request.id] == together[request.id]
    assert engine.graphs.captures == 1


@either_prior
def test_bfloat16_codes_do_not_depend_on_who_shares_the_bucket(prior: str) -> None:
    engine = backend(torch.bfloat16, prior=prior).engine(8)
    request, others = Request(1, SamplingParams(3.0), seed=5), [r for r in mixed(40) if r.rows == 2]
    made = []
    # in each place of four, each time with others: 8 rows from the first code to the last
    for first in range(4):
        company = others[3 * first : 3 * first + 3]
        made.append(
            finished(list(engine.run([*company[:first], request, *company[first:]])))[request.id]
        )
    assert made[1:] == made[:1] * 3
    assert engine.graphs.captures == 1


@either_prior
def test_a_bfloat16_request_alone_is_the_same_every_time(prior: str) -> None:
    engine = backend(torch.bfloat16, prior=prior).engine(8)
    request = Request(1, SamplingParams(3.0), seed=5, alone=True)
    quiet = finished(list(engine.run([request])))
    busy = mixed(9)
    assert (
        finished(staggered(engine, [*busy[:5], request, *busy[5:]], every=3))[request.id]
        == quiet[request.id]
    )


@either_prior
def test_drawing_ahead_in_float32_gives_the_codes_of_one_by_one(prior: str) -> None:
    model, requests = backend(torch.float32, prior=prior).model, mixed(12)
    want = finished(list(Engine(model, 4).run(requests)))
    for items in (2, 8, 16):
        engine = Engine(model, 4, widths=((8, items),))
        assert finished(list(engine.run(requests))) == want
        assert finished(staggered(engine, requests)) == want
        assert engine.graphs.captures == 1


@either_prior
def test_drawing_ahead_in_bfloat16_a_seed_is_the_same_every_time(prior: str) -> None:
    model = backend(torch.bfloat16, prior=prior).model
    for items in (2, 16):
        engine = Engine(model, 4, widths=((8, items),))
        request = Request(1, SamplingParams(3.0), seed=5, alone=True)
        quiet = finished(list(engine.run([request])))[request.id]
        for every in (1, 3, 5):
            busy = mixed(6)
            events = staggered(engine, [*busy[:3], request, *busy[3:]], every)
            assert finished(events)[request.id] == quiet


@either_prior
def test_drawing_ahead_who_comes_and_goes_leaves_nothing(prior: str) -> None:
    engine = Engine(backend(torch.bfloat16, prior=prior).model, 8, widths=((4, 16), (16, 4)))
    for count in (1, 2, 4, 8):  # every size of batch once
        list(engine.run(mixed(count)))
    captures = engine.graphs.captures
    for _ in range(2):
        requests = mixed(60, preview_every=8, explain=True)
        events = staggered(engine, requests, every=3)
        assert len(finished(events)) == len(requests)
        for event in events:
            if isinstance(event, Progress):
                assert len(event.codes) == event.step
    assert engine.graphs.captures == captures


@either_prior
def test_capturing_in_the_middle_changes_nothing(prior: str) -> None:
    first, rest = Request(1, SamplingParams(3.0), seed=5), mixed(5)

    def drawn(engine: Engine) -> dict[int, list[int]]:
        engine.submit(first)
        events = engine.step()
        while engine._scheduler.running[first.id].step < 20:
            events += engine.step()
        for request in rest:
            engine.submit(request)
        events += engine.run()
        told = [e for e in events if isinstance(e, Preparing)]
        assert bool(told) == cold
        return finished(events)

    engine, cold = backend(torch.bfloat16, prior=prior).engine(8), True
    made = drawn(engine)
    captures, cold = engine.graphs.captures, False
    assert captures >= 2
    assert engine.graphs.capture > 0
    assert drawn(engine) == made
    assert engine.graphs.captures == captures


def test_a_thousand_requests_leave_nothing() -> None:
    engine = backend(torch.bfloat16).engine(16)
    for request in mixed(16):  # every size of batch once
        list(engine.run([request]))
    staggered(engine, mixed(40), every=5)
    list(engine.run(mixed(100, preview_every=8, explain=True)))
    captures, memory = engine.graphs.captures, 0
    for half in range(2):
        requests = mixed(500, preview_every=16, explain=half == 1)
        assert len(finished(list(engine.run(requests)))) == len(requests)
        torch.cuda.synchronize()
        if half == 0:
            memory = torch.cuda.memory_allocated()
    assert torch.cuda.memory_allocated() == memory
    assert engine.graphs.captures == captures


def test_progress_comes_in_order_with_codes_that_stay() -> None:
    engine = backend(torch.bfloat16).engine(4)
    requests = mixed(6, preview_every=1, explain=True)
    events = list(engine.run(requests))
    for request in requests:
        told = [
            e for e in events if isinstance(e, (Progress, Finished)) and e.request_id == request.id
        ]
        assert [len(e.codes) for e in told] == list(range(1, 97))
        assert all((e.codes == told[-1].codes[: len(e.codes)]).all() for e in told)
        assert all(
            e.notes is not None and (e.notes == told[-1].notes[: len(e.codes)]).all() for e in told
        )
        assert [e.seconds for e in told] == sorted(e.seconds for e in told)


def test_cancelled_at_once_and_nobody_else_hears_of_it() -> None:
    engine = backend(torch.float32).engine(4)
    request, other = (
        Request(1, PARAMS[0], seed=1, preview_every=1),
        Request(2, PARAMS[3], seed=2, preview_every=7),
    )
    expected = finished(list(engine.run([other])))
    for steps in (0, 1, 30, 95, 96):  # the last one: drawn, but perhaps not told
        engine.submit(request)
        engine.submit(other)
        events = [event for _ in range(steps) for event in engine.step()]
        engine.cancel(request.id)
        last = engine.step()
        if not any(isinstance(e, Finished) and e.request_id == request.id for e in events):
            assert [e for e in last if e.request_id == request.id] == [Cancelled(request.id)]
        events += last
        rest = list(engine.run())
        assert not [e for e in rest if e.request_id == request.id]
        assert finished(events + rest)[other.id] == expected[other.id]


def test_a_server_stops_promptly() -> None:
    server = Server(backend(torch.bfloat16).engine(4))
    list(server.stream(Request(0, PARAMS[0])))
    stream = server.stream(Request(0, PARAMS[0], preview_every=1))
    while not isinstance(next(stream), Progress):
        pass
    started = time.perf_counter()
    stream.close()
    assert isinstance(list(stream)[-1], Cancelled)
    assert time.perf_counter() - started < 0.1
    server.close()
    assert not server.alive


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Inside it, an operation that makes the host wait for the device raises; waiting for an event
    does not.
    """
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@either_prior
def test_the_host_waits_for_nothing(prior: str) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        for wanted in ("gpu", "eager"):
            engine = backend(dtype, wanted, prior).engine(8)
            for _ in range(2):  # the first one captures, which delays who comes later
                warm = staggered(engine, mixed(16, preview_every=5, explain=True))
            with no_synchronisation():
                again = staggered(engine, mixed(16, preview_every=5, explain=True))
            assert list(finished(again).values()) == list(finished(warm).values())


def test_other_threads_use_the_gpu_while_a_step_is_captured() -> None:
    stop, failed, rounds = threading.Event(), [], [0]

    def work() -> None:
        try:
            # no random numbers: PyTorch's generator is not free while any thread captures
            while not stop.is_set():
                a = torch.full((64 + rounds[0] % 64, 512), 0.5, device="cuda")
                (a @ a.T).sum().cpu()
                rounds[0] += 1
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            engine = backend(torch.bfloat16).engine(8)
            requests = mixed(20)
            assert len(finished(staggered(engine, requests))) == 20
            assert engine.graphs.captures >= 3
    finally:
        stop.set()
        thread.join()
    assert not failed, failed
    assert rounds[0] > 10


def test_two_engines_at_once() -> None:
    """Each captures while the other runs or captures."""
    expected = finished(list(backend(torch.float32).engine(8).run(mixed(8))))
    engines = [backend(torch.float32).engine(8) for _ in range(2)]
    made: list[list[list[int]]] = [[], []]

    def work(i: int) -> None:
        made[i] = list(finished(list(engines[i].run(mixed(8)))).values())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [list(expected.values())] * 2


@either_prior
def test_memory_is_estimated_and_respected(prior: str) -> None:
    model = backend(torch.bfloat16, prior=prior).model
    gc.collect()  # engines of other tests
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    engine = Engine(model, 64)
    grown = torch.cuda.memory_allocated() - before
    assert 0.5 < pool_bytes(model, 128) / grown < 2, (pool_bytes(model, 128), grown)
    assert engine.max_requests == 64
    assert limit(model, 2**26) < 2**26
    assert torch.cuda.memory_allocated() - before == grown


def main() -> None:
    """Every test above, with the time that it took."""
    tests: dict[str, Callable[[], None]] = {
        name: test for name, test in globals().items() if name.startswith("test_")
    }
    failures = 0
    for name, test in tests.items():
        started = time.perf_counter()
        try:
            test()
            outcome = "ok"
        except Exception as error:
            failures += 1
            outcome = f"FAILED {type(error).__name__}: {str(error)[:1000]}"
            import traceback

            traceback.print_exc()
        print(f"{name}: {outcome} ({time.perf_counter() - started:.1f} s)", flush=True)
    raise SystemExit(failures)


if __name__ == "__main__":
    main()
