"""Learning from rewards: advantages in a group, the clipped surrogate, and what LUFFY makes of a teacher's trace.

Everything is per token, ``[B, T]``; terms that are added up must share a normaliser (``masked_mean``; TGPO, arXiv
2605.13230, section 2 of its specification). The trainer takes advantages, the surrogate and the mean from TRL, which
these are the plain form of, to test by.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, total: float | Tensor) -> Tensor:
    """The sum of ``values`` where ``mask`` is 1, over ``total``.

    Args:
        total: valid tokens of the whole optimiser's batch, of all its parts and processes; not of this part alone,
            so that how a batch is cut changes nothing.
    """
    return torch.where(mask.bool(), values, 0.0).sum() / total


def group_advantages(rewards: Tensor, *, by_deviation: bool = True, epsilon: float = 1e-6) -> Tensor:
    """Rewards of answers to one prompt against each other (GRPO), ``[N, G]`` as given.

    Args:
        rewards: of G answers to each of N prompts.
        by_deviation: divide by the group's (sample) deviation as well.
    """
    if rewards.shape[1] == 1:  # nothing to compare with
        return rewards.clone()
    apart = rewards - rewards.mean(1, keepdim=True)
    return apart / (rewards.std(1, keepdim=True) + epsilon) if by_deviation else apart


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, low: float = 0.2, high: float = 0.2
) -> Tensor:
    """PPO's loss of each token, ``[B, T]``: ``max(-A r, -A clip(r, 1 - low, 1 + high))`` with ``r = p / p_old``.

    Args:
        log_probs, old_log_probs: of the tokens that were said, ``[B, T]``.
        advantages: ``[B, T]`` or ``[B, 1]``.
    """
    ratio = (log_probs - old_log_probs).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high))


def shaped_off_policy(log_probs: Tensor, advantages: Tensor, gamma: float = 0.1) -> Tensor:
    """LUFFY's loss (arXiv 2504.14945) of tokens a teacher said, ``[B, T]``: ``-A p / (p + gamma)``, without clipping.

    Shaped so, tokens the student hardly says are learnt from more than likely ones.
    """
    prob = log_probs.exp()
    return -advantages * prob / (prob + gamma)
