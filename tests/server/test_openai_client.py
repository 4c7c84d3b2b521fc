"""The official client of OpenAI, unchanged, against the HTTP API on a real port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.server import ServerRules
from chat_app.services import Services
from tests.server.api_server import ApiServer

KEY = "a key of the test"
HELLO: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]


@pytest.fixture
def client(tmp_path: Path, tiny_folder: Path) -> Iterator[openai.OpenAI]:
    services = Services(Paths(tmp_path / "home"), ServerRules(training=False), str(tiny_folder))
    services.models.use(str(tiny_folder), LoadConfig(precision="float32"))
    server = ApiServer(services, KEY)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=180) as client:
        yield client
    server.close()
    services.close()


def test_the_official_client_works_unchanged(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert models[0].id == "model"
    assert client.models.retrieve("model").id == "model"

    settings: Any = {"model": "model", "messages": HELLO, "seed": 3, "max_completion_tokens": 12}
    whole = client.chat.completions.create(**settings, n=2, logprobs=True, top_logprobs=3)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.usage is not None
    written = 0
    for choice in whole.choices:
        assert choice.finish_reason in ("stop", "length")
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        written += len(choice.logprobs.content)
        raw = b"".join(bytes(one.bytes or []) for one in choice.logprobs.content)
        assert (choice.message.content or "") in raw.decode("utf-8", "ignore")
        for one in choice.logprobs.content:
            assert len(one.top_logprobs) == 3
            assert one.logprob <= one.top_logprobs[0].logprob <= 0
    assert written <= whole.usage.completion_tokens <= 24

    texts, tokens, counts = ["", ""], [0, 0], None
    for chunk in client.chat.completions.create(
        **settings, n=2, logprobs=True, stream=True, stream_options={"include_usage": True}
    ):
        counts = chunk.usage or counts
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            tokens[choice.index] += len(choice.logprobs.content or []) if choice.logprobs else 0
    assert texts == [choice.message.content for choice in whole.choices]
    assert tokens == [len(choice.logprobs.content or []) for choice in whole.choices if choice.logprobs]
    assert counts == whole.usage

    other = client.chat.completions.create(
        **settings, extra_body={"top_k": 1, "repetition_penalty": 1, "min_p": 0.1}, presence_penalty=1, stop=["zzz"]
    )
    assert other.choices[0].message.content


def test_the_official_client_understands_refusals(client: openai.OpenAI) -> None:
    settings: Any = {"model": "model", "messages": HELLO}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**settings, temperature=9)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
