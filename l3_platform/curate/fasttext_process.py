"""Train one fastText model: run as a program, in a process of its own.

fastText 0.9.3 on one thread gives random starting values to the first tenth of its matrix only and leaves the rest as the
allocator handed it over. In a process that has freed memory before, that is garbage, and no two models are alike; in a
fresh process it is zeros. On several threads the matrix is filled, but updates race.
"""

import json
import sys
from typing import Any


def main(arguments: dict[str, Any]) -> None:
    """`model` is the file to write; the rest are fastText's own arguments."""
    import fasttext

    model_file = arguments.pop("model")
    fasttext.train_supervised(**arguments, thread=1, verbose=0).save_model(model_file)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
