"""What a trainer asks of a method that is trained on its own answers.

A student that answers with less in its cache than its teacher must be scored with less too: log-probabilities under
full attention would be those of another policy. The teacher reads the same answers with nothing compressed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laconic.data.problems import Problem
from laconic.errors import BudgetError


@dataclass(frozen=True)
class Answer:
    """An answer to a prompt.

    Attributes:
        words: token ids, the end included if it was said.
        own: 1 for a word that was chosen, 0 for one that was put in (a step ended by force).
        held: most tokens that the cache held for it; 0 if it was not rolled out.
    """

    words: list[int]
    own: list[int]
    held: int = 0


@dataclass(frozen=True)
class Fed:
    """What a student's decoder is fed to score answers.

    Attributes:
        inputs: arguments of its forward, over a sequence of its own.
        speakers: int64 ``[B, T]``, the place in that sequence whose state comes before each token of the answers; 0
            where they are padding.
    """

    inputs: dict[str, Any]
    speakers: Tensor


class Student(Protocol):
    """What a trainer asks of a method that is trained on its own answers.

    Attributes:
        feeds_cache: whether keys and values stand in front of what its decoder is fed; layers that are computed again
            in the backward pass would not see them.
    """

    @property
    def feeds_cache(self) -> bool: ...

    @property
    def decoder(self) -> PreTrainedModel: ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def window(self) -> int:
        """Positions that a prompt and its answer may take, nothing compressed."""
        ...

    @property
    def soft(self) -> list[nn.Module]:
        """What is trained besides the decoder's own parameters."""
        ...

    def prompt(self, problem: Problem) -> list[int]:
        """A problem as it is asked, nothing compressed: what the teacher reads."""
        ...

    def given(self, problem: Problem) -> Answer:
        """A problem's worked solution as an answer.

        Raises:
            DataError: it has none.
        """
        ...

    def answers(self, prompts: Sequence[list[int]], *, most: int, temperature: float, seed: int) -> list[Answer]:
        """Sampled answers of at most so many words, under the method's own eviction."""
        ...

    def fed(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Fed:
        """Prompts ``[B, P]``, padded on the left, and answers ``[B, T]``, padded on the right, under the same
        visibility."""
        ...


@contextmanager
def saying_words_alone(student: Student) -> Iterator[None]:
    """While this lasts, a student says nothing that its tokenizer does not know: a head is often padded, and rows of
    padding can be neither read by a teacher nor rewarded."""
    words = len(student.tokenizer)

    def without_padding(_: nn.Module, __: Any, scores: Tensor) -> Tensor:
        scores[..., words:] = float("-inf")
        return scores

    handle = student.decoder.get_output_embeddings().register_forward_hook(without_padding)
    try:
        yield
    finally:
        handle.remove()


def check_fit(
    student: Student, problems: Sequence[Problem], windows: Mapping[str, int | None], *, most: int, given: bool
) -> None:
    """Find out now, and not when its turn comes, what cannot be asked.

    Args:
        windows: by whose they are; None has no end.
        most: words of an answer.
        given: worked solutions are answers too.

    Raises:
        BudgetError: a problem and its answer exceed a window.
        DataError: a solution is to be given and is none that the student could say.
    """
    for problem in problems:
        asked = len(student.prompt(problem))
        said = max(most, len(student.given(problem).words) if given else 0)
        for whose, window in windows.items():
            if window is not None and asked + said > window:
                raise BudgetError(
                    f"The problem {problem.id} has {asked} tokens, which with {said} of an answer exceed {whose} of "
                    f"{window}.",
                    "Take shorter ones (of documents, excerpts), or lower the limit.",
                )
