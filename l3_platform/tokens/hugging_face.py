"""The files beside an exported model from which transformers' AutoTokenizer makes our tokenizer."""

from __future__ import annotations

import json

from l3_platform.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, PADDING


def tokenizer_files(content: bytes) -> dict[str, str]:
    """File name to text. content: that of `tokenizer.json`, which already holds everything but the tokens' roles."""
    roles = {
        "bos_token": BEGIN_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": PADDING,
        "tokenizer_class": "PreTrainedTokenizerFast",  # the file as it is; the class of Llama would rebuild it
    }
    return {
        "tokenizer.json": content.decode(),
        "tokenizer_config.json": json.dumps(roles, indent=2, sort_keys=True) + "\n",
    }
