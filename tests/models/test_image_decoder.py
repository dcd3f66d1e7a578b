"""From codes to pixels: in order, in parts, equal to the decoder's."""

from __future__ import annotations

import copy
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from aim.codec import Codec
from aim.config import VQConfig
from aim.errors import InvalidInput
from aim.images import write
from aim.models import image_decoder
from aim.models.image_decoder import ImageDecoder
from aim.models.vq.model import VQ
from tests.launching import call


def random_codes(count: int, vq: VQ) -> np.ndarray:
    return np.random.default_rng(0).integers(
        vq.config.codebook_size, size=(count, vq.config.grid**2)
    )


@torch.no_grad()
def decoded(vq: VQ, codes: np.ndarray) -> np.ndarray:
    return (
        write.to_bytes(vq.decode(torch.from_numpy(codes).to(vq.quant_conv.weight.device)))
        .permute(0, 2, 3, 1)
        .cpu()
        .numpy()
    )


def test_images_come_in_order_and_equal_those_decoded_alone(tiny_vq: VQ):
    codes = random_codes(5, tiny_vq)
    got = list(ImageDecoder(tiny_vq).images(codes))
    assert all(image.dtype == np.uint8 and image.shape == (16, 16, 3) for image in got)
    for one, image in zip(codes, got, strict=True):
        assert np.array_equal(image, decoded(tiny_vq, one[None])[0])
    assert list(ImageDecoder(tiny_vq).images([])) == []


def test_decoding_begins_before_the_last_codes_are_drawn(
    tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    begin = ImageDecoder.begin
    monkeypatch.setattr(
        ImageDecoder,
        "begin",
        lambda self, codes: events.append(f"decode {len(codes)}") or begin(self, codes),
    )
    decoder = ImageDecoder(tiny_vq)
    decoder.chunk = 2

    def drawn() -> Iterator[np.ndarray]:
        for codes in random_codes(5, tiny_vq):
            events.append("drawn")
            yield codes

    assert len(list(decoder.images(drawn()))) == 5
    assert events == [
        "drawn",
        "drawn",
        "decode 2",
        "drawn",
        "drawn",
        "decode 2",
        "drawn",
        "decode 1",
    ]


def test_few_parts_are_under_way_at_a_time(tiny_vq: VQ):
    asked = 0

    def drawn() -> Iterator[np.ndarray]:
        nonlocal asked
        for codes in random_codes(9, tiny_vq):
            asked += 1
            yield codes

    images = ImageDecoder(tiny_vq).images(drawn())
    next(images)
    assert asked == image_decoder.AHEAD + 1
    images.close()


@pytest.mark.parametrize(
    "codes, message",
    [
        ([[0] * 15], r"shape \(15,\); an image has \(16,\)"),
        ([[0] * 15 + [64]], r"\[0, 64\]"),
        ([[0] * 15 + [-1]], r"\[-1, 0\]"),
    ],
)
def test_what_cannot_be_codes_is_refused(tiny_vq: VQ, codes: list[list[int]], message: str):
    with pytest.raises(InvalidInput, match=message):
        list(ImageDecoder(tiny_vq).images(np.array(codes)))


def test_many_threads_get_their_own_images(tiny_vq: VQ):
    codes = random_codes(8, tiny_vq)
    decoder, got = ImageDecoder(tiny_vq), {}

    def work(i: int) -> None:
        got[i] = next(decoder.images(codes[i : i + 1]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(got[i], decoded(tiny_vq, codes[i : i + 1])[0]) for i in range(8))


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def kept_by_threads(count: int) -> tuple[float, float]:
    """MB that one thread keeps of what it decoded, and so many after it."""
    torch.set_num_threads(1)
    codec = Codec(VQ(VQConfig(image_size=128, codebook_size=64, z_channels=64, ch=64)).eval())
    [codes] = random_codes(1, codec.tokenizer)
    alive, took = threading.Event(), [megabytes()]
    for _ in range(1 + count):
        done = threading.Event()

        def work(done: threading.Event = done) -> None:
            codec.picture(codes), codec.preview(codes[:100])
            done.set()
            alive.wait()

        threading.Thread(target=work, daemon=True).start()
        assert done.wait(60)
        took.append(megabytes())
    alive.set()
    return took[1] - took[0], took[-1] - took[1]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_many_threads_that_decode_keep_the_memory_of_one() -> None:
    first, others = call(kept_by_threads, 24)
    assert others < first


def test_a_process_that_was_forked_decodes(tiny_vq: VQ) -> None:
    codec, [codes] = Codec(tiny_vq), random_codes(1, tiny_vq)
    codec.picture(codes)
    if not hasattr(os, "fork"):
        pytest.skip("nothing forks here")
    image_decoder._in_one_thread._pool.submit(int).result()
    child = os.fork()
    if not child:
        os._exit(image_decoder._in_one_thread(lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_decoding_on_a_gpu(tiny_vq: VQ, dtype: torch.dtype):
    vq = copy.deepcopy(tiny_vq).to_dtype(dtype).cuda()
    decoder = ImageDecoder(vq)
    codes = random_codes(39, vq)
    want = np.concatenate([decoded(vq, codes[i : i + 1]) for i in range(len(codes))])
    alone = np.concatenate([decoder.begin([one]).wait() for one in codes])
    together = np.stack(list(decoder.images(codes)))
    on_device = decoder.decode(torch.from_numpy(codes).cuda()).cpu().numpy()
    assert np.array_equal(together, on_device)
    if dtype == torch.float32:
        assert decoder.chunk == 1
        assert np.array_equal(alone, together)
    for got in (alone, together):
        assert np.abs(got.astype(int) - want).max() <= (0 if dtype == torch.float32 else 10)


@pytest.mark.gpu
def test_threads_share_the_recorded_decoding(tiny_vq: VQ):
    vq = copy.deepcopy(tiny_vq).to_dtype(torch.bfloat16).cuda()
    decoder, codes, got = ImageDecoder(vq), random_codes(64, tiny_vq), {}
    want = [next(decoder.images(codes[i : i + 1])) for i in range(64)]

    def work(first: int) -> None:
        for i in range(first, 64, 8):
            with torch.cuda.stream(torch.cuda.Stream()):
                got[i] = next(decoder.images(codes[i : i + 1]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(got[i], want[i]) for i in range(64))


@pytest.mark.parametrize(
    ("count", "parts"),
    [
        (0, []),
        (1, [1]),
        (3, [3]),
        (5, [4, 1]),
        (7, [4, 3]),
        (20, [16, 4]),
        (70, [64, 4, 2]),
        (256, [64] * 4),
    ],
)
def test_no_part_is_more_than_half_empty(count: int, parts: list[int]) -> None:
    assert list(image_decoder._parts(count, (1, 4, 16, 64))) == parts
    assert list(image_decoder._parts(count, (1,))) == [1] * count
