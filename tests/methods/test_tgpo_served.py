"""A teacher behind HTTP says what the same teacher says in this process, or a name for why it does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import LaconicError, TeacherError
from laconic.methods.tgpo.served import ServedTeacher
from laconic.methods.tgpo.teacher import LocalTeacher
from laconic.methods.tgpo.vocabulary import Side, side_of

TOKENIZER = tiny_tokenizer()
#: by address: what answers there, and what was asked
Change = Callable[[dict[str, Any]], dict[str, Any]]


def model(seed: int = 0) -> PreTrainedModel:
    made = tiny_model("llama", vocab_size=len(TOKENIZER))
    torch.manual_seed(seed)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


class Server:
    """Answers as vLLM does, the likeliest tokens and the one that is there in any order."""

    def __init__(self, teacher: PreTrainedModel) -> None:
        self.teacher, self.asked, self.fails, self.cuts = teacher, list[dict[str, Any]](), 0, 0
        self.tokenizer, self.order = TOKENIZER, list(range(len(TOKENIZER)))  # what its tokens are, by their ids
        self.change: Change = lambda answer: answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                if outer.fails:
                    outer.fails -= 1
                    self.send_error(503)
                    return
                text = json.dumps(outer.change(outer.answer(body))).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if outer.cuts:
                    outer.cuts -= 1
                    self.wfile.write(text[:10])
                    self.close_connection = True
                    return
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @torch.no_grad()
    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for index, row in enumerate(body["prompt"]):
            log_probs = self.teacher(torch.tensor([row])).logits[0].log_softmax(-1)
            entries: list[Any] = [None]
            for at in range(1, len(row)):
                best = log_probs[at - 1].topk(body["prompt_logprobs"]).indices.tolist()
                places = [row[at], *[token for token in best if token != row[at]]]
                texts = {t: self.tokenizer.decode([self.order[t]]) for t in places}
                entries.append(
                    {
                        str(t): {"logprob": log_probs[at - 1, t].item(), "rank": 1, "decoded_token": texts[t]}
                        for t in places
                    }
                )
            choices.append({"index": index, "text": "", "prompt_logprobs": entries})
        return {"choices": choices[::-1]}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(model(3))
    yield made
    made.http.shutdown()


def served(server: Server, **changes: Any) -> ServedTeacher:
    side = side_of(model(), TOKENIZER)
    return ServedTeacher(server.url, "t", side, Side(TOKENIZER, len(TOKENIZER), [2]), pause=0.01, **changes)


def ragged(rows: int = 11) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    prompt, answer = torch.randint(3, 90, (rows, 4)), torch.randint(3, 90, (rows, 5))
    sizes = torch.arange(rows)
    prompt_mask = (torch.arange(4) >= (sizes % 4)[:, None]).long()
    answer_mask = (torch.arange(5) < (1 + sizes % 5)[:, None]).long()
    return prompt, prompt_mask, answer, answer_mask


def test_a_server_says_what_the_teacher_says_here(server: Server) -> None:
    found = served(server).score(*ragged())
    wanted = LocalTeacher(model(3), TOKENIZER, side_of(model(), TOKENIZER)).score(*ragged())
    assert torch.equal(found.ids, wanted.ids)
    torch.testing.assert_close(found.log_probs, wanted.log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.said, wanted.said, atol=1e-5, rtol=1e-5)
    # requests are under way together: which comes first is chance, what comes back is in order (above)
    assert sorted(len(body["prompt"]) for body in server.asked[2:]) == [3, 8]
    assert all(body["max_tokens"] == 1 for body in server.asked)  # it generates nothing that is used


@pytest.mark.parametrize("top", [3, 9])
def test_a_servers_soft_target_is_the_teachers(server: Server, top: int) -> None:
    """More than it tells by itself, too: of these it has to be asked."""
    found = served(server, target="soft", top=top).score(*ragged())
    wanted = LocalTeacher(model(3), TOKENIZER, side_of(model(), TOKENIZER), target="soft", top=top).score(*ragged())
    for own, other in zip(found.aims, wanted.aims, strict=True):
        torch.testing.assert_close(own.float(), other.float(), atol=1e-5, rtol=1e-4)
    with pytest.raises(LaconicError, match="Unknown target 'sample'"):
        served(server, target="sample")


def test_a_server_whose_choices_the_student_does_not_have_says_nothing_of_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the student said is told beside them, and is not what the teacher would say."""
    tell = server.answer

    def strange(body: dict[str, Any]) -> dict[str, Any]:
        found = tell(body)
        for choice, row in zip(found["choices"][::-1], body["prompt"], strict=True):
            for entry, said in zip(choice["prompt_logprobs"][1:], row[1:], strict=True):
                own = entry[str(said)]
                entry.clear()
                entry |= {str(said): own, "5000": {"logprob": -0.001, "rank": 1}}
        return found

    monkeypatch.setattr(server, "answer", strange)
    with pytest.raises(TeacherError, match="None of the tokens"):
        served(server).score(*ragged())


