"""Training RAM: first its sense of relevance, then its reader (section 3).

Both stages take one document and many of its questions per step: the segments are encoded once, or one memory is read
once, for all of them. That is what makes training on two CPU cores viable.
"""

from __future__ import annotations

import random

import torch
from torch import nn

from laconic.core.compat import require_plain_head
from laconic.core.layout import IGNORE, Kind, Layout, concatenate, run
from laconic.core.positions import sequential
from laconic.core.segments import segment
from laconic.core.visibility import attention_mask, isolated_groups
from laconic.generation.answer import QUESTION_TEMPLATE
from laconic.losses.contrastive import contrastive_loss
from laconic.losses.next_token import summed_next_token_loss
from laconic.methods.ram.labels import positive_segments
from laconic.methods.ram.memory import plan_exact, vectors_within
from laconic.methods.ram.model import RAM, Reading
from laconic.train.documents import Group


class RelevanceStage(nn.Module):
    """Contrastive training of encoder and score: the segments of one document against each other."""

    def __init__(self, ram: RAM) -> None:
        super().__init__()
        self.ram = ram

    def forward(self, group: Group) -> tuple[torch.Tensor, dict[str, float]]:
        ram = self.ram
        if not group.questions:
            return sum(p.sum() * 0.0 for p in ram.relevance.parameters()), {}  # type: ignore[return-value]
        reading = ram.read(group.document)
        scores, _, _ = ram.score(reading, group.questions)
        positive = torch.stack([positive_segments(reading.segmented, spans) for spans in group.evidence])
        positive = positive.to(scores.device)
        loss = contrastive_loss(scores, positive, temperature=ram.config.contrastive_temperature)
        best = scores.argmax(1, keepdim=True)
        return loss, {"top1": positive.gather(1, best).float().mean().item()}


class ReaderStage(nn.Module):
    """Answer training of decoder and skim vectors: one memory, many questions that cannot see each other.

    A step draws how the document is shown: whole, as kept passages only, or as RAM's mixture, so that one reader
    serves the full prompt, every text-selecting baseline, and RAM alike.
    """

    def __init__(self, ram: RAM) -> None:
        super().__init__()
        require_plain_head(ram.decoder)
        self.ram = ram

    def forward(self, group: Group) -> tuple[torch.Tensor, dict[str, float]]:
        ram = self.ram
        if not group.questions:
            return sum(p.sum() * 0.0 for p in ram.align.parameters()), {}  # type: ignore[return-value]
        memory = self._memory(group)
        asked, layout = self._layout(len(memory), group)
        device = ram.backbone.device
        rows = torch.cat([memory, ram.decoder.get_input_embeddings()(asked.to(device))])[None]
        layout = layout.map(lambda field: field[None].to(device))
        hidden = ram.decoder.base_model(
            inputs_embeds=rows,
            attention_mask=attention_mask(ram.decoder, isolated_groups, layout),
            position_ids=layout.position,
            use_cache=False,
        ).last_hidden_state
        places = layout.label != IGNORE  # only these meet the vocabulary
        head, targets = ram.decoder.get_output_embeddings(), layout.label[places]
        loss, hits = summed_next_token_loss(head, hidden[places], targets)
        return loss / len(hits), {"token_accuracy": hits.float().mean().item(), "context": float(len(memory))}

    def _layout(self, memory: int, group: Group) -> tuple[torch.Tensor, Layout]:
        """Question tokens [T - M], and the layout [T]: the memory is group 0, each question a group of its own."""
        backbone = self.ram.backbone
        parts, asked = [run(Kind.PROMPT, sequential(0, memory))], []
        for number, (question, answer) in enumerate(zip(group.questions, group.answers, strict=True), 1):
            prompt = backbone.token_ids(QUESTION_TEMPLATE.format(question=question.strip()))
            reply = [*backbone.token_ids(" " + answer), backbone.tokenizer.eos_token_id]
            asked += prompt + reply
            label = torch.tensor([IGNORE] * (len(prompt) - 1) + reply + [IGNORE])
            positions = sequential(memory, len(label))  # every question goes on where the memory ends
            parts.append(run(Kind.TEXT, positions, step=number, label=label))
        return torch.tensor(asked), concatenate(parts)

    def _memory(self, group: Group) -> torch.Tensor:
        ram = self.ram
        kind = random.Random(group.document[:200] + group.questions[0]).random()
        segmented = segment(ram.backbone.tokenizer, group.document, ram.config.segment_tokens)
        embed = ram.decoder.get_input_embeddings()
        ids = torch.tensor(segmented.ids, device=ram.backbone.device)
        if kind < 0.25:
            return embed(ids)
        with torch.no_grad():
            reading: Reading = ram.read(group.document)
            scores, pooled, states = ram.score(reading, group.questions)
            positive = torch.stack([positive_segments(segmented, spans) for spans in group.evidence]).any(0)
            # evidence is read closely, then what looks relevant to any of the questions
            ranked = scores.amax(0) + 10.0 * positive.to(scores.device)
        factor = 2.0 * 8.0 ** random.Random(str(kind)).random()
        needed = len(segmented) + int(positive.sum()) * ram.config.segment_tokens
        budget = max(needed, int(len(segmented.ids) / factor))
        vectors = vectors_within(len(segmented), budget, ram.config.skim_share)
        plan = plan_exact(ranked.tolist(), segmented.lengths, budget, vectors)
        if kind < 0.5:
            return torch.cat([embed(ids[slice(*segmented.token_spans[i])]) for i in plan.kept])
        return ram.memory(segmented, plan, states, pooled.mean(0), scores.amax(0))
