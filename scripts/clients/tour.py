"""A tour of a server with the official OpenAI and Anthropic clients.

    tour.py http://127.0.0.1:8000 MODEL

Each station prints its name and "ok", or says what was wrong and ends the tour with
status 1. The model's answers may be nonsense; their form must not be.
"""

import json
import re
import sys
import time
import urllib.request

import anthropic
import openai
import pydantic

URL, MODEL = sys.argv[1].rstrip("/"), sys.argv[2]
client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0, timeout=120)
claude = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0, timeout=120)
ASK = [{"role": "user", "content": "Tell me a story about a red kite."}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome", "Lima"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": WEATHER}]
stations = []


def station(f):
    stations.append(f)
    return f


def refused(kind, status, call, **has):
    try:
        call()
    except kind as e:
        assert e.status_code == status, (e.status_code, status)
        for name, value in has.items():
            assert getattr(e, name) == value, (name, getattr(e, name), value)
        return e
    raise AssertionError(f"{kind.__name__} expected")


def idle():
    """Waits until no request runs, for a minute at most."""
    for _ in range(600):
        text = urllib.request.urlopen(URL + "/metrics").read().decode()
        values = re.findall(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", text, re.M)
        assert values
        if all(float(v) == 0 for v in values):
            return
        time.sleep(0.1)
    raise AssertionError("requests still run a minute after their clients left")


@station
def models():
    ids = [m.id for m in client.models.list()]
    assert MODEL in ids, ids
    assert client.models.retrieve(MODEL).id == MODEL


@station
def chat():
    r = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=40, temperature=0)
    assert r.choices[0].message.role == "assistant" and r.choices[0].message.content
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens


@station
def chat_stream_says_the_same():
    whole = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=40, temperature=0)
    text, usage, finish = "", None, None
    for chunk in client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=40, temperature=0, stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert finish == whole.choices[0].finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens


@station
def logprobs():
    r = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3)
    content = r.choices[0].logprobs.content
    assert len(content) == r.usage.completion_tokens
    for t in content:
        assert len(t.top_logprobs) == 3 and t.logprob <= 0
        assert t.top_logprobs[0].token == t.token, "greedy draws the likeliest"


@station
def choices_seed_and_stop():
    def ask():
        return client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=30, n=2, seed=7, temperature=1)

    a, b = ask(), ask()
    assert [c.message.content for c in a.choices] == [c.message.content for c in b.choices]
    assert a.choices[0].message.content != a.choices[1].message.content
    r = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=200, temperature=0, stop=["."])
    assert r.choices[0].finish_reason == "stop" and "." not in r.choices[0].message.content


@station
def completions():
    r = client.completions.create(model=MODEL, prompt=["Once upon", "A cat"], max_tokens=5, temperature=0, logprobs=2, echo=True)
    assert len(r.choices) == 2 and r.choices[0].text.startswith("Once upon")
    assert len(r.choices[0].logprobs.tokens) == len(r.choices[0].logprobs.token_logprobs)
    text = "".join(c.choices[0].text for c in client.completions.create(model=MODEL, prompt="Once upon", max_tokens=5, temperature=0, stream=True) if c.choices)
    assert "Once upon" + text == r.choices[0].text


def check_call(call):
    assert call.function.name == "get_weather", call
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] in ("Oslo", "Rome", "Lima") and 1 <= arguments["days"] <= 7, arguments


@station
def tools():
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        r = client.chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS, tool_choice=choice, max_tokens=200, temperature=0, parallel_tool_calls=False)
        assert r.choices[0].message.tool_calls, (choice, r)
        for call in r.choices[0].message.tool_calls:
            check_call(call)
        if choice == "required":
            assert r.choices[0].finish_reason == "tool_calls", r
    r = client.chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS, tool_choice="none", max_tokens=20, temperature=0)
    assert not r.choices[0].message.tool_calls


@station
def tools_stream_says_the_same():
    asked = dict(model=MODEL, messages=ASK, tools=TOOLS, tool_choice="required", max_tokens=200, temperature=0, parallel_tool_calls=False)
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls
    calls = {}
    for chunk in client.chat.completions.create(stream=True, **asked):
        for c in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            call = calls.setdefault(c.index, {"name": "", "arguments": ""})
            call["name"] += c.function.name or ""
            call["arguments"] += c.function.arguments or ""
    assert [(c.function.name, c.function.arguments) for c in whole] == [(c["name"], c["arguments"]) for c in calls.values()]


