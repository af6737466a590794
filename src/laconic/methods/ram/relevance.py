"""How relevant is each segment to each query? Three scores, with an optional lexical term (sections 2.4 and 5).

Shapes: Q queries, S segments, Lq and L tokens, D width, P projected width.
"""

from __future__ import annotations

import torch
from torch import nn

from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.encoder import States


class Relevance(nn.Module):
    """Scores [Q, S] in float32; higher is more relevant."""

    def __init__(self, width: int, config: RAMConfig) -> None:
        super().__init__()
        self.score = config.score
        if self.score == "maxsim":
            self.project = nn.Linear(width, config.projection, bias=False)
            # orthonormal rows: untrained, the projection already keeps most of the cosines
            nn.init.orthogonal_(self.project.weight)
        elif self.score == "cross":
            self.head = nn.Linear(width, 1)
        self.lexical_weight = nn.Parameter(torch.tensor(0.1)) if config.lexical else None
        self.neighbour_weight = nn.Parameter(torch.tensor(0.25)) if config.neighbours else None
        self.window = config.window
        self.window_weight = nn.Parameter(torch.tensor(1.0)) if config.window else None

    @property
    def weights(self) -> list[nn.Parameter]:
        """The multiples of the terms that are added to the states' own score."""
        return [w for w in (self.lexical_weight, self.neighbour_weight, self.window_weight) if w is not None]

    def project_tokens(self, states: States) -> torch.Tensor:
        """Unit vectors [S, L, P] that maxsim compares; zero on padding."""
        projected = self.project(states.hidden.to(self.project.weight.dtype)).float()
        return nn.functional.normalize(projected, dim=-1) * states.mask.unsqueeze(-1)

    def forward(self, query: States, segments: States, lexical: torch.Tensor | None = None) -> torch.Tensor:
        """Score Q queries against S segments.

        Args:
            query: states of the queries (with ``cross``: of a single query; its states are not used).
            segments: states of the segments.
            lexical: BM25 scores [Q, S], scaled to at most 1 per query.
        """
        if self.score == "maxsim":
            scores = self._late_interaction(query, segments)
        else:
            scores = torch.cat([self._against(query, piece) for piece in segments.pieces()], dim=1)
        if self.lexical_weight is not None:
            assert lexical is not None, "a model with a lexical term needs BM25 scores"
            scores = scores + self.lexical_weight.float() * lexical
        if self.neighbour_weight is not None:
            scores = scores + self.neighbour_weight.float() * neighbour_sum(scores)
        return scores

    def _late_interaction(self, query: States, segments: States) -> torch.Tensor:
        """Maxsim over each segment and, if asked for, over the segments around it as well, [Q, S]."""
        asked = self.project_tokens(query)
        pieces = [best_cosines(asked, self.project_tokens(piece), piece.mask) for piece in segments.pieces()]
        best = torch.cat(pieces, dim=1)
        scores = query_mean(best, query.mask)
        if self.window_weight is not None:
            around = query_mean(best_around(best, self.window), query.mask)
            scores = scores + self.window_weight.float() * around
        return scores

    def _against(self, query: States, segments: States) -> torch.Tensor:
        """What pooled states say, [Q, S]."""
        if self.score == "mean":
            return nn.functional.normalize(query.mean(), dim=-1) @ nn.functional.normalize(segments.mean(), dim=-1).T
        return self.head(segments.mean().to(self.head.weight.dtype)).float().T


def neighbour_sum(scores: torch.Tensor) -> torch.Tensor:
    """Sum of the scores of the segments before and after [Q, S]; at the ends a segment stands in for the missing one.

    A 48-token cut often parts an answer from the words that the question shares with it: those lie next door.
    """
    before = torch.cat([scores[:, :1], scores[:, :-1]], dim=1)
    after = torch.cat([scores[:, 1:], scores[:, -1:]], dim=1)
    return before + after


def best_cosines(query: torch.Tensor, segments: torch.Tensor, segment_mask: torch.Tensor) -> torch.Tensor:
    """The best cosine of every query token with a token of every segment, [Q, S, Lq].

    Args:
        query: unit vectors [Q, Lq, P].
        segments: unit vectors [S, L, P] with ``segment_mask`` [S, L].
    """
    hidden = ~segment_mask
    best = []
    for row in query:  # one query at a time: all at once would hold Q x Lq x S x L cosines
        cosines = (segments @ row.T).masked_fill(hidden.unsqueeze(-1), -2.0)  # [S, L, Lq], below any cosine
        best.append(cosines.amax(1))
    return torch.stack(best)


def best_around(best: torch.Tensor, window: int) -> torch.Tensor:
    """The best cosines [Q, S, Lq] over each segment and ``window`` segments on either side.

    One segment seldom answers every word of a question; a passage does.
    """
    rows = best.transpose(1, 2)
    return nn.functional.max_pool1d(rows, 2 * window + 1, stride=1, padding=window).transpose(1, 2)


def query_mean(best: torch.Tensor, query_mask: torch.Tensor) -> torch.Tensor:
    """Mean over the real query tokens, [Q, S, Lq] and [Q, Lq] to [Q, S]: with ``best_cosines``, late interaction."""
    weights = query_mask.float() / query_mask.sum(1, keepdim=True)
    return torch.einsum("qsl,ql->qs", best, weights)
