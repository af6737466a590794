"""A teacher behind HTTP: any server with OpenAI's completions and vLLM's ``prompt_logprobs`` (vLLM, TRL's).

The server is asked to score exact token ids and to generate nothing that is used. Entry i of what comes back is the
distribution that predicts token i; the first is empty. vLLM adds the token that stands there to the likeliest ones, in
no order one may rely on.
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.errors import LaconicError, TeacherError
from laconic.methods.tgpo.teacher import TOP, Scores, Target, check_target, named
from laconic.methods.tgpo.vocabulary import Side, shared_vocabulary

#: likeliest tokens asked of each position: the best of them that the student has is the teacher's
LIKELIEST = 5
#: answers in one request, and requests at a time
TOGETHER, AT_ONCE = 8, 4
#: tokens that it is asked about before anything else
PROBED = 32
#: targets it can have
SERVED = ("argmax", "soft")
#: the student's ids of what the teacher would say and how likely each is, likeliest first; how likely what was said is
Entry = tuple[list[tuple[int, float]], float]


def check_url(url: str) -> None:
    """Raise ``LaconicError`` for what is no address of a server."""
    if not url.startswith(("http://", "https://")):
        raise LaconicError(f"{url!r} is no address of a server.", "Begin it with http:// or https://.")


class ServedTeacher:
    """A scorer that asks a server.

    Log-probabilities are over the teacher's whole vocabulary, where a ``LocalTeacher`` leaves out what the student does
    not have.

    Args:
        url: of the server, without ``/v1``.
        model: its name there.
        student, teacher: what both can say; a teacher's side is made of its tokenizer (``Side``).
        target: ``argmax`` or ``soft``; a server does not say all it would need to draw from.
        top: tokens of a soft target; a server has a limit to what it tells (vLLM's ``--max-logprobs``, 20 unless set).
        attempts: of each request, with growing pauses between them.
        patience: seconds that an attempt may take.

    Raises:
        TeacherError: the server cannot be reached, or does not score prompts.
        LaconicError: vocabularies that are not one.
    """

    def __init__(
        self,
        url: str,
        model: str,
        student: Side,
        teacher: Side,
        *,
        target: Target = "argmax",
        top: int = TOP,
        aliases: Mapping[int, int] | None = None,
        attempts: int = 5,
        patience: float = 120.0,
        pause: float = 1.0,
    ) -> None:
        check_target(target, top, SERVED)
        check_url(url)
        self.url, self.model, self.target, self.top = url.rstrip("/"), model, target, top
        self.vocabulary = shared_vocabulary(student, teacher, aliases)
        self.attempts, self.patience, self.pause = attempts, patience, pause
        self._told([[0, 0]], [1])  # found out now, and not behind the first roll-outs
        self._look(teacher)

    def _look(self, teacher: Side) -> None:
        """Whether it means by its tokens what the tokenizer does that it was said to have.

        vLLM says what each token it names is as text, which differs where half a character or a space is left out; so
        it is another tokenizer's if most of some tokens are others.
        """
        size = self.vocabulary.size
        row = [size * part // PROBED for part in range(PROBED)]
        answer = self._asked([row])
        self._read(answer, [row], [len(row)])  # whether it is one
        entries = answer["choices"][0]["prompt_logprobs"]
        known = {int(token): one.get("decoded_token") for entry in entries if entry for token, one in entry.items()}
        said = {token: text for token, text in known.items() if isinstance(text, str)}
        texts = {token: teacher.tokenizer.decode([token]) for token in said if token < len(teacher.tokenizer)}
        plain = [token for token, text in texts.items() if text.strip() and "\ufffd" not in text + said[token]]
        apart = [token for token in plain if said[token].strip() != texts[token].strip()]
        if len(apart) > len(plain) / 2:
            token = apart[0]
            raise LaconicError(
                f"The token {token} is {said[token]!r} at {self.url} and {texts[token]!r} in the tokenizer that it was "
                f"said to have ({len(apart)} of {len(plain)} differ).",
                "Name the served model's own tokenizer.",
            )

    @property
    def version(self) -> str:
        """Its name: what a server has behind one, it does not tell."""
        known = f"{self.vocabulary.size} {sorted(self.vocabulary.aliases.items())} {named(self.target, self.top)}"
        return f"{self.url} {self.model} {known}"

    def score(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Scores:
        asked = torch.cat([prompt, self.vocabulary.to_teacher(answer)], dim=1)
        mask = torch.cat([prompt_mask, answer_mask], dim=1).bool()
        rows = [row[own].tolist() for row, own in zip(asked, mask, strict=True)]
        starts = prompt_mask.sum(1).tolist()
        batches = [(rows[at : at + TOGETHER], starts[at : at + TOGETHER]) for at in range(0, len(rows), TOGETHER)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            told = [
                one for batch in pool.map(lambda batch: self._told(*batch), batches) for row in batch for one in row
            ]
        likeliest, said = [one[0] for one in told], torch.tensor([one[1] for one in told])
        ids = torch.tensor([[token for token, _ in one] for one in likeliest], dtype=torch.long).view(
            len(told), self.top
        )
        log_probs = torch.tensor([[own for _, own in one] for one in likeliest]).view(len(told), self.top)
        soft = [ids, log_probs] if self.target == "soft" else []
        return Scores.laid_out([ids[:, 0], log_probs[:, 0], said, *soft], answer_mask)

    def _asked(self, rows: Sequence[list[int]]) -> dict[str, Any]:
        """What the server answers to these texts."""
        body = {
            "model": self.model,
            "prompt": list(rows),
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": max(LIKELIEST, self.top if self.target == "soft" else 1),
        }
        return self._post("/v1/completions", body)

    def _told(self, rows: Sequence[list[int]], starts: Sequence[int]) -> list[list[Entry]]:
        """Of each row from its start on."""
        answer = self._asked(rows)
        try:
            return self._read(answer, rows, starts)
        except TeacherError:  # a ValueError too
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # JSON of another shape
            raise TeacherError(
                f"{self.url} answers otherwise than a server of completions: {type(error).__name__}, {error}.",
                "Serve the teacher with vLLM or `trl vllm-serve`.",
            ) from error

    def _read(self, answer: dict[str, Any], rows: Sequence[list[int]], starts: Sequence[int]) -> list[list[Entry]]:
        """What ``_told`` gives, of a server's answer."""
        choices, found = answer.get("choices", []), []
        for row, start, choice in zip(rows, starts, sorted(choices, key=lambda one: one.get("index", 0)), strict=False):
            entries = choice.get("prompt_logprobs")
            if not isinstance(entries, list) or len(entries) != len(row):
                raise TeacherError(
                    f"{self.url} does not score prompts: no prompt_logprobs for each token.",
                    "Serve the teacher with vLLM or `trl vllm-serve`.",
                )
            found.append([self._entry(entries[at], row[at]) for at in range(start, len(row))])
        if len(found) != len(rows):
            raise TeacherError(f"{self.url} scored {len(found)} of {len(rows)} texts.", "Look into the server's log.")
        return found

    def _entry(self, entry: Mapping[str, Any] | None, said: int) -> Entry:
        """Of one position, where ``said`` (the teacher's id) stands."""
        known: dict[int, float] = {}
        for token, one in (entry or {}).items():
            ours = self.vocabulary.aliases.get(int(token), int(token))
            if ours < self.vocabulary.size and math.isfinite(one["logprob"]):
                known[ours] = float(np.logaddexp(known.get(ours, -math.inf), one["logprob"]))
        own = self.vocabulary.aliases.get(said, said)
        if own not in known:
            raise TeacherError(f"{self.url} has no score for token {said}.", "Does it know all the student's tokens?")
        if len(known) == 1 and known[own] < max(one["logprob"] for one in entry.values()):  # type: ignore[union-attr]
            raise TeacherError(
                f"None of the tokens that {self.url} finds likeliest is one that the student has.",
                "Ask for more of them (top), or use a teacher of the student's vocabulary.",
            )
        likeliest = sorted(known.items(), key=lambda pair: (-pair[1], pair[0]))  # of equals the lowest id
        likeliest += [(0, -math.inf)] * (self.top - len(likeliest))
        return likeliest[: self.top], known[own]

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        for attempt in range(1, self.attempts + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.patience) as answer:
                    found: dict[str, Any] = json.load(answer)
                return found
            except urllib.error.HTTPError as error:
                told = f"{error.code} {_beginning(error)}"
                final = error.code < 500 and error.code not in (408, 429)  # it waited too long, or is asked too much
            except (OSError, HTTPException, ValueError) as error:  # unreachable, cut off, or no JSON
                told, final = str(error), False
            if final or attempt == self.attempts:
                if final:
                    raise TeacherError(f"The teacher at {self.url} refused: {told}.", "Look into the server's log.")
                raise TeacherError(
                    f"The teacher at {self.url} gave no answer in {attempt} attempts: {told}.",
                    "Look whether it runs; a training goes on from its last checkpoint.",
                )
            time.sleep(self.pause * 2 ** (attempt - 1))
        raise AssertionError("attempts is at least 1")


def _beginning(error: urllib.error.HTTPError) -> str:
    """Of what a server says beside an error; it may break off there too."""
    try:
        return error.read(300).decode(errors="replace")
    except (OSError, HTTPException):
        return ""
