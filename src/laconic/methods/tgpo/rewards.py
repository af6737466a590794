"""Rewards that can be checked: whether an answer is right, and how much of the way to it.

A reward is total: whatever a student says gets a number. One that raises, hangs or returns something else ends the
training with a name, instead of hours later with a traceback or never.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from laconic.data.problems import Problem, share_of_steps, stated_answer
from laconic.errors import RewardError
from laconic.methods.tgpo.mathematics import same_mathematics

#: of a problem and an answer's text
Reward = Callable[[Problem, str], float]
#: seconds that the reward of an answer may take
PATIENCE = 60.0


def answer_reward(problem: Problem, text: str) -> float:
    """1 for a right answer."""
    return float(problem.solved_by(text))


def steps_reward(problem: Problem, text: str) -> float:
    """Half for a right answer, and half for the share of the worked solution's steps that were written in their place:
    it tells answers apart that are all wrong. Of puzzles, whose steps can be put in one way."""
    share = share_of_steps(text.splitlines(), problem.steps)
    return (answer_reward(problem, text) + (share or 0.0)) / 2


def math_reward(problem: Problem, text: str) -> float:
    """1 for an answer that is mathematically the same (``math-verify``): 0.5 for 1/2, 1 + x for x + 1."""
    said = stated_answer(text)
    return 0.0 if said is None else float(same_mathematics(problem.answer, said))


REWARDS: dict[str, Reward] = {"answer": answer_reward, "steps": steps_reward, "math": math_reward}
#: what a reward needs that may not be installed
NEEDS = {"math": "math_verify"}


class Rewarded:
    """A reward as TRL calls it: prompts are numbers of problems.

    Args:
        patience: seconds that one answer may take. A reward that never lets go of the interpreter (one large number in
            C) cannot be left: have it work in another process, as ``math`` does.

    Raises:
        RewardError: the reward raised, took too long, or is no finite number.
    """

    __name__ = "reward"

    def __init__(self, problems: Sequence[Problem], reward: Reward, patience: float = PATIENCE) -> None:
        self.problems, self.reward, self.patience = problems, reward, patience

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        asked = [self.problems[int(number)] for number in prompts]
        found: list[float] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                for problem, text in zip(asked, completions, strict=True):
                    found.append(float(self.reward(problem, text)))
            except BaseException as error:
                failed.append(error)

        # a thread, not a signal: it may be asked from any thread, and on any platform; one that hangs is left behind
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        place = -1
        while thread.is_alive() and place < len(found):  # one more was scored while we were patient
            place = len(found)
            thread.join(self.patience)
        place = len(found)
        if failed and isinstance(failed[0], RewardError):
            raise failed[0]
        if failed:
            raise RewardError(
                f"The reward of {asked[place].id or 'a problem'} raised {type(failed[0]).__name__}: {failed[0]}.",
                "A reward must give a number for whatever is said.",
            ) from failed[0]
        if thread.is_alive():
            raise RewardError(
                f"The reward of {asked[place].id or 'a problem'} took longer than {self.patience:g} s.",
                "Make it give up by itself, and return 0.",
            )
        if not all(map(math.isfinite, found)):
            raise RewardError("A reward is not a finite number.", "A reward must give a number for whatever is said.")
        return found
