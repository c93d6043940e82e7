"""A drafter trained on a set from outside, and the front that `speceyes tune` finds for it.

    pip install easy-vqa
    python examples/tune_easy_vqa.py

easy-vqa has 48,000 questions on 5,000 pictures of one shape each, with a split of its own. A small
and a large model are trained on the training split (some minutes of a core each; a second run goes
on with what there is). Settings are tuned on half of the test pictures, and tried on the others.
"""

import json
import sys
from pathlib import Path

from easy_vqa import (
    get_test_image_paths,
    get_test_questions,
    get_train_image_paths,
    get_train_questions,
)

from speceyes.cli import main
from speceyes.tiny.training import pictures

STEPS, TUNED, TRIED = (int(n) for n in (sys.argv[1:] or ("900", "600", "400")))
OUT = Path("easy-vqa")


def write(name, asked, paths, wanted, count):
    """JSONL of questions on some of the pictures, spread over all of these."""
    rows = [
        {"image": f"{name}-{image}.png", "question": question, "answer": answer}
        for question, answer, image in zip(*asked, strict=True)
        if wanted(image)
    ]
    rows = rows[:: max(1, len(rows) // count)][:count]
    for row in rows:
        picture = OUT / row["image"]
        picture.write_bytes(Path(paths[int(picture.stem.split("-")[1])]).read_bytes())
    (OUT / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(OUT / f"{name}.jsonl")


OUT.mkdir(exist_ok=True)
train = write("train", get_train_questions(), get_train_image_paths(), lambda i: True, 40 * STEPS)
test = get_test_questions(), get_test_image_paths()
tuned = write("tuned", *test, lambda image: image % 2 == 0, TUNED)
tried = write("tried", *test, lambda image: image % 2 == 1, TRIED)
for size in ("small", "large"):
    if not (OUT / size / "model" / "config.json").exists():
        pictures.main([size, train, "--out", str(OUT / size), "--steps", str(STEPS)])
models = ["--large", str(OUT / "large" / "model"), "--small", str(OUT / "small" / "model")]
settings = str(OUT / "tuned" / "settings.json")
words = ["--judges", "none", "--pixels", "full", "--ks", "9", "--quiet"]
main(["tune", tuned, *models, *words, "--out", str(OUT / "tuned")])
if json.loads(Path(settings).read_text())["forecast"]["on"]:
    main(["eval", tried, *models, "--settings", settings, "--quiet", "--out", str(OUT / "tried")])
