"""`huginn eval`: how well a checkpoint foresees a text."""

import argparse
import json
import sys
from pathlib import Path

EXAMPLES = """\
examples:
  huginn eval --ckpt ckpts/muninn-char letter.txt
  huginn eval --ckpt ckpts/muninn-char shakespeare.txt --validation 0.1 --window 256
  huginn eval --ckpt ckpts/muninn-char letter.txt --prefix 0

Prints JSON: nats_per_token, bits_per_byte, perplexity, tokens. By default the memory is carried through the whole text.
--prefix is lm-evaluation-harness's custom_prefix_token_id; its max_length is then --window and two more.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = "Score every token of a text but the first, each given those before it."
    parser.epilog = EXAMPLES
    parser.add_argument("file", type=Path, metavar="FILE", help="text or .jsonl (field text); also .gz, .xz")
    parser.add_argument("--ckpt", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--window", type=int, metavar="T", help="read windows of T tokens, each from an empty memory")
    parser.add_argument(
        "--prefix", type=int, metavar="ID", help="a token to stand before the text, whose first is scored"
    )
    parser.add_argument("--validation", type=float, default=1.0, metavar="SHARE", help="only the text's last share (1)")


def run(args: argparse.Namespace) -> int:
    """Evaluate; exit codes: 0 done, 3 bad input."""
    import numpy as np

    from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint
    from functions.llm.tokenizers import TokenizerError
    from functions.llm.training.corpus import Corpus, CorpusError, read_corpora
    from functions.llm.training.evaluation import evaluate_carried, evaluate_windows

    def text_of(corpus: Corpus) -> str:
        return corpus.text if args.validation == 1 else corpus.split(args.validation)[1]

    try:
        if not 0 < args.validation <= 1:
            raise CorpusError(f"--validation is {args.validation}; it must be above 0 and at most 1")
        if args.window is not None and args.window < 1:
            raise CorpusError(f"--window is {args.window}; it must be at least 1")
        checkpoint = load_checkpoint(args.ckpt)
        tokens = checkpoint.tokenizer.encode_array(text_of(read_corpora([args.file])[0]))
        if args.prefix is not None:
            if not 0 <= args.prefix < checkpoint.tokenizer.vocab_size:
                raise CorpusError(f"--prefix is {args.prefix}; it must be 0 to {checkpoint.tokenizer.vocab_size - 1}")
            tokens = np.concatenate([np.asarray([args.prefix], tokens.dtype), tokens])
        if len(tokens) < 2:
            raise CorpusError(f"{args.file}: {len(tokens)} tokens to score; at least 2 are needed")
    except (CheckpointError, CorpusError, TokenizerError) as error:
        print(f"huginn: {error}", file=sys.stderr)
        return 3
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    found = (
        evaluate_windows(model, tokenizer, tokens, args.window)
        if args.window
        else evaluate_carried(model, tokenizer, tokens)
    )
    report = {
        "nats_per_token": found.nats_per_token,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity,
        "tokens": found.tokens,
    }
    print(json.dumps(report, indent=2))
    return 0
