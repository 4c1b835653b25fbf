"""OpenAI's client talks to transformers' server over a tiny model of ours."""

import asyncio
import json
import signal
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from tiny_checkpoints import write_llada

from tad_ext.data.tasks.prompts import chat_ids
from tad_ext.decoding import DecodeConfig, decode, preset
from tad_ext.jobs.serve import run as serve_module
from tad_ext.jobs.serve.config import ServeConfig
from tad_ext.models.loading import load_model, load_tokenizer
from tad_ext.models.lora import add_lora, load_merged, save_adapter
from tad_ext.settings import made

openai = pytest.importorskip("openai", reason="needs the packages that the extra 'serve' installs")
pytest.importorskip("uvicorn", reason="needs the packages that the extra 'serve' installs")

QUESTION = [{"role": "user", "content": "Anna has 12 apples."}]
DECODING = preset("tad", gen_length=24, block_length=8)
LONG = 1600  # tokens, of which one takes a forward: more than a client stays for
_LONG = {"policy": "topk:1", "max_new_tokens": LONG, "block_length": LONG, "stop_at_eos": False}
FOR_LONG = {"extra_body": {"generation_config": json.dumps(_LONG)}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_llada(tmp_path_factory.mktemp("checkpoints") / "llada", layers=1, width=32).folder)


def client_of(port):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)


def wait_for(server):
    while not server.started:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def served(checkpoint):
    with serving(checkpoint) as served:
        yield served


@contextmanager
def serving(checkpoint):
    """A server on a thread, and what tests ask of it."""
    from tad_ext.jobs.serve.server import Server

    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    forwards = []
    model.register_forward_pre_hook(lambda *_: forwards.append(1))
    server = Server(model, tokenizer, "tiny", DECODING)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(server)
        try:
            yield SimpleNamespace(
                client=client_of(port), port=port, model=model, tokenizer=tokenizer, forwards=forwards, server=server
            )
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join()


def chat(served, messages=QUESTION, **options):
    return served.client.chat.completions.create(**{"model": "tiny", "messages": messages} | options)


def decoded(model, tokenizer, prompt, decoding):
    """What decoding gives, as text."""
    [response] = decode(model, [prompt], decoding).responses()
    return tokenizer.decode(response, skip_special_tokens=True)


def test_the_model_is_listed(served):
    assert [model.id for model in served.client.models.list()] == ["tiny"]


def test_an_answer_is_what_decoding_gives_with_the_servers_settings(served):
    answer = chat(served)
    [choice] = answer.choices
    prompt = chat_ids(served.tokenizer, QUESTION)
    assert choice.message.content == decoded(served.model, served.tokenizer, prompt, DECODING)
    assert (answer.model, choice.message.role, choice.finish_reason) == ("tiny", "assistant", "length")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), DECODING.gen_length)
    completion = served.client.completions.create(model="tiny", prompt="Anna has", max_tokens=16)
    asked = served.tokenizer("Anna has").input_ids
    shorter = preset("tad", gen_length=16, block_length=8)
    assert completion.choices[0].text == decoded(served.model, served.tokenizer, asked, shorter)


def test_a_streamed_answer_is_the_same_in_pieces(served):
    whole = chat(served, max_tokens=16)
    chunks = list(chat(served, max_tokens=16, stream=True))
    pieces = [chunk.choices[0].delta.content for chunk in chunks]
    assert len([piece for piece in pieces if piece]) > 3
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[-1].usage == whole.usage
    # The server's own streamer leaves out half characters at the very end, so a whole one may have more.
    assert whole.choices[0].message.content.startswith("".join(piece or "" for piece in pieces))
    text = served.client.completions.create(model="tiny", prompt="Anna has", max_tokens=16)
    streamed = served.client.completions.create(model="tiny", prompt="Anna has", max_tokens=16, stream=True)
    assert text.choices[0].text.startswith("".join(chunk.choices[0].text for chunk in streamed))


def test_a_stop_text_ends_an_answer(served):
    content = chat(served).choices[0].message.content
    stop = next(char for char in content if char.isalpha())
    answer = chat(served, stop=[stop])
    assert answer.choices[0].finish_reason == "stop"
    assert stop in answer.choices[0].message.content
    assert content.startswith(answer.choices[0].message.content)
    assert list(chat(served, stop=stop, stream=True))[-1].choices[0].finish_reason == "stop"


