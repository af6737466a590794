"""Problems with their solution in steps: the one record every reasoning task is turned into."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: how the last step begins that says the answer
ANSWER = "The answer is"
#: braces within braces that ``\\boxed`` may hold (``\\boxed{\\frac{1}{2}}`` has one)
_DEPTH = 4


def _braced(depth: int) -> str:
    """A pattern of what may stand between two braces."""
    return rf"(?:[^{{}}]|\{{{_braced(depth - 1)}\}})*" if depth else r"[^{}]*"


_BOXED = re.compile(rf"\\boxed\{{({_braced(_DEPTH)})\}}")
_SAID = re.compile(rf"{ANSWER}:?.*|{_BOXED.pattern}|####.*", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """A problem, the steps that solve it, and what they come to.

    Attributes:
        steps: one thought each, in order, without line breaks around them; the last says the answer. Empty where
            nobody wrote them down.
        answer: what a solution must come to.
        same: whether a given answer is right.
    """

    id: str
    question: str
    steps: list[str]
    answer: str
    same: Callable[[str, str], bool]

    def solved_by(self, text: str) -> bool:
        """Whether a solution's last stated answer is right; one that states none is wrong."""
        given = stated_answer(text)
        return given is not None and self.same(given, self.answer)


@dataclass(frozen=True)
class Question(Problem):
    """A question about a document, answered in one line; ``same`` is told that line."""

    document: str = ""

    def solved_by(self, text: str) -> bool:
        return self.same(text.strip().partition("\n")[0], self.answer)


def stated_answer(text: str) -> str | None:
    """What a solution says its answer is, the last time it does; None if it never does.

    Understood are "The answer is ...", ``\\boxed{...}`` and GSM8K's ``#### ...``.
    """
    said = [re.sub(rf"^({ANSWER}:?|####)", "", match[0], flags=re.IGNORECASE) for match in _SAID.finditer(text)]
    if not said:
        return None
    boxed = _BOXED.search(said[-1])
    return (boxed[1] if boxed else said[-1]).strip().rstrip(".").strip()


def share_of_steps(given: Sequence[str], worked: Sequence[str]) -> float | None:
    """The share of the steps of a worked solution that were written as they are, each in its place; None without one.

    Of a solution that has more steps it is a share of those.

    Only of puzzles does it say much: their steps can be put in one way. An answer alone can be had by chance, or by
    what the problem's own numbers make likely.
    """
    if not worked:
        return None
    met = sum(one.strip() == other.strip() for one, other in zip(given, worked, strict=False))
    return met / max(len(given), len(worked))


def answer_step(answer: str) -> str:
    """The step that says the answer."""
    return f"{ANSWER} {answer}."


def same_words(given: str, answer: str) -> bool:
    """The same words in the same order; case, commas and the rest of punctuation aside, but for a number's sign."""
    return _words(given) == _words(answer) != []


#: digits may be grouped, by threes or as in India
_NUMBER = r"-?(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"


def same_number(given: str, answer: str) -> bool:
    """The same number and no other, however its digits are grouped and whatever unit is around it."""
    result = given.rpartition("=")[2]  # of a sum that is written out
    found = {float(one.replace(",", "")) for one in re.findall(_NUMBER, result)}
    return found == {float(answer.replace(",", ""))}


def same_text(given: str, answer: str) -> bool:
    """The same words, formulas or signs in the same order; case, and punctuation around them, aside."""
    return bare(given) == bare(answer) != []


def bare(text: str) -> list[str]:
    """A text's parts between spaces, commas and semicolons, in any script, without the punctuation around them."""
    parts = (part.strip(".:!?\"'()[]") for part in re.split(r"[\s,;]+", text.casefold()))
    return [part for part in parts if part]


def _words(text: str) -> list[str]:
    return re.findall(r"(?<!\w)-\d+|[a-z0-9]+", text.lower())