@station
def tool_result_turn():
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo","days":2}'}}
    messages = ASK + [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]
    r = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, max_tokens=20)
    assert r.usage.completion_tokens > 0


class Animal(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    legs: int = pydantic.Field(ge=0, le=8)
    wild: bool


@station
def structured():
    r = client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Animal, max_tokens=200, temperature=1, seed=1)
    assert isinstance(r.choices[0].message.parsed, Animal)
    r = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=20, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    assert r.choices[0].message.content in ("yes", "no")
    r = client.completions.create(model=MODEL, prompt="A date:", max_tokens=20, extra_body={"structured_outputs": {"regex": r"\d{4}-\d\d-\d\d"}})
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", r.choices[0].text), r.choices[0].text


@station
def errors():
    refused(openai.NotFoundError, 404, lambda: client.chat.completions.create(model="no such model", messages=ASK))
    refused(openai.BadRequestError, 400, lambda: client.chat.completions.create(model=MODEL, messages=ASK, temperature=-1), param="temperature")
    refused(openai.BadRequestError, 400, lambda: client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=10**7), code="context_length_exceeded")
    refused(openai.BadRequestError, 400, lambda: client.completions.create(model=MODEL, prompt="x", extra_body={"structured_outputs": {"regex": "("}}))


@station
def aborts():
    for _ in range(5):
        stream = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=400, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    idle()


@station
def responses():
    r = client.responses.create(model=MODEL, input="Tell me a story.", max_output_tokens=30, temperature=0)
    assert r.output_text
    text = ""
    for event in client.responses.create(model=MODEL, input="Tell me a story.", max_output_tokens=30, temperature=0, stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == r.output_text
    r = client.responses.create(model=MODEL, input="Weather?", max_output_tokens=200, tools=[{"type": "function", **WEATHER}], tool_choice="required")
    call = next(o for o in r.output if o.type == "function_call")
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome", "Lima")


@station
def anthropic_messages():
    r = claude.messages.create(model=MODEL, max_tokens=30, messages=ASK)
    assert r.content[0].type == "text" and r.usage.output_tokens > 0
    with claude.messages.stream(model=MODEL, max_tokens=30, messages=ASK) as s:
        text = "".join(s.text_stream)
        assert s.get_final_message().content[0].text == text


@station
def anthropic_tools():
    tool = {"name": "get_weather", "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}
    for choice in ({"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}):
        r = claude.messages.create(model=MODEL, max_tokens=200, messages=ASK, tools=[tool], tool_choice=choice)
        use = next(b for b in r.content if b.type == "tool_use")
        assert use.input["city"] in ("Oslo", "Rome", "Lima"), use
        assert r.stop_reason == "tool_use"
    with claude.messages.stream(model=MODEL, max_tokens=200, messages=ASK, tools=[tool], tool_choice={"type": "any", "disable_parallel_tool_use": True}) as s:
        for _ in s:
            pass
        assert any(b.type == "tool_use" and 1 <= b.input["days"] <= 7 for b in s.get_final_message().content)


@station
def anthropic_errors_and_aborts():
    refused(anthropic.NotFoundError, 404, lambda: claude.messages.create(model="no such model", max_tokens=5, messages=ASK))
    refused(anthropic.BadRequestError, 400, lambda: claude.messages.create(model=MODEL, max_tokens=-1, messages=ASK))
    for _ in range(5):
        with claude.messages.stream(model=MODEL, max_tokens=400, messages=ASK) as s:
            next(iter(s))
    idle()


failed = 0
for f in stations:
    try:
        f()
        print(f"{f.__name__:32} ok")
    except Exception as e:  # the tour goes on
        failed += 1
        print(f"{f.__name__:32} FAILED: {type(e).__name__}: {e}")
print(f"{len(stations) - failed}/{len(stations)}: openai {openai.__version__}, anthropic {anthropic.__version__}")
sys.exit(failed > 0)