@pytest.mark.parametrize("target", ["argmax", "soft"])
def test_answers_without_a_word_have_no_scores(server: Server, target: str) -> None:
    prompt, prompt_mask, answer, answer_mask = ragged(3)
    found = served(server, target=target).score(prompt, prompt_mask, answer, torch.zeros_like(answer_mask))
    assert found.ids.shape == answer.shape
    assert not any(bool(column.any()) for column in found.columns)


def test_where_a_server_tells_less_the_rest_has_no_share(server: Server) -> None:
    def few(answer: dict[str, Any]) -> dict[str, Any]:
        for choice in answer["choices"]:
            choice["prompt_logprobs"] = [one and dict(list(one.items())[:2]) for one in choice["prompt_logprobs"]]
        return answer

    server.change = few
    _, shares = served(server, target="soft", top=4).score(*ragged(3)).aims
    real = ragged(3)[3].bool()
    assert (shares[real][:, 2:] == 0).all()
    torch.testing.assert_close(shares[real].sum(-1), torch.ones(int(real.sum())))


def test_a_server_that_fails_for_a_while_is_asked_again(server: Server) -> None:
    teacher = served(server)
    before = len(server.asked)
    server.fails = 2
    teacher.score(*ragged(2))
    assert len(server.asked) == before + 3
    server.cuts = 2  # the answer ends before its end
    teacher.score(*ragged(2))
    assert len(server.asked) == before + 6
    server.fails = 100
    with pytest.raises(TeacherError, match="no answer in 3 attempts"):
        served(server, attempts=3)


def test_tokens_that_the_student_does_not_have_are_passed_over(server: Server) -> None:
    def elsewhere(answer: dict[str, Any]) -> dict[str, Any]:
        for choice in answer["choices"]:
            for entry in filter(None, choice["prompt_logprobs"]):
                entry[str(len(TOKENIZER) + 7)] = {"logprob": -1e-6, "rank": 1}
        return answer

    plain = served(server).score(*ragged(3))
    server.change = elsewhere
    assert torch.equal(served(server).score(*ragged(3)).ids, plain.ids)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda answer: {"choices": [c | {"prompt_logprobs": None} for c in answer["choices"]]}, "does not score"),
        (lambda answer: {"choices": answer["choices"][:0]}, r"^http\S+ scored 0 of 1"),
        (
            lambda answer: {"choices": [c | {"prompt_logprobs": [None, {}]} for c in answer["choices"]]},
            r"^http\S+ has no score for",
        ),
        (lambda answer: {"choices": None}, "otherwise"),
        (lambda answer: ["no", "object"], "otherwise"),
        (lambda answer: {"choices": [{"prompt_logprobs": [None, {"0": -0.5}]}]}, "otherwise"),
        (lambda answer: {"choices": [{"prompt_logprobs": [None, {"a": {"logprob": -1}}]}]}, "otherwise"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_score_is_found_out_at_once(server: Server, change: Change, told: str) -> None:
    server.change = change
    with pytest.raises(TeacherError, match=told):
        served(server)


def test_nobody_there() -> None:
    side = side_of(model(), TOKENIZER)
    with pytest.raises(TeacherError, match="no answer"):
        ServedTeacher("http://127.0.0.1:9", "t", side, side, attempts=2, pause=0.01)
    with pytest.raises(LaconicError, match="no address"):
        ServedTeacher("127.0.0.1:9", "t", side, side)


def test_a_server_whose_tokens_are_others_is_refused_before_training(server: Server) -> None:
    """Whose tokenizer it is taken to have is the student's where none is named; its own words tell."""
    served(server)
    server.order = server.order[::-1]
    with pytest.raises(LaconicError, match="tokenizer that it was said to have"):
        served(server)


def test_a_server_that_breaks_off_within_an_error_is_tried_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = served(server)

    def reset(error: HTTPError, *_: Any) -> bytes:
        raise ConnectionResetError("reset")

    monkeypatch.setattr(HTTPError, "read", reset, raising=False)
    asked = torch.tensor([[5, 6]])
    real = torch.ones_like(asked)
    server.fails = 1
    assert teacher.score(asked, real, asked, real)
    server.fails = 9
    with pytest.raises(TeacherError, match="503"):
        teacher.score(asked, real, asked, real)
