"""Write torch_reference.json and .npz: what torch itself makes of the predecessor's checkpoint.

    pip install torch==2.13.0
    python tests/llm/checkpoints/make_torch_reference.py ../shared/fixtures/huginn-lstm-char.pt

The model is the predecessor's: embedding, nn.LSTM, linear head, in float32. Greedy text takes the largest logit of
each step; the margins to the second largest are checked to be far above what another order of summation can change,
so that any right implementation writes the same text.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
PROMPTS = (
    "Le corbeau",
    "Il était une fois, dans la forêt,",
    "« Où vas-tu ? » demanda-t-elle. — Je ne sais pas, répondit l’enfant",
    "La nuit tombait sur la ville; les rues étaient vides. Ænigme: ☃ inconnu",
)
POSITIONS = 64
GREEDY_CHARS = 240
LEAST_MARGIN = 1e-3


class Predecessor(torch.nn.Module):
    """The predecessor's network, under its own names."""

    def __init__(self, vocab: int, emb: int, hid: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.emb = torch.nn.Embedding(vocab, emb)
        self.rnn = torch.nn.LSTM(emb, hid, layers, batch_first=True, dropout=dropout)
        self.head = torch.nn.Linear(hid, vocab)

    def forward(self, ids, state=None):
        x, state = self.rnn(self.emb(ids), state)
        return self.head(x), state


def load(source: Path) -> tuple[Predecessor, list[str]]:
    content = torch.load(source, map_location="cpu", weights_only=True)
    model = Predecessor(len(content["chars"]), **content["config"])
    model.load_state_dict(content["state_dict"])
    return model.float().eval(), content["chars"]


def encode(text: str, chars: list[str]) -> list[int]:
    ids = {char: i for i, char in enumerate(chars)}
    return [ids.get(char, ids[" "]) for char in text]


def greedy(model: Predecessor, ids: list[int], chars: list[str]) -> tuple[str, float]:
    """The greedy text after the prompt, and the least margin on the way."""
    logits, state = model(torch.tensor([ids]))
    text, least = "", float("inf")
    for _ in range(GREEDY_CHARS):
        (best, second), (chosen, _) = logits[0, -1].topk(2)
        least = min(least, float(best - second))
        text += chars[chosen]
        logits, state = model(torch.tensor([[chosen]]), state)
    return text, least


@torch.inference_mode()
def main(source: Path) -> None:
    model, chars = load(source)
    texts, all_logits = [], []
    for prompt in PROMPTS:
        text, margin = greedy(model, encode(prompt, chars), chars)
        if margin < LEAST_MARGIN:
            raise SystemExit(f"{prompt!r}: two logits are {margin} apart, choose another prompt")
        texts.append(text)
        logits, _ = model(torch.tensor([encode(prompt + text, chars)[:POSITIONS]]))
        all_logits.append(logits[0].numpy())
        print(f"{prompt!r}: margin {margin:.4f}: {text!r}")
    reference = {
        "checkpoint_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "prompts": PROMPTS,
        "greedy": texts,
    }
    (HERE / "torch_reference.json").write_text(
        json.dumps(reference, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    np.savez_compressed(HERE / "torch_reference.npz", logits=np.stack(all_logits))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
