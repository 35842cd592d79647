"""One tokenizer of each kind over the same French and English text."""

import pytest

from functions.llm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, train_bpe

TEXT = (
    "« Où vas-tu ? » demanda le corbeau à l’enfant, qui ne répondit pas.\n"
    "“Where do you go?” asked the raven; and the child, who did not answer, went on…\n"
    "Le cœur de la forêt était noir\u202f; Huginn y volait chaque jour, et revenait chaque soir. 🐦‍⬛ 思考\n"
) * 3


@pytest.fixture(scope="session")
def bpe() -> BPETokenizer:
    return train_bpe([TEXT], 320)


@pytest.fixture(scope="session", params=["byte", "char", "bpe"])
def tokenizer(request: pytest.FixtureRequest, bpe: BPETokenizer) -> Tokenizer:
    return {"byte": ByteTokenizer(), "char": CharTokenizer.from_text(TEXT), "bpe": bpe}[request.param]
