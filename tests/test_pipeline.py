"""The public face, on a tiny random model with a grid of 4x4 codes and 16x16 pixels."""

from __future__ import annotations

import gc
import io
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import aim
import aim.pipeline as pipeline_module
from aim import Frame, GenerationError, InvalidInput, Pipeline, SamplingParams
from aim.engine import Engine, Finished, Request, Server
from aim.engine.backend import Backend
from aim.models import preview
from aim.models.aim.cpu import CPUAiM
from aim.models.aim.model import AiM
from aim.models.preview import Previewer
from aim.models.vq.model import VQ
from aim.stream import run
from tests.engine.late import LateQueue
from tests.waiting import until


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


Slow = tuple[Pipeline, Callable[[int], None]]


@pytest.fixture
def slow(tiny_model: AiM, tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """A pipeline whose model takes only as many steps as it is told to, and what tells it."""
    permits, step = threading.Semaphore(0), tiny_model.step

    def wait_and_step(*args: torch.Tensor) -> torch.Tensor:
        assert permits.acquire(timeout=60)
        return step(*args)

    monkeypatch.setattr(tiny_model, "step", wait_and_step)
    pipe = Pipeline(tiny_model, tiny_vq, backend="eager")
    yield pipe, permits.release
    permits.release(1000)
    pipe.close()


class TestClasses:
    @pytest.mark.parametrize(
        ("label", "index"),
        [(207, 207), ("207", 207), ("goldfish", 1), ("Golden Retriever", 207), ("n02123045", 281)],
    )
    def test_by_index_or_name(self, tiny_pipeline: Pipeline, label: int | str, index: int) -> None:
        assert tiny_pipeline.resolve(label) == index
        assert tiny_pipeline.classes[tiny_pipeline.row(index)] == index

    def test_what_the_model_does_not_know_is_refused(self, tiny_pipeline: Pipeline) -> None:
        with pytest.raises(InvalidInput, match="does not know"):
            tiny_pipeline.resolve("great white shark")
        with pytest.raises(InvalidInput, match="goldfish"):
            tiny_pipeline.stream("goldfisch")

    def test_integers_of_numpy_and_pytorch_are_indices(self, tiny_pipeline: Pipeline) -> None:
        for label in (np.int64(207), np.uint16(207), torch.tensor(207), torch.tensor(207).int()):
            assert tiny_pipeline.resolve(label) == 207
        [wanted] = tiny_pipeline.draw(207, seed=3)
        several = [np.int64(207), torch.tensor(207), np.array([207]), torch.tensor([207])]
        for labels in (*several, [several[0]], (several[1],)):
            assert [c.tolist() for c in tiny_pipeline.draw(labels, seed=3)] == [wanted.tolist()]
        with pytest.raises(InvalidInput, match=r"207\.0"):
            tiny_pipeline.resolve(np.float32(207))  # type: ignore[arg-type]

    def test_a_mapping_is_a_mix(self, tiny_pipeline: Pipeline) -> None:
        row, other = (tiny_pipeline.row(index) for index in (1, 281))
        stream = tiny_pipeline.stream({"goldfish": 0.25, 281: 0.75}, seed=2)
        assert stream.requests[0].mix == ((row, 0.25), (other, 0.75))
        [*_, last] = stream
        [drawn] = tiny_pipeline.draw({"goldfish": 0.25, 281: 0.75}, seed=2)
        assert drawn.tolist() == last.codes.tolist() != next(tiny_pipeline.draw(1, 2)).tolist()
        with pytest.raises(InvalidInput, match="add up to 1"):
            tiny_pipeline.stream({"goldfish": 0.25})

    def test_titles(self, tiny_pipeline: Pipeline) -> None:
        assert tiny_pipeline.title(1) == "goldfish (1)"

    def test_a_model_without_imagenet_classes_takes_its_own(
        self, make_model: Callable[..., AiM], tiny_vq: VQ
    ) -> None:
        pipe = Pipeline(make_model(classes=()), tiny_vq, "own")
        assert pipe.classes == (0, 1, 2, 3, 4)
        assert pipe.resolve(3) == pipe.resolve("3") == pipe.resolve(np.int64(3)) == 3
        assert pipe.title(3) == "class 3"
        for number in (5, -1, "5"):
            with pytest.raises(InvalidInput, match=rf"no class {number}; indices go from 0 to 4"):
                pipe.resolve(number)  # type: ignore[arg-type]
        for label in ("goldfish", "²"):
            with pytest.raises(InvalidInput, match=f"there is no class {label!r}; the nearest"):
                pipe.resolve(label)
        for other in (True, None):
            with pytest.raises(InvalidInput, match="it must be a name or an index"):
                pipe.resolve(other)  # type: ignore[arg-type]

    def test_a_thousand_classes_are_imagenet_s(
        self, make_model: Callable[..., AiM], tiny_vq: VQ
    ) -> None:
        pipe = Pipeline(make_model(classes=(), num_classes=1000), tiny_vq)
        assert pipe.row(pipe.resolve("tabby")) == 281


class TestGenerate:
    def test_image_i_is_the_image_made_alone_with_its_seed(self, tiny_pipeline: Pipeline) -> None:
        labels = ["goldfish", 207, "tabby", 285, 985, 1, 207]
        images = tiny_pipeline.generate(labels, seed=40)
        assert [(image.mode, image.size) for image in images] == [("RGB", (16, 16))] * 7
        assert all(
            same(image, tiny_pipeline.generate([label], seed=40 + i)[0])
            for i, (label, image) in enumerate(zip(labels, images, strict=True))
        )
        assert len({image.tobytes() for image in images}) == 7

    def test_more_images_than_the_engine_holds(self, tiny_pipeline: Pipeline) -> None:
        images = tiny_pipeline.generate([1] * 100, seed=0)
        assert same(images[99], tiny_pipeline.generate(1, seed=99)[0])

    def test_parameters_reach_the_sampler_and_default_to_the_model_s(
        self, tiny_pipeline: Pipeline
    ) -> None:
        [plain] = tiny_pipeline.generate([1], seed=2)
        assert tiny_pipeline.sampling.cfg_scale == 3.0
        assert same(plain, tiny_pipeline.generate([1], seed=2, cfg_scale=3.0)[0])
        others = [{"cfg_scale": 1.0}, {"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.5}]
        assert (
            len(
                {tiny_pipeline.generate([1], seed=2, **other)[0].tobytes() for other in others}
                | {plain.tobytes()}
            )
            == 5
        )

    def test_progress_counts_codes_and_ends_at_the_total(self, tiny_pipeline: Pipeline) -> None:
        seen: list[tuple[int, int]] = []
        tiny_pipeline.generate([1] * 20, progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (20 * 16, 20 * 16)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def test_nothing_makes_nothing(self, tiny_pipeline: Pipeline) -> None:
        assert tiny_pipeline.generate([]) == []

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"seed": -1}, "seed"),
            ({"seed": 2**32 - 1}, "2 images"),
            ({"seed": 1.5}, "seed"),
            ({"temperature": -1}, "temperature"),
            ({"cfg_scale": 31}, "cfg_scale"),
            ({"top_p": 0}, "top_p"),
            ({"top_k": -1}, "top_k"),
        ],
    )
    def test_values_out_of_range_are_refused(
        self, tiny_pipeline: Pipeline, changes: dict, complaint: str
    ) -> None:
        with pytest.raises(InvalidInput, match=complaint):
            tiny_pipeline.generate([1, 1], **changes)

    def test_the_last_seed_can_be_used(self, tiny_pipeline: Pipeline) -> None:
        assert len(tiny_pipeline.generate([1, 1], seed=2**32 - 2)) == 2

    def test_closing_the_iterator_cancels_the_rest(self, slow: Slow) -> None:
        pipe, step = slow
        short, long = Request(0, prefix=range(15)), [Request(1) for _ in range(3)]
        drawing = pipe.draw_all([short, *long])
        step(1)
        next(drawing)
        drawing.close()  # type: ignore[attr-defined]
        step(2)
        assert until(lambda: pipe.server.engine.idle, 60)
        assert (pipe.server.tally.finished, pipe.server.tally.cancelled) == (1, 3)


