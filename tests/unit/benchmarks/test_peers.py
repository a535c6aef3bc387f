"""The comparison with peers: requests, checks of answers, weights for both libraries, and the summary."""

import asyncio
import base64
import io
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import load
from benchmarks.load import Response, rate
from benchmarks.peers import servers
from benchmarks.peers.images import as_image, embedding_requests, numbers_of, shop_images
from benchmarks.peers.measure import Meter, Window, check
from benchmarks.peers.summary import Run, figures, ratios
from benchmarks.peers.towers import bare_vectors, model_config, write_tower


def a_jpeg(color: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(stream, "JPEG")
    return stream.getvalue()


def inputs(request: Sequence[bytes]) -> list[bytes]:
    """Read the files of a request, and check its frame."""
    head, body = b"".join(request).split(b"\r\n\r\n", 1)
    assert head.startswith(b"POST /v1/embeddings HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    read = json.loads(body)
    assert (read["model"], read["modality"]) == ("some", "image")
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in read["input"])
    return [base64.b64decode(uri.partition(",")[2], validate=True) for uri in read["input"]]


@pytest.mark.parametrize("batch", [1, 16])
def test_requests_hold_the_images_in_turn_and_no_file_twice(batch: int) -> None:
    # Files of every length modulo 3, as base64 goes by threes.
    images = [a_jpeg((number * 4, 0, 0)) + bytes(number % 3) for number in range(64)]
    requests = list(islice(embedding_requests("/v1/embeddings", "some", images, batch), 80))
    files = [file for request in requests for file in inputs(request)]
    assert len(set(files)) == len(files) == 80 * batch
    numbers = [number for request in range(80) for number in numbers_of(request, batch)]
    for file, number in zip(files, numbers, strict=True):
        assert file.startswith(images[number])
        assert as_image(file).getpixel((3, 3)) == as_image(images[number]).getpixel((3, 3))


def test_the_images_are_those_of_a_shop() -> None:
    images = shop_images()
    assert len(set(images)) == 64
    assert all(as_image(each).size == (500, 500) for each in images[:3])
    assert 75_000 < sum(map(len, images)) / 64 < 90_000


def answer(number: int, vectors: np.ndarray) -> Response:
    data = [{"index": index, "embedding": each.tolist()} for index, each in enumerate(vectors)]
    # Answers may come in any order.
    return Response(0.0, 0.0, number, json.dumps({"data": data[::-1]}).encode())


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """Unit vectors as near to each other as those of random weights."""
    vectors = 1 + np.random.default_rng(0).normal(0, 0.02, (64, 32)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_an_answer_of_the_right_vectors_passes_whatever_their_length(expected: np.ndarray) -> None:
    assert check(answer(1, expected[16:32] * 3), 16, expected) == pytest.approx(1)


def test_an_answer_of_another_image_is_refused_though_it_is_near(expected: np.ndarray) -> None:
    assert expected[1] @ expected[2] > 0.999
    with pytest.raises(RuntimeError, match="request 1 was answered by other vectors"):
        check(answer(1, expected[2:3]), 1, expected)


def test_an_answer_that_is_far_from_the_bare_model_is_refused(expected: np.ndarray) -> None:
    far = expected[1:2].copy()
    far[0, 0] += 0.1
    with pytest.raises(RuntimeError, match=r"least cosine 0\.99"):
        check(answer(1, far), 1, expected)


def test_an_answer_that_lacks_a_vector_is_refused(expected: np.ndarray) -> None:
    with pytest.raises(RuntimeError, match=r"shape \(15, 32\)"):
        check(answer(1, expected[16:31]), 16, expected)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Response each request of a connection by its own body."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = await reader.readexactly(int(head.split(b":")[-1]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    writer.close()


def test_each_answer_bears_the_number_of_its_request() -> None:
    bodies = [b"%d" % (number**7) for number in range(40)]
    requests = iter([[b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(each), each] for each in bodies])

    async def answered() -> list[Response]:
        found: list[Response] = []
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            made = await load._connect(port, requests, 3, found.append)
            await asyncio.gather(*(connection.closed for _, connection in made))
        return found

    found = asyncio.run(answered())
    assert {answer.number: answer.body for answer in found} == dict(enumerate(bodies))
    assert all(answer.seconds > 0 for answer in found)


def test_a_rate_is_the_slope_of_all_answers() -> None:
    assert rate([Response(7 + moment / 4, 0, 0, b"") for moment in range(20)]) == pytest.approx(4)


def test_a_meter_counts_the_work_of_this_process_neither_for_the_server_nor_for_others() -> None:
    with Meter() as meter:
        math.fsum(range(100_000))
    assert meter.server_s == 0
    assert meter.others >= 0


def a_run(server: str, images_per_s: float, cpu_ms: float = 5.0, bare: float = 50.0) -> Run:
    return Run(
        server,
        {"16x1": Window(images_per_s, cpu_ms, 20.0, 0.9999, 0.05)},
        [("a", 2048.0), ("b", 512.0)],
        bare,
    )


def test_figures_are_medians_over_the_turns() -> None:
    runs = [a_run("vitrine", 40), a_run("other", 10), a_run("vitrine", 20), a_run("vitrine", 30)]
    found = figures(runs)
    assert found["vitrine"]["16x1"]["images_per_s"] == 30
    assert found["vitrine"]["16x1"]["served_over_bare"] == 0.6
    assert found["other"]["16x1"]["images_per_s"] == 10


def test_ratios_are_over_each_peer_and_over_the_better_one() -> None:
    found = ratios({"tower": figures([a_run("vitrine", 40, 7), a_run("slow", 10), a_run("fast", 20)])})
    assert found == {
        "tower_16x1_cpu_ms": 7.0,
        "tower_16x1_p50_ms": 20.0,
        "tower_16x1_served_over_bare": 0.8,
        "tower_16x1_over_slow": 4.0,
        "tower_16x1_over_fast": 2.0,
        "tower_16x1_over_better_peer": 2.0,
        "tower_pss_gib": 2.5,
    }


def test_without_peers_there_are_no_ratios_over_them() -> None:
    found = ratios({"tower": figures([a_run("vitrine", 40)])})
    assert not [key for key in found if "_over_" in key and not key.endswith("_over_bare")]


def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.PEERS, "broken", ("no such requirement!",))
    monkeypatch.setattr(servers, "_make_environment", lambda *_: None)
    with pytest.raises(servers.NotInstalled, match=r"broken could not be installed: .*requirement"):
        servers.install("broken", tmp_path)
    assert not (tmp_path / "broken" / ".installed").exists()


@pytest.mark.slow
def test_both_formats_of_a_tower_give_the_same_vectors(tmp_path: Path) -> None:
    from transformers import AutoProcessor, CLIPModel

    tower = write_tower(tmp_path / "tower", model_config("one_layer"))
    images = shop_images()[:4]
    model, processor = CLIPModel.from_pretrained(tower).eval(), AutoProcessor.from_pretrained(tower)
    with torch.inference_mode():
        pixels = processor(images=[as_image(each) for each in images], return_tensors="pt")
        features = model.get_image_features(**pixels)
        vectors = torch.nn.functional.normalize(getattr(features, "pooler_output", features)).numpy()
    assert (vectors * np.array(bare_vectors(tower, images), np.float32)).sum(axis=1).min() > 0.9999
    assert processor.tokenizer("a red dress").input_ids == [49406, 320, 736, 2595, 49407]
