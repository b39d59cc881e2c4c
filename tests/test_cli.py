import os
import subprocess
import sys
from dataclasses import asdict

import pytest

from commands.room import CONTEXT, refused, said
from ttmem import zoo
from ttmem.checkpoint import save_model
from ttmem.cli import main
from ttmem.commands import COMMANDS, parse
from ttmem.commands.train import find_experiment
from ttmem.models import LayeredConfig, build, preset
from untrained import TASK, checkpoint


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A folder to work in with a checkpoint and pairs, and one shipped checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path / "shelf")
    checkpoint(tmp_path / "shelf" / "tokens-n2.safetensors", seed=1, exact_match=0.875)
    checkpoint(tmp_path / "mine.safetensors")
    (tmp_path / "pairs.txt").write_text("ab12 x9Qz\ncd34: y8Rw\n")
    return tmp_path


def test_the_module_is_the_command(capfd):
    done = subprocess.run([sys.executable, "-m", "ttmem", "--version"], check=False)
    assert done.returncode == 0 and capfd.readouterr().out.startswith("ttmem ")


def test_pairs_are_written_and_asked_as_the_model_itself_would_answer(room, capsys):
    written = said(capsys, "write", "mine.safetensors", "--pairs", "pairs.txt", "-o", "doc.memory")
    assert written["keys"] == ["ab12", "cd34"] and "!ab12:x9Qz!" in written["context"]
    assert len(written["losses"]) == written["steps"] == 2 and written["bytes"] == os.path.getsize("doc.memory")
    answers = said(capsys, "ask", "mine.safetensors", "doc.memory", "ab12", "cd34")["answers"]
    loaded = zoo.load("mine.safetensors")
    task = loaded.make_task()
    episode = task.episode_from_text(written["context"])
    state, _ = loaded.model.write(loaded.model.start(1), episode.context)
    first = loaded.model.read(state, episode.query, episode.target)[0, :, 0]
    first[:, 0] = -1e9
    assert [answers[key]["value"][0] for key in ("ab12", "cd34")] == list(task.decode(first.argmax(-1)))
    assert all(len(answer["value"]) == 4 and 0 < answer["probability"] < 1 for answer in answers.values())


def test_a_ready_context_is_written_and_more_steps_are_taken_when_asked(room, capsys):
    written = said(capsys, "write", "tokens-n2", "--text", CONTEXT, "--steps", "5")
    assert (written["memory"], written["steps"], written["context"]) == ("doc.memory", 5, CONTEXT)
    assert written["keys"] == ["aLA3", "7gjy"] and written["losses"] == sorted(written["losses"], reverse=True)


def titans(path, **facts):
    config = preset("tiny", "mag", **facts.pop("changes", {}))
    return save_model(path, asdict(config), build(config, 0).state_dict(), {"name": path.stem} | facts)


def test_a_titans_memory_is_written_and_asked_as_the_model_itself_would_answer(room, capsys):
    titans(room / "own.safetensors", task=TASK, changes={"vocab": 70, "pad": 0})
    written = said(capsys, "write", "own.safetensors", "--text", CONTEXT)
    assert (written["steps"], len(written["losses"])) == (0, 1)
    answers = said(capsys, "ask", "own.safetensors", "doc.memory", "7gjy")["answers"]
    loaded = zoo.load("own.safetensors")
    episode = loaded.make_task().episode_from_text(CONTEXT, ["7gjy"])
    state, _ = loaded.model.write(loaded.model.start(1), episode.context)
    first = loaded.model.read(state, episode.query, episode.target)[0, 0, 0, 1:].argmax() + 1
    assert answers["7gjy"]["value"][0] == loaded.make_task().decode([int(first)])


def test_steps_are_those_on_a_segment_and_losses_those_of_all_segments(room, capsys):
    checkpoint(room / "segments.safetensors", memory="rmt4")
    written = said(capsys, "write", "segments.safetensors", "--text", CONTEXT, "--steps", "3")
    assert (written["steps"], len(written["losses"])) == (3, 6)
    assert said(capsys, "inspect", "doc.memory")["steps"] == 3
    assert main(["write", "segments.safetensors", "--text", CONTEXT]) == 0
    assert "nats per character, before each step, segment after segment" in capsys.readouterr().out