def test_a_seed_gives_the_same_sample_again(served):
    def sampled(**options):
        return chat(served, temperature=1.5, **options).choices[0].message.content

    assert sampled(seed=1) == sampled(seed=1) != sampled(seed=2)
    assert sampled() != sampled()
    assert sampled(seed=1, top_p=0.01) == chat(served, temperature=0, top_p=0.3).choices[0].message.content


def test_a_request_may_choose_how_it_is_decoded(served):
    before = len(served.forwards)
    config = {"policy": "topk:8", "block_length": 8}
    asked = chat(served, extra_body={"generation_config": json.dumps(config | {"max_new_tokens": 16})})
    assert (asked.usage.completion_tokens, len(served.forwards) - before) == (16, 2)
    usual = chat(served, extra_body={"generation_config": json.dumps(config)})
    assert (usual.usage.completion_tokens, usual.choices[0].finish_reason) == (DECODING.gen_length, "length")


IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "cat.png"}}]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "other"}, "requested 'other'"),
        ({"messages": []}, "messages must be a list of at least one message"),
        ({"messages": [{"content": "Anna"}]}, r"messages\[0\] must have a role"),
        ({"messages": [IMAGE]}, r"messages\[0\].content must be text"),
        ({"messages": [{"role": "user", "content": "Anna " * 3000}]}, "more than the model's max_position_embeddings"),
        ({"max_tokens": 3000}, "more than the model's max_position_embeddings"),
        ({"max_tokens": 0}, "max_tokens must be an integer in .* got 0"),
        ({"max_completion_tokens": -1}, "max_completion_tokens must be an integer in .* got -1"),
        ({"temperature": -0.5}, "temperature must be a finite number in .* got -0.5"),
        ({"temperature": "hot"}, "temperature must be a finite number in .* got 'hot'"),
        ({"top_p": 1.5, "temperature": 1}, "top_p must be a finite number in .* got 1.5"),
        ({"seed": -1}, "seed must be an integer in .* got -1"),
        ({"stop": [""]}, r"stop_strings\[0\] must be text"),
        ({"n": 2}, "n is 2, which this server cannot do"),
        ({"logprobs": True}, "logprobs is True"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is 0.5"),
        ({"response_format": {"type": "json_object"}}, "response_format is "),
        ({"messages": [{"role": "user", "content": 0}]}, r"messages\[0\].content must be text"),
        ({"messages": [{"role": "assistant", "tool_calls": [3]}]}, "chat template refuses them"),
        ({"messages": [{"role": "user", "content": "Anna " * 200_000}]}, "has .* characters, far more than"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "template does not know"),
        ({"extra_body": {"chat_template_kwargs": 3}}, "chat_template_kwargs must be variables .* got 3"),
        ({"extra_body": {"chat_template_kwargs": {"tokenize": False}}}, "chat_template_kwargs must be variables"),
        ({"extra_body": {"generation_config": '{"pad_token_id": 1000000000000000000000}'}}, "pad_token_id must be"),
        ({"extra_body": {"foo": 1}}, "Unexpected fields .*foo"),
        ({"extra_body": {"generation_config": "{"}}, "generation_config must be a JSON object"),
        ({"extra_body": {"generation_config": '{"num_beams": 4}'}}, "num_beams is 4"),
        ({"extra_body": {"generation_config": '{"policy": "no"}'}}, "policy 'no': unknown name"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_refused_by_name(served, options, message, stream):
    before = len(served.forwards)
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        chat(served, **options, stream=stream)
    assert refused.value.status_code == 400
    assert len(served.forwards) == before


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request must be a JSON object"),
        (b"[1]", "the request must be a JSON object"),
        (b"\xe9", "parsing the body"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages has half of a surrogate pair"),
        (b'{"messages": [{"role": "\\ud800"}]}', "messages has half of a surrogate pair"),
        (b'{"model": "\\ud800", "messages": [{"role": "user"}]}', r"requested '\ud800'"),
        (b'{"stream": "false"}', "stream must be true or false"),
    ],
)
def test_what_no_client_of_openai_sends_is_refused_likewise(served, body, message):
    url, header = f"http://127.0.0.1:{served.port}/v1/chat/completions", {"Content-Type": "application/json"}
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(urllib.request.Request(url, body, header))
    assert message in json.load(refused.value)["error"]["message"]


def test_no_prompt_and_no_other_service(served):
    with pytest.raises(openai.BadRequestError, match="prompt must be a text, got ''"):
        served.client.completions.create(model="tiny", prompt="")
    with pytest.raises(openai.BadRequestError, match="suffix is 'a', which this server cannot do"):
        served.client.completions.create(model="tiny", prompt="Anna", suffix="a")
    for path in ("/reset", "/v1/responses"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{served.port}{path}", data=b"{}"))
    body = json.dumps({"model": "other/model"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.port}/load_model", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as events:
        assert b"the only one here" in events.read()


def test_what_only_seems_unusual_is_fine(served):
    neutral = {"n": 1, "user": "me", "frequency_penalty": 0, "response_format": {"type": "text"}, "logprobs": False}
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
    assert chat(served, parts, **neutral).choices == chat(served).choices
    null = dict.fromkeys(("stop", "tools", "stream", "chat_template_kwargs", "max_tokens", "generation_config"))
    output = {"generation_config": json.dumps({"return_dict_in_generate": True})}
    for body in (null, output):
        assert chat(served, extra_body=body).choices == chat(served).choices


def test_a_client_that_leaves_is_not_answered_to_the_end(served):
    before = len(served.forwards)
    stream = chat(served, stream=True, **FOR_LONG)
    next(iter(stream))
    stream.close()
    assert chat(served, max_tokens=8).choices  # behind it
    assert len(served.forwards) - before < LONG / 2


def test_requests_wait_for_each_other_and_none_is_lost(served):
    questions = [[{"role": "user", "content": f"Anna has {count} apples."}] for count in range(12)]
    alone = [chat(served, question, max_tokens=8).choices for question in questions]
    with ThreadPoolExecutor(6) as pool:
        together = pool.map(lambda question: chat(served, question, max_tokens=8).choices, questions)
    assert list(together) == alone


def test_a_server_that_is_to_stop_ends_what_is_being_decoded(checkpoint):
    with serving(checkpoint) as served, ThreadPoolExecutor(2) as pool:
        streamed = pool.submit(lambda: list(chat(served, stream=True, **FOR_LONG)))
        while not served.forwards:
            time.sleep(0.01)
        waiting = pool.submit(chat, served, **FOR_LONG)
        served.server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(openai.APIError, match="error occurred during streaming"):
            streamed.result()
        with pytest.raises((openai.InternalServerError, openai.APIConnectionError)):  # if it came too late
            waiting.result()
    assert len(served.forwards) < LONG / 2


def test_the_command_serves_the_merged_adapter_where_it_says(checkpoint, tmp_path, capsys, monkeypatch):
    adapted = add_lora(load_model(checkpoint), rank=2, alpha=64, seed=1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    save_adapter(adapted, tmp_path / "adapter")
    from tad_ext.jobs.serve.server import Server

    ran = []
    monkeypatch.setattr(Server, "run", lambda self, sockets: ran.append((self, sockets)))
    config = {"model": checkpoint, "adapter": str(tmp_path / "adapter"), "port": 0, "gen_length": 16, "block_length": 8}
    serve_module.serve(made(ServeConfig, config))
    [(server, [listener])] = ran
    port = listener.getsockname()[1]
    assert f"serving {checkpoint} at http://localhost:{port}/v1" in capsys.readouterr().out
    thread = threading.Thread(target=asyncio.run, args=[server.serve(sockets=[listener])])
    thread.start()
    wait_for(server)
    answer = client_of(port).chat.completions.create(model=checkpoint, messages=QUESTION)
    server.should_exit = True
    thread.join()
    tokenizer, model = load_tokenizer(checkpoint), load_merged(checkpoint, tmp_path / "adapter")
    expected = decoded(model, tokenizer, chat_ids(tokenizer, QUESTION), DecodeConfig(gen_length=16, block_length=8))
    assert answer.choices[0].message.content == expected


def test_the_command_refuses_before_it_loads_the_model(checkpoint, monkeypatch):
    monkeypatch.setattr(ServeConfig, "load", lambda self: pytest.fail("the model was loaded"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port is {port}, which cannot be listened at"):
            serve_module.serve(ServeConfig(model=checkpoint, port=port))
    with pytest.raises(ValueError, match="gen_length is 4096: expected less than the model's max_position_embeddings"):
        serve_module.serve(ServeConfig(model=checkpoint, decoding=DecodeConfig(gen_length=4096)))
    with pytest.raises(ValueError, match="port must be an integer"):
        ServeConfig(model=checkpoint, port=70000)
    monkeypatch.setattr(serve_module, "is_serve_available", lambda: False)
    with pytest.raises(ImportError, match=r"pip install 'tad_ext\[serve\]'"):
        serve_module.serve(ServeConfig(model=checkpoint))
