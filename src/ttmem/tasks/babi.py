"""bAbI: its files, its words as tokens, its questions as tensors; and the files of BABILong, which is made of it.

A token is a word. The words of tasks 1 to 5 have an id each, all others share buckets:

<pad> 0, <sep> 1, <end> 2, <unk> 3, `.` 4, `?` 5, `,` 6, the words of bAbI 7..57, then BUCKETS ids by a word's hash.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import torch
from jaxtyping import Int
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from .base import SPLITS
from .corpus import locate, read_text

FIELDS = ("input", "question", "target")
FOLDER, SETS = "babi/tasks_1-20_v1-2", ("en-10k", "en")
PAD, SEPARATOR, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<sep>", "<end>", "<unk>")
MARKS = (".", "?", ",")
WORDS = (
    "apple back bathroom bedroom before bill daniel did discarded down dropped east football fred garden gave give got "
    "grabbed hallway handed is jeff john journeyed kitchen left mary milk moved north of office passed picked put "
    "received sandra south the there to took travelled up was went west what where who"
).split()
BUCKETS = 1000
FIRST_BUCKET = len(SPECIAL) + len(MARKS) + len(WORDS)
VOCAB = FIRST_BUCKET + BUCKETS
HELD_OUT = 10  # one story in so many of the training file is validation

_NAMES = (*SPECIAL, *MARKS, *WORDS)
_IDS = {token: i for i, token in enumerate(_NAMES) if i >= len(SPECIAL)}
_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[^\w\s]")
_LINE = re.compile(r"(\d+) ([^\t]*\S) ?(?:\t([^\t]*\S)\t([\d ]*\d) ?)?")


class Question(NamedTuple):
    """A question as ids: the number of its story, the facts told before it, and which of these comes last of all that
    the answer rests on."""

    story: int
    facts: tuple[tuple[int, ...], ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]
    support: int


class Stories(NamedTuple):
    """Questions, one a row: the tokens of the facts before it, where in them each fact begins (padded with `size`),
    how many facts and tokens they are, question and answer, and the last fact that the answer rests on."""

    tokens: Int[Tensor, "n t"]
    begin: Int[Tensor, "n f"]
    facts: Int[Tensor, "n"]
    size: Int[Tensor, "n"]
    question: Int[Tensor, "n q"]
    answer: Int[Tensor, "n y"]
    support: Int[Tensor, "n"]

    def take(self, rows: Int[Tensor, "b"] | slice) -> "Stories":
        """Some of the rows."""
        return Stories(*(each[rows] for each in self))


def encode(text: str) -> list[int]:
    """Ids of a text, one for each word in lower case and each sign.

    A word of no task takes the bucket of its CRC-32, a sign of none is UNKNOWN.

    >>> encode("Mary went to the garden."), encode("Call me Ishmael!")
    ([34, 53, 48, 46, 21, 4], [328, 732, 125, 3])
    """
    return [
        _IDS.get(piece) or (FIRST_BUCKET + crc32(piece.encode()) % BUCKETS if piece[0].isalnum() else UNKNOWN)
        for piece in _TOKEN.findall(text.lower().replace("’", "'"))
    ]


def decode(ids: Iterable[int] | Int[Tensor, "n"]) -> str:
    """Text of ids, without padding; ValueError for an id that is no token. `encode` does not read buckets back.

    >>> decode([34, 53, 48, 46, 21, 4, 739, 2, 0])
    'mary went to the garden. <word-681> <end>'
    """
    pieces = []
    for i in ids.tolist() if isinstance(ids, Tensor) else map(int, ids):
        if not 0 <= i < VOCAB:
            raise ValueError(f"id must be between 0 and {VOCAB - 1}, got {i}")
        named = _NAMES[i] if i < FIRST_BUCKET else f"<word-{i - FIRST_BUCKET}>"
        pieces += [] if i == PAD else [named if named in MARKS else " " + named]
    return "".join(pieces).strip()


def read_babi(path: Path) -> list[Question]:
    """The questions of a bAbI file, each with all facts of its story so far; ValueError names the first bad line."""
    questions: list[Question] = []
    story, facts = 0, dict[int, tuple[int, ...]]()
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{path}, line {number}: must be `1 FACT.` or `2 QUESTION?<tab>ANSWER<tab>1`, got {line!r}"
            )
        place, said, answer, supports = match.groups()
        if int(place) == 1:
            story, facts = story + 1, {}
        if answer is None:
            facts[int(place)] = tuple(encode(said))
            continue
        rests_on = max(map(int, supports.split()))
        if rests_on not in facts:
            raise ValueError(f"{path}, line {number}: the answer must rest on facts above, got {supports!r}")
        told, support = tuple(facts.values()), list(facts).index(rests_on)
        questions.append(Question(story, told, tuple(encode(said)), tuple(encode(answer)), support))
    return questions


def part(train: list[Question], test: list[Question], by_facts: bool = False) -> dict[str, list[Question]]:
    """The questions of each split: every tenth story of the training file is validation.

    Short stories come twice: a question that is asked of the same facts in the test is in neither of the others, and
    one that is in validation is not in train. `by_facts`: whatever is asked of them, where others may be asked too.
    """

    def told(each: Question) -> Any:
        return each.facts if by_facts else (each.facts, each.question)

    asked = set(map(told, test))
    found = {"test": test}
    for split, kept in (("validation", True), ("train", False)):
        own = [each for each in train if (each.story % HELD_OUT == 0) == kept]
        found[split] = [each for each in own if told(each) not in asked]
        asked |= set(map(told, own))
    return {split: found[split] for split in SPLITS}


def find(kind: str, part: str, data: str | Path | None) -> Path:
    """The file of a task (`qa1`) that is `train` or `test`, of the 10,000 questions before that of the 1,000.

    Raises ValueError where there is none.
    """
    root = locate(FOLDER, data)
    found = [path for each in SETS for path in sorted((root / each).glob(f"{kind}_*_{part}.txt"))]
    if not found:
        raise ValueError(f"{root} must hold {kind}_*_{part}.txt of bAbI v1.2 in {' or '.join(SETS)}, and holds none")
    return found[0]


def fitting(questions: list[Question], length: int, where: str) -> Stories:
    """The questions whose facts have no more tokens than `length` (0: any); ValueError where there is none."""
    sizes = [sum(map(len, each.facts)) for each in questions]
    kept = [each for each, size in zip(questions, sizes, strict=True) if not length or size <= length]
    if not kept:
        least = f"the shortest story has {min(sizes)} tokens: take a longer one" if sizes else "the file has none"
        raise ValueError(f"length: no question fits in {where}; {least}")
    return Stories(
        rows([list(chain(*each.facts)) for each in kept]).short(),
        begins([list(map(len, each.facts)) for each in kept]),
        torch.tensor([len(each.facts) for each in kept]),
        torch.tensor([sum(map(len, each.facts)) for each in kept]),
        rows([each.question for each in kept]),
        rows([(*each.answer, END) for each in kept]),
        torch.tensor([each.support for each in kept]),
    )


def asked(
    stories: Stories, count: int, stream: Generator
) -> tuple[Int[Tensor, "b {count} s"], Int[Tensor, "b {count} y"], Int[Tensor, "b {count}"]]:
    """`count` questions of each story, its own first, with answers and the facts that these rest on.

    The others say `where is PERSON?` of persons in qa1's facts, `PERSON went to the PLACE.` (or moved, travelled, ..).
    """
    own = stories.question[:, None], stories.answer[:, None], stories.support[:, None]
    if count == 1:
        return own
    ends = torch.cat([stories.begin[:, 1:], stories.size[:, None]], dim=1)
    words, fact = stories.tokens.long(), torch.arange(ends.shape[1])
    person = words.gather(1, stories.begin.clamp(max=words.shape[1] - 1))
    drawn = (torch.rand(len(person), count - 1, generator=stream) * stories.facts[:, None]).long()
    wanted = person.gather(1, drawn)
    same = (person[:, None] == wanted[..., None]) & (fact < stories.facts[:, None, None])
    last = (same * (fact + 1)).argmax(-1)
    question = own[0].repeat(1, count - 1, 1)
    question[:, :, 2] = wanted
    place = words.gather(1, ends.gather(1, last) - 2)
    answer = torch.stack([place, torch.full_like(place, END)], dim=-1)
    more = question, answer, last
    question, answer, support = (torch.cat(both, dim=1) for both in zip(own, more, strict=True))
    return question, answer, support


def begins(sizes: list[list[int]]) -> Int[Tensor, "n f"]:
    """Where parts of given sizes begin, one behind the other; behind the last one the sum.

    >>> begins([[6, 5], [7]])
    tensor([[0, 6],
            [0, 7]])
    """
    padded = rows(sizes)
    return padded.cumsum(1) - padded


def rows(numbers: list[Any]) -> Int[Tensor, "n _"]:
    """Lists of numbers as rows, right-padded with 0."""
    return pad_sequence([torch.tensor(each) for each in numbers], batch_first=True)


def objects(path: Path) -> Iterator[tuple[str, Any]]:
    """What a file of JSON Lines, or a JSON list, holds, each with where it stands."""
    text = read_text(path)
    listed = text.lstrip().startswith("[")
    for number, line in enumerate([text] if listed else text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}" if listed else f"{path}, line {number}"
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: must be JSON: {error}") from error
        yield from ((f"{path}, row {i}", each) for i, each in enumerate(found, 1)) if listed else [(where, found)]


def ids_of(row: Any, field: str, where: str) -> Int[Tensor, "1 n"]:
    """The ids of a text in an object; ValueError where it is not there, no text, or empty."""
    if not isinstance(row, dict) or field not in row:
        raise ValueError(f"{where}: field {field} is missing; a sample is an object with {', '.join(FIELDS)}")
    ids = encode(row[field]) if isinstance(row[field], str) else []
    if not ids:
        raise ValueError(f"{where}: field {field} must be a text with words, got {str(row[field])[:40]!r}")
    return torch.tensor([ids])