class TestStream:
    def test_frames(self, tiny_pipeline: Pipeline) -> None:
        frames = list(tiny_pipeline.stream("tabby", seed=9, preview_every=3))
        first, last = frames[0], frames[-1]
        assert (first.step, first.total, first.image, len(first.codes), first.seconds) == (
            0,
            16,
            None,
            0,
            0.0,
        )
        assert last.step == 16
        assert last.image is not None
        assert last.image.mode == "RGB"
        assert same(last.image, tiny_pipeline.generate(["tabby"], seed=9)[0])
        previews = [frame for frame in frames[:-1] if frame.image]
        assert {frame.step for frame in previews} <= {3, 6, 9, 12, 15}
        for frame in previews:
            assert (frame.codes == last.codes[: frame.step]).all()
            assert frame.image.mode == "RGBA"
        assert [f.seconds for f in frames] == sorted(f.seconds for f in frames)

    def test_the_first_frame_comes_before_anything_is_submitted(
        self, tiny_pipeline: Pipeline
    ) -> None:
        stream = tiny_pipeline.stream(1)
        next(stream)
        assert tiny_pipeline._server is None
        del stream

    def test_a_notebook_shows_a_frame(self, tiny_pipeline: Pipeline) -> None:
        first, *_, last = tiny_pipeline.stream(1)
        assert first._repr_png_() is None
        shown = last._repr_png_()
        assert shown is not None and last.image is not None
        assert same(Image.open(io.BytesIO(shown)), last.image)

    def test_no_previews(self, tiny_pipeline: Pipeline) -> None:
        frames = list(tiny_pipeline.stream(1, preview_every=0))
        assert [frame.image is not None for frame in frames] == [False] * (len(frames) - 1) + [True]

    def test_seconds_leave_out_what_the_client_does(self, tiny_pipeline: Pipeline) -> None:
        seconds = []
        for frame in tiny_pipeline.stream(1, preview_every=4):
            seconds.append(frame.seconds)
            time.sleep(0.2)
        assert seconds[-1] < 0.2

    def test_a_stream_let_go_is_cancelled(self, slow: Slow) -> None:
        pipe, step = slow
        step(1)
        for frame in pipe.stream(1, preview_every=1):
            if frame.step:
                break
        step(2)
        assert until(lambda: pipe.server.engine.idle, 60)
        assert not pipe.server._mailboxes
        assert (pipe.server.tally.cancelled, pipe.server.tally.finished) == (1, 0)

    @pytest.mark.parametrize("begun", [False, True])
    def test_close_before_it_was_submitted(self, tiny_pipeline: Pipeline, begun: bool) -> None:
        stream = tiny_pipeline.stream(1)
        if begun:
            next(stream)
        stream.close()
        assert all(frame.step == 0 for frame in stream)
        assert tiny_pipeline._server is None

    def test_close_by_another_thread(
        self, tiny_model: AiM, tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entered, go = threading.Event(), threading.Semaphore(0)
        step = tiny_model.step

        def slow_step(*args: torch.Tensor) -> torch.Tensor:
            entered.set()
            assert go.acquire(timeout=60)
            return step(*args)

        monkeypatch.setattr(tiny_model, "step", slow_step)
        pipe = Pipeline(tiny_model, tiny_vq, backend="eager")
        stream = pipe.stream(1, preview_every=1)
        with ThreadPoolExecutor(1) as pool:
            frames = pool.submit(list, stream)
            assert entered.wait(60)
            stream.close()
            go.release()  # one step, no more
            assert all(frame.step <= 1 for frame in frames.result(60))
        assert pipe.server.engine.idle
        pipe.close()

    def test_what_is_prepared_is_told_and_notes_come_if_asked_for(
        self, tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [expected] = tiny_pipeline.draw([1], seed=5)
        tiny_pipeline.close()
        monkeypatch.setattr("aim.engine.transfer.device_queue", LateQueue)
        monkeypatch.setattr(tiny_pipeline, "_backend", Backend("gpu", tiny_pipeline.model))
        stream = tiny_pipeline.stream(1, seed=5, preview_every=1, explain=True)
        frames = list(stream)
        assert [frame.note for frame in frames if frame.note] == [
            "Preparing the GPU for 2 images at once …"
        ]
        assert [f.step for f in frames] == sorted(f.step for f in frames)
        assert frames[-1].codes.tolist() == expected.tolist()
        assert all(len(f.notes) == f.step for f in frames if f.step)
        other = list(tiny_pipeline.stream(1, seed=5, alone=True))[-1]
        assert (other.codes.tolist(), other.notes) == (expected.tolist(), None)

    def test_clients_at_once(self, tiny_pipeline: Pipeline) -> None:
        def last(seed: int) -> Frame:
            return list(
                tiny_pipeline.stream(tiny_pipeline.classes[seed % 5], seed=seed, preview_every=2)
            )[-1]

        with ThreadPoolExecutor(8) as pool:
            frames = list(pool.map(last, range(24)))
        for seed, frame in enumerate(frames):
            assert same(
                frame.image, tiny_pipeline.generate([tiny_pipeline.classes[seed % 5]], seed=seed)[0]
            )

    @pytest.mark.parametrize(
        "error", [RuntimeError("out of memory"), GenerationError("not finite")]
    )
    def test_a_failure_reaches_its_client_and_the_next_is_served(
        self, tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def explode(*_: torch.Tensor) -> torch.Tensor:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(CPUAiM, "step", explode)
            with pytest.raises(GenerationError, match=str(error)):
                list(tiny_pipeline.stream(1))
            with pytest.raises(GenerationError, match=str(error)):
                tiny_pipeline.generate([1, 207])
        assert len(tiny_pipeline.generate([1])) == 1

    def test_closing_the_pipeline_tells_who_waits(self, tiny_pipeline: Pipeline) -> None:
        stream = tiny_pipeline.stream(1, preview_every=1)
        next(stream), next(stream)
        tiny_pipeline.server.engine.submit(Request(0))  # has no client: nobody is told
        tiny_pipeline.close()
        with pytest.raises(GenerationError, match="closed"):
            list(stream)
        assert len(tiny_pipeline.generate([1])) == 1, "the next request starts another engine"


class TestPictures:
    def test_a_preview_shows_what_is_drawn_and_nothing_else(self, tiny_pipeline: Pipeline) -> None:
        codes = np.arange(16) * 3 % 64
        assert tiny_pipeline.preview(codes[:0]) is None
        for n in range(1, 17):
            alpha = (
                np.asarray(tiny_pipeline.preview(codes[:n]))[..., 3]
                .reshape(4, 4, 4, 4)
                .transpose(0, 2, 1, 3)
                .reshape(16, 16)
            )
            assert (alpha == np.where(np.arange(16) < n, 255, 0)[:, None]).all()

    def test_a_whole_preview_is_the_picture(self, tiny_pipeline: Pipeline) -> None:
        codes = np.arange(16)
        assert same(tiny_pipeline.preview(codes).convert("RGB"), tiny_pipeline.picture(codes))

    def test_an_unfinished_row_is_filled_from_above(self, tiny_vq: VQ) -> None:
        codes = torch.tensor([3, 14, 15, 9, 26])
        filled = torch.tensor([[[3, 14, 15, 9], [26, 14, 15, 9]]])
        assert torch.equal(Previewer(tiny_vq)(codes), tiny_vq.decode(filled)[0])
        assert torch.equal(
            Previewer(tiny_vq)(codes[:2]), tiny_vq.decode(torch.tensor([[[3, 14, 14, 14]]]))[0]
        )

    def test_where_the_decoder_is_slow_codes_have_one_colour(
        self, tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preview, "SLOW", 0.0)
        rough = Previewer(tiny_vq)
        assert rough.rough
        image = rough(torch.tensor([5, 5, 7, 7, 5]))
        assert image.shape == (3, 8, 16)
        cells = image.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)  # (3, 2, 4, 16)
        assert (cells == cells[..., :1]).all()
        assert torch.equal(cells[:, 0, 0], cells[:, 1, 0])
        assert not torch.equal(cells[:, 0, 0], cells[:, 0, 2])

    def test_a_rough_colour_is_near_the_decoder_s(
        self, tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a decoder that is linear in the code's vector, the fit is exact."""
        monkeypatch.setattr(preview, "SLOW", 0.0)
        table = tiny_vq.quantize.normalized()[:, :3]

        def decode(codes: torch.Tensor) -> torch.Tensor:
            return table[codes].permute(0, 3, 1, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)

        monkeypatch.setattr(tiny_vq, "decode", decode)
        monkeypatch.setattr(tiny_vq.config.__class__, "grid", 8)
        rough = Previewer(tiny_vq)
        codes = torch.arange(64)
        torch.testing.assert_close(rough(codes), decode(codes.view(1, 8, 8))[0], atol=1e-4, rtol=0)

    def test_parameters_say_how_to_draw_it_again(self, tiny_pipeline: Pipeline) -> None:
        found = tiny_pipeline.parameters("goldfish", 7, SamplingParams(2.5, 0.9, 100, 0.95))
        assert found == {
            "model": "tiny",
            "version": "0123456789ab",
            "class": 1,
            "class_name": "goldfish",
            "seed": 7,
            "cfg_scale": 2.5,
            "temperature": 0.9,
            "top_k": 100,
            "top_p": 0.95,
            "min_p": 0.0,
            "cfg_schedule": "constant",
            "cfg_from": 0.0,
            "cfg_to": 1.0,
            "device": "cpu",
            "dtype": "float32",
            "package": f"aim {aim.__version__}",
        }


class TestLoad:
    def test_a_pipeline_says_what_it_is(self, tiny_model: AiM, tiny_vq: VQ) -> None:
        pipe = Pipeline(tiny_model, tiny_vq, "tiny", "0123456789ab", backend="eager")
        assert repr(pipe) == "<Pipeline tiny 0123456789ab, float32 on cpu, eager>"

    @pytest.mark.parametrize("load", [aim.load, Pipeline.from_pretrained])
    def test_device_and_dtype_are_pytorch_s_or_strings(
        self, tiny_checkpoint: Path, load: Callable[..., Pipeline]
    ) -> None:
        for device in ("cpu", torch.device("cpu")):
            for dtype in (torch.bfloat16, "bfloat16", "torch.bfloat16"):
                pipe = load(tiny_checkpoint, device, dtype)
                assert (pipe.device, pipe.dtype) == (torch.device("cpu"), torch.bfloat16)
        with pytest.raises(InvalidInput, match="dtype is 'float16'"):
            load(tiny_checkpoint, "cpu", torch.float16)
        with pytest.raises(InvalidInput, match="device is 'meta'"):
            load(tiny_checkpoint, torch.device("meta"))

    def test_a_folder(self, tiny_checkpoint: Path, tiny_pipeline: Pipeline) -> None:
        pipe = aim.load(tiny_checkpoint, device="cpu", dtype="float32")
        assert pipe.version
        assert pipe.classes == (1, 207, 281, 285, 985)
        assert same(pipe.generate([1], seed=3)[0], tiny_pipeline.generate([1], seed=3)[0])
        assert Pipeline.from_pretrained(tiny_checkpoint, "cpu", "float32").version == pipe.version

    def test_backend_and_size_of_the_batch(self, tiny_checkpoint: Path) -> None:
        pipe = aim.load(tiny_checkpoint, "cpu", backend="eager", max_requests=3)
        assert (pipe.backend, pipe.backend_reason, pipe.server.engine.max_requests) == (
            "eager",
            "",
            3,
        )
        assert aim.load(tiny_checkpoint, "cpu").backend == "cpu"
        for backend in ("gpu", "turbo"):
            with pytest.raises(InvalidInput, match="auto"):
                aim.load("a model that is not there", "cpu", backend=backend)

    def test_bfloat16(self, tiny_checkpoint: Path) -> None:
        pipe = aim.load(tiny_checkpoint, "cpu", "bfloat16")
        assert pipe.dtype == pipe.tokenizer.dtype == torch.bfloat16
        assert pipe.generate([1], seed=3)[0].size == (16, 16)
        assert pipe.parameters(1, 3, pipe.sampling)["dtype"] == "bfloat16"

    def test_threads(self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aim.device.all_threads", lambda: 4)
        try:
            for _ in range(2):
                aim.load(tiny_checkpoint, "cpu")
                assert torch.get_num_threads() == 3, (
                    "a core is left for the rest, however often a model is loaded"
                )
            monkeypatch.setenv("AIM_THREADS", "2")
            aim.load(tiny_checkpoint, "cpu")
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)

    def test_all_cores_draw_and_one_loads_and_decodes(
        self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else OpenMP's helpers outnumber the cores, and sleep between the loops of a step."""
        monkeypatch.setattr("aim.device.all_threads", lambda: 4)
        monkeypatch.setattr("aim.engine.server.all_threads", lambda: 4)
        found = {}

        def at(name: str, of: Any, method: str) -> None:
            really = getattr(of, method)

            def noted(*args: Any, **kwargs: Any) -> Any:
                found[name] = torch.get_num_threads()
                return really(*args, **kwargs)

            monkeypatch.setattr(of, method, noted)

        at("load", pipeline_module, "load_model")
        at("draw", Engine, "step")
        at("decode", VQ, "decode")
        try:
            pipe = aim.load(tiny_checkpoint, "cpu")
            pipe.generate([1])
            assert found == {"load": 1, "draw": 4, "decode": 1}
            assert torch.get_num_threads() == 3
            monkeypatch.setenv("AIM_THREADS", "2")
            aim.load(tiny_checkpoint, "cpu").generate([1])
            assert found == {"load": 1, "draw": 2, "decode": 1}
        finally:
            torch.set_num_threads(1)

    def test_nothing_is_left_when_a_pipeline_is_let_go(self, tiny_model: AiM, tiny_vq: VQ) -> None:
        threads = threading.active_count()
        pipe = Pipeline(tiny_model, tiny_vq)
        pipe.generate([1])
        server = weakref.ref(pipe.server)
        del pipe
        gc.collect()
        assert until(lambda: threading.active_count() == threads, 60)
        gc.collect()
        assert server() is None

    def test_a_process_ends_in_the_middle_of_a_drawing(
        self, run_python: Callable[..., Any], tiny_checkpoint: Path
    ) -> None:
        code = (
            f"import aim; s = aim.load({str(tiny_checkpoint)!r}, 'cpu').stream(1, "
            "preview_every=1); next(s), next(s), next(s)"
        )
        done = run_python("-c", code)
        assert (done.returncode, done.stderr) == (0, "")

    def test_importing_is_light(self, run_python: Callable[..., Any]) -> None:
        code = (
            "import sys, aim; heavy = {'torch', 'gradio', 'pydantic', 'typer'}; "
            "print(sys.modules.keys() & heavy); aim.Pipeline; print('gradio' in sys.modules)"
        )
        assert run_python("-c", code).stdout.splitlines() == ["set()", "False"]

    def test_every_public_name_is_there(self) -> None:
        assert sorted(aim.__all__) == sorted(dir(aim)) == aim.__all__
        assert all(getattr(aim, name) is not None for name in aim.__all__)
        with pytest.raises(AttributeError, match="nonsense"):
            aim.nonsense  # noqa: B018


def test_the_engine_is_the_pipeline(tiny_pipeline: Pipeline) -> None:
    """What ``draw`` yields is what an engine driven by hand yields."""
    request = Request(tiny_pipeline.row(285), tiny_pipeline.sampling, seed=11)
    [codes] = [
        event.codes
        for event in Engine(tiny_pipeline.model).run([request])
        if isinstance(event, Finished)
    ]
    assert next(tiny_pipeline.draw([285], seed=11)).tolist() == codes.tolist()


@pytest.mark.parametrize(
    "labels", [np.int64(1), torch.tensor(1), np.array([1]), torch.tensor([1]), [np.int32(1)], 1]
)
def test_labels_may_be_any_kind_of_integer(tiny_pipeline: Pipeline, labels: Any) -> None:
    [image] = tiny_pipeline.generate(labels, seed=3)
    [wanted] = tiny_pipeline.generate("goldfish", seed=3)
    assert image.tobytes() == wanted.tobytes()


def test_many_requests_fit_into_any_line(tiny_model: AiM) -> None:
    """Twice as many as run do not fit into this one."""
    server = Server(Engine(tiny_model, 4, max_waiting=1))
    try:
        asked = [Request(0, seed=seed) for seed in range(12)]
        ended = [event for event in run(server, asked) if isinstance(event, Finished)]
        assert {event.request_id for event in ended} == {request.id for request in asked}
    finally:
        server.close()
