"""Made-up stories of qa1 and books to hide them in, and how a reader answers them."""

import random
import re
from pathlib import Path

from ttmem.tasks import SPLITS, BabiLong

PEOPLE, PLACES = ("Mary", "John", "Daniel", "Sandra"), ("garden", "office", "kitchen", "hallway", "bedroom", "bathroom")
FACT = re.compile(r"(mary|john|daniel|sandra) (?:moved|went|journeyed|travelled)(?: back)? to the ([a-z]+)\.")
WORDS = {"train": "abcdef", "validation": "ghijkl", "test": "mnopqr"}  # what the three books are written in


def babi_text(stories: int, seed: int) -> str:
    """Stories as in qa1, each fact of six or seven tokens; whoever moves may be asked after every second fact."""
    draw, lines = random.Random(seed), []
    for _ in range(stories):
        where, number = {}, 0
        for _ in range(5):
            for _ in range(2):
                number, who, place = number + 1, draw.choice(PEOPLE), draw.choice(PLACES)
                where[who] = place, number
                lines.append(f"{number} {who} {draw.choice(['moved', 'went', 'went back'])} to the {place}.")
            number, who = number + 1, draw.choice(sorted(where))
            lines.append(f"{number} Where is {who}? \t{where[who][0]}\t{where[who][1]}")
    return "\n".join(lines) + "\n"


def book_text(letters: str) -> str:
    """Forty sentences of ten tokens, each with a word of its own, and some that are too short to be used."""
    said = (f"{letters[0]}{i}x " + " ".join(letter * (i % 5 + 2) for letter in letters) for i in range(40))
    return "\n\n".join(f"Chapter {each[:4]}\n\n“{each}!” Yes. Indeed so." for each in said) + "\n"


def data_folder(path: Path) -> Path:
    """A data folder with a made-up qa1 and three books."""
    room = path / "babi/tasks_1-20_v1-2/en-10k"
    room.mkdir(parents=True)
    (path / "gutenberg").mkdir()
    (room / "qa1_made-up_train.txt").write_text(babi_text(60, seed=1))
    (room / "qa1_made-up_test.txt").write_text(babi_text(30, seed=2))
    for number, split in enumerate(SPLITS):
        (path / f"gutenberg/{number}.txt").write_text(book_text(WORDS[split]), encoding="utf-8")
    return path


def made(folder, length: int, segment: int | None = None) -> BabiLong:
    return BabiLong("qa1", length, segment, folder)


def told(text: str) -> set[tuple[tuple[str, ...], str, str]]:
    """A second reading of a bAbI file: facts, question, answer."""
    found, facts = set(), []
    for line in text.lower().splitlines():
        number, said = line.split(" ", 1)
        facts = [] if number == "1" else facts
        if "\t" in said:
            question, answer, _ = said.split("\t")
            found.add((tuple(facts), question.strip(), answer))
        else:
            facts.append(said)
    return found


def rows(task: BabiLong, split: str, batch: int = 64, index: int = 0) -> list[tuple[str, str, str]]:
    """Context, question and answer of each row, as text."""
    episode = task.sample(batch, split, index=index)
    texts = zip(episode.context, episode.query[:, 0], episode.target[:, 0], strict=True)
    return [(task.decode(a), task.decode(b), task.decode(c).removesuffix(" <end>")) for a, b, c in texts]


def facts_of(context: str) -> tuple[str, ...]:
    return tuple(found[0] for found in FACT.finditer(context))


def solve(context: str, question: str) -> str:
    """The answer of a qa1, by reading."""
    where = {found[1]: found[2] for found in FACT.finditer(context)}
    return where[re.fullmatch(r"where is (\w+)\?", question)[1]]