def test_a_loss_of_each_segment_is_not_called_one_of_each_step(room, capsys):
    model = LayeredConfig("prmt4", dim=16, layers=1, heads=2)
    facts = {"name": "layers", "task": TASK}
    save_model(room / "layers.safetensors", asdict(model), build(model, 0).state_dict(), facts)
    assert main(["write", "layers.safetensors", "--text", CONTEXT]) == 0  # two segments, two steps
    out = capsys.readouterr().out
    assert "of each segment's next characters" in out and "before each step" not in out


def test_a_foreign_memory_is_refused_with_both_models(room, capsys):
    said(capsys, "write", "mine.safetensors", "--text", CONTEXT)
    line = refused(capsys, "ask", "tokens-n2", "doc.memory", "7gjy")
    assert "mine" in line and "tokens-n2" in line and "doc.memory" in line


@pytest.mark.parametrize(
    "words, hint",
    [
        ("ask mine.safetensors gone.memory 7gjy", "there is no memory file gone.memory"),
        ("ask gone.safetensors doc.memory 7gjy", "no file gone.safetensors, and no shipped checkpoint"),
        ("ask mine.safetensors doc.memory 7gj#", "'#'"),
        ("ask mine.safetensors doc.memory 7gjyy", "key must have 4 characters"),
        ("ask mine.safetensors doc.memory", "at least one KEY"),
        ("ask mine.safetensors doc.memory 7gjy --row 1", "--row must be between 0 and 0"),
        ("ask mine.safetensors pairs.txt 7gjy", "not a memory file"),
        ("ask mine.safetensors mine.safetensors 7gjy", "is it a checkpoint"),
        ("ask doc.memory doc.memory 7gjy", "no ttmem-checkpoint"),
        ("ask cut.safetensors doc.memory 7gjy", "cut.safetensors"),
        ("ask mine.safetensors cut.memory 7gjy", "truncated"),
        ("write mine.safetensors", "either --pairs FILE or --text TEXT"),
        ("write mine.safetensors --text a --pairs pairs.txt", "either --pairs FILE or --text TEXT"),
        ("write mine.safetensors --pairs gone.txt", "there is no file gone.txt"),
        ("write mine.safetensors --pairs three.txt", "takes 1 to 2 pairs, got 3"),
        ("write mine.safetensors --pairs binary.txt", "decode"),
        ("write mine.safetensors --text aä|", "'ä'"),
        ("write mine.safetensors --text abc|", "no pair"),
        ("write mine.safetensors --pairs pairs.txt --steps 0", "--steps must be >= 1"),
        ("write mine.safetensors --pairs pairs.txt --task N9", "task name must look like"),
        ("eval mine.safetensors --task nonsense", "task name must look like"),
        ("write mine.safetensors --text a| --task needle:passkey:128", "needle:passkey:128 has no pairs of one's own"),
        ("write titans.safetensors --text a|", "needle:passkey:128 has no pairs of one's own to write and ask"),
        ("write titans.safetensors --text a| --task N2-K2V2-V62", "model.vocab must be the 70 ids of N2-K2V2-V62, got"),
        ("eval mine.safetensors --task needle:passkey:128", "model.vocab must be the 258 ids of needle:passkey:128"),
        ("eval mine.safetensors --samples 0", "--samples must be >= 1, got 0"),
        ("eval mine.safetensors --samples 99999999999", "--samples must be <= 10,000,000, got 99999999999"),
        ("curve mine.safetensors --steps 1 0", "--steps must be >= 1, got 0"),
        ("write mine.safetensors --pairs pairs.txt --steps 1000000000000", "--steps must be <= 10,000,000, got"),
        ("train bad.py --out pairs.txt", "bad.py defines no EXPERIMENT"),
        ("train good.py --out pairs.txt", "--out pairs.txt is a file: name a folder"),
        ("eval tokens-n8", "not in this installation, which has: tokens-n2"),
        ("inspect pairs.txt", "not a memory file"),
        ("inspect .", "is a folder"),
        ("ask mine.safetensors . 7gjy", ". is a folder, not a memory file"),
        ("models --threads 0", "--threads must be >= 1"),
        ("train nothing", "there is no experiment nothing here or in ./experiments: give a .py file, or one of"),
        ("train tokens-n2", "holds no experiment"),
        ("train bad.py", "defines no EXPERIMENT"),
    ],
)
def test_bad_input_is_one_clear_line_and_code_2(room, capsys, words, hint):
    assert main(["write", "mine.safetensors", "--text", CONTEXT]) == 0
    capsys.readouterr()
    (room / "three.txt").write_text("ab12 x9Qz\ncd34 y8Rw\nef56 z7Tu\n")
    (room / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (room / "bad.py").write_text("X = 3\n")
    good = "from ttmem.training import Experiment\nEXPERIMENT = Experiment('mine', 'N1-K1V1-V62')\n"
    (room / "good.py").write_text(good)
    titans(room / "titans.safetensors", task="needle:passkey:128")
    for whole, cut in (("mine.safetensors", "cut.safetensors"), ("doc.memory", "cut.memory")):
        (room / cut).write_bytes((room / whole).read_bytes()[:-40])
    assert hint in refused(capsys, *words.split())


def test_eval_asks_as_many_questions_of_a_context_as_wanted(room, capsys):
    words = ("eval", "tokens-n2", "--samples", "20", "--task", "N2-K1V1-V62")
    one, two = said(capsys, *words), said(capsys, *words, "--queries", "2", "--curve")
    assert two["curve"][1]["exact_match"] == two["exact_match"] and two["curve"][1]["interval"] == two["interval"]
    assert (one["queries"], two["queries"]) == (1, 2) and two["samples"] == 20
    assert sum(rate["samples"] for rate in two["slices"]["position"].values()) == 40
    assert main([*words, "--queries", "2"]) == 0
    assert "20 test samples of 2 questions each, seed 1" in capsys.readouterr().out
    assert "queries must be" in refused(capsys, *words, "--queries", "3")
    assert "--queries must be >= 1, got 0" in refused(capsys, *words, "--queries", "0")


def test_eval_gives_the_promised_json(room, capsys):
    found = said(capsys, "eval", "tokens-n2", "--samples", "30", "--steps", "3", "--task", "N1-K1V1-V62")
    promised = "exact_match exact_match_reset token_accuracy interval memory_bytes write_seconds answer_seconds"
    assert set(promised.split()) | {"samples", "seed", "steps", "task", "slices"} <= set(found)
    assert (found["samples"], found["seed"], found["steps"], found["task"]) == (30, 1, 3, "N1-K1V1-V62")
    assert found["memory_bytes"] == 256 and len(found["write_loss"]) == 3


def test_a_curve_of_several_checkpoints_pools_those_of_one_name(room, capsys):
    pytest.importorskip("matplotlib")
    words = "tokens-n2 mine.safetensors --samples 20 --steps 1 3 --task N1-K1V1-V62 --plot all.png"
    found = said(capsys, "curve", *words.split())
    assert found["task"] == "N1-K1V1-V62"
    assert [(p["steps"], p["samples"]) for p in found["points"]] in ([(1, 40), (3, 40)], [(1, 20), (3, 20)] * 2)
    assert (room / "all.png").read_bytes().startswith(b"\x89PNG")


def test_eval_leaves_the_curve_of_thirty_steps_as_an_image(room, capsys):
    pytest.importorskip("matplotlib")
    found = said(capsys, "eval", "tokens-n2", "--samples", "2", "--plot", "curve.png", "--task", "N1-K1V1-V62")
    assert [point["steps"] for point in found["curve"]] == list(range(1, 31))
    assert (room / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_text_for_people_says_the_same(room, capsys):
    assert main(["eval", "tokens-n2", "--samples", "20"]) == 0
    out = capsys.readouterr().out
    assert "exact match" in out and "memory reset" in out and "256 bytes" in out and "95 %" in out
    assert main(["write", "mine.safetensors", "--text", CONTEXT]) == 0 and CONTEXT in capsys.readouterr().out
    assert main(["ask", "mine.safetensors", "doc.memory", "7gjy"]) == 0
    assert capsys.readouterr().out.startswith("7gjy  ")


def test_models_lists_every_name(room, capsys):
    found = said(capsys, "models")
    assert [entry["name"] for entry in found] == list(zoo.NAMES)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(zoo.NAMES)
    assert next(line for line in lines if line.startswith("tokens-n2")).split()[1:3] == [TASK, "0.8750"]


def test_inspect_knows_memories_and_checkpoints(room, capsys):
    written = said(capsys, "write", "mine.safetensors", "--text", CONTEXT)
    memory = said(capsys, "inspect", "doc.memory")
    assert (memory["format"], memory["tensors"], memory["lengths"]) == ("ttmem-memory", {"mem": [1, 4, 16]}, [30])
    found = said(capsys, "inspect", "mine.safetensors")
    assert (found["format"], found["fingerprint"]) == ("ttmem-checkpoint", written["fingerprint"])
    assert found["config"]["dim"] == 16 and found["facts"]["task"] == TASK


EXPERIMENT = """
from ttmem.models import ModelConfig
from ttmem.training import Experiment, TrainConfig
model = ModelConfig(dim=16, layers=1, slots=2)
EXPERIMENT = Experiment("tiny", "N1-K1V1-V62", model, train=TrainConfig(steps=2, batch=4, eval_samples=4, warmup=1))
"""


def test_training_leaves_a_checkpoint_that_evaluates(room, capsys):
    (room / "experiments").mkdir()
    (room / "experiments" / "tiny_one.py").write_text(EXPERIMENT)
    found = said(capsys, "train", "tiny-one", "--override", "train.steps=3", "train.lr=1e-3")
    assert (found["experiment"], found["steps"], found["out"]) == ("tiny", 3, os.path.join("runs", "tiny"))
    assert said(capsys, "eval", found["checkpoint"], "--samples", "5")["task"] == "N1-K1V1-V62"


def test_a_checkpoint_can_hold_its_experiment(room):
    (room / "tiny.py").write_text(EXPERIMENT)
    experiment = find_experiment("tiny.py")
    path = checkpoint(room / "held.safetensors", experiment=experiment.as_dict())
    assert find_experiment(str(path)) == experiment
    checkpoint(path, experiment=experiment.as_dict() | {"colour": "blue"})
    with pytest.raises(ValueError, match="experiment that this ttmem does not know"):
        find_experiment(str(path))


def test_other_failures_are_one_line_and_code_1(room, capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("first line\nsecond")

    monkeypatch.setattr(zoo, "listing", broken)
    monkeypatch.delenv("TTMEM_TRACEBACK", raising=False)
    assert main(["models"]) == 1
    assert capsys.readouterr().err == "ttmem: first line second\n"
    monkeypatch.setenv("TTMEM_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        main(["models"])
    monkeypatch.setattr(zoo, "listing", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["models"]) == 1 and capsys.readouterr().err == "ttmem: stopped\n"


def test_a_missing_library_comes_with_what_to_install(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("ttmem.commands")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert main(["models"]) == 1
    assert "pip install 'ttmem[cli]'" in capsys.readouterr().err


def test_wrong_words_are_code_2_and_help_is_0(capsys):
    assert main(["fly"]) == main(["ask"]) == 2
    for words in (["--help"], []):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0, words
    capsys.readouterr()
    assert main(["--version"]) == 0 and capsys.readouterr().out.endswith("ttmem 0.1.0\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_each_flag(name, capsys):
    with pytest.raises(SystemExit):
        parse([name, "--help"])
    out = capsys.readouterr().out
    assert "--json" in out and "--threads" in out and COMMANDS[name].__doc__.split(",")[0].split(";")[0][:20] in out


def test_threads_are_limited_before_torch_is_there():
    script = (
        "import sys, os\nfrom ttmem.cli import main\nassert 'torch' not in sys.modules\n"
        "main(['models', '--threads', sys.argv[1]])\nimport torch\nprint('threads', torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script, "2"], capture_output=True, text=True, env=environment, check=True
    )
    assert "threads 2" in done.stdout
