"""Rewards that can be checked: whether an answer is right, and how much of the way to it.

A reward is total: whatever a student says gets a number. One that raises, hangs or returns something else ends the
training with a name, instead of hours later with a traceback or never.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from laconic.data.problems import Problem, share_of_steps, stated_answer
from laconic.errors import RewardError

#: of a problem and an answer's text
Reward = Callable[[Problem, str], float]
#: seconds that the rewards of a batch may take
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
    from math_verify import parse, verify

    said = stated_answer(text)
    if said is None:
        return 0.0
    # its own time limits are signals, which only a main thread may set: ``Rewarded`` has patience for it, and need not
    # be told so each time
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    gold = parse(f"${problem.answer}$", parsing_timeout=None)
    forms = (parse(form, parsing_timeout=None) for form in (said, f"${said}$"))
    return float(any(verify(gold, form, timeout_seconds=None) for form in forms))


REWARDS: dict[str, Reward] = {"answer": answer_reward, "steps": steps_reward, "math": math_reward}
#: what a reward needs that may not be installed
NEEDS = {"math": "math_verify"}


class Rewarded:
    """A reward as TRL calls it: prompts are numbers of problems.

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
        thread.join(self.patience)
        place = len(found)
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
