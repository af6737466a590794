"""Whether two answers are mathematically the same, by ``math-verify`` in a process that can be killed.

What a student says may be any number: a tower of powers keeps the interpreter busy for ever, and no time limit inside
the same process gets through to it.
"""

from __future__ import annotations

import logging
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from laconic.errors import RewardError

#: seconds that one answer may take, and those that starting may
LIMIT, START = 3.0, 50.0
#: an answer that is longer is none
LONGEST = 200

_worker: tuple[BaseProcess, Connection] | None = None


def same_mathematics(answer: str, said: str) -> bool:
    """Whether they are the same; False for what is too long, takes too long or is no mathematics."""
    global _worker
    if len(said) > LONGEST:
        return False
    if _worker is None or not _worker[0].is_alive():
        _worker = _start()
    process, pipe = _worker
    try:
        pipe.send((answer, said))
        if pipe.poll(LIMIT):
            return bool(pipe.recv())
    except (EOFError, OSError):  # it died of it
        pass
    process.kill()
    process.join()
    _worker = None
    return False


def _start() -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")  # forking a process with threads of torch is no good
    own, other = context.Pipe()
    process = context.Process(target=_work, args=(other,), daemon=True)
    process.start()
    other.close()  # so that a process that dies is heard of at once
    try:
        started = own.poll(START) and own.recv() == "ready"
    except EOFError:
        started = False
    if not started:
        process.kill()
        raise RewardError(
            "The process that checks mathematics does not start.", "Look whether `import math_verify` works."
        )
    return process, own


def _work(pipe: Connection) -> None:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # that its own time limits are off
    pipe.send("ready")
    while True:
        answer, said = pipe.recv()
        gold = parse(f"${answer}$", parsing_timeout=None)
        forms = (parse(form, parsing_timeout=None) for form in (said, f"${said}$"))
        pipe.send(any(verify(gold, form, timeout_seconds=None) for form in forms))
