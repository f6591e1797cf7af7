"""README and documentation: programs run, or name things that exist where they cannot run here; commands parse; links
lead somewhere.

A block that needs more than a CPU and the packaged data has a comment on the line before it, such as `<!-- needs: gpu
-->`.
"""

import ast
import builtins
import contextlib
import functools
import inspect
import io
import json
import re
import runpy
import shlex
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import tiny_language_model, tiny_tokenizer, tiny_vision_tower
from PIL import Image
from transformers import AutoModel, AutoProcessor, ViTImageProcessorPil
from transformers.models.auto import configuration_auto
from transformers.pipelines import base as pipelines_base
from trl.trainer import grpo_config
from typer.main import get_command

from hf_talking_points import MINI_LOCALIZER
from hf_talking_points.cli import app

ROOT = Path(__file__).parent.parent
PRETRAINED = ROOT / "hf_talking_points" / "pretrained"
PATTERNS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "model_cards/*.md",
    "hf_talking_points/**/README.md",
)
NEEDS = ("gpu", "network", "cluster")
LANGUAGES = ("python", "bash", "yaml", "bibtex")
# options that make a page's trainings and its evaluation short
SHORT_TRAINING = {
    "docs/training.md": "--max_steps 2 --eval_steps 2 --per_device_train_batch_size 2 "
    "--views_per_photo 1 --max_eval_photos 2",
    "docs/command_line.md": "",
}
SHORT_EVALUATION = {"docs/training.md": "--max-photos 2", "docs/command_line.md": ""}
# page -> the page that makes the data which it reads
AFTER = {
    "docs/datasets.md": "docs/training.md",
    "docs/dataset_formats.md": "docs/training.md",
}
FENCED = re.compile(
    r"(?:<!-- needs: (?P<needs>.*?) -->\n)?^```(?P<language>.*)\n(?P<code>(?:.*\n)*?)^```$",
    re.MULTILINE,
)
PROGRAM = re.compile(r"talking-points|[\w/]+\.py")


def find_pages():
    pages = []
    for pattern in PATTERNS:
        pages += [str(page.relative_to(ROOT)) for page in sorted(ROOT.glob(pattern))]
    return pages


PAGES = find_pages()


@dataclass
class Block:
    """A fenced block of a page; `needs` is what it cannot run without here, or None."""

    language: str
    needs: str | None
    code: str


def blocks_of(page):
    text = (ROOT / page).read_text()
    found = FENCED.finditer(text)
    return [Block(match["language"], match["needs"], match["code"]) for match in found]


def commands_in(code):
    """Lines that start a program of the repository, as lists of words."""
    commands = []
    for line in code.replace("\\\n", " ").splitlines():
        if not PROGRAM.search(line):
            continue
        words = shlex.split(line, comments=True)
        if any(PROGRAM.fullmatch(word) for word in words):
            commands.append(words)
    return commands


def commands_of(page):
    """The page's commands, from its indented lines and bash blocks."""
    unfenced = FENCED.sub("", (ROOT / page).read_text())
    lines = [line for line in unfenced.splitlines() if line.startswith("    ")]
    for block in blocks_of(page):
        if block.language == "bash":
            lines.append(block.code)
    return commands_in("\n".join(lines))


def start(command):
    """Runs a command of a page in this process."""
    if command[0] == "talking-points":
        assert not get_command(app)(command[1:], standalone_mode=False)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command[1:])
        runpy.run_path(command[1], run_name="__main__")


def start_shortened(page, command):
    """Runs a command of a page with the options that make it short."""
    options = SHORT_EVALUATION if command[0] == "talking-points" else SHORT_TRAINING
    start([*command, *options[page].split()])


class NameCheck:
    """Raises for an import, attribute, keyword or name that does not exist.

    Args:
        code (`str`)
        names (`dict`): those of the page's earlier blocks.
    """

    def __init__(self, code, names):
        self.nodes = list(ast.walk(ast.parse(code)))
        self.stored = {
            name for node in self.nodes for name in self.names_stored_by(node)
        }
        self.known = dict(names)
        imports = [
            node
            for node in self.nodes
            if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        exec(compile(ast.Module(imports, []), "imports", "exec"), self.known)
        for name in self.stored:
            self.known.pop(name, None)

    @staticmethod
    def names_stored_by(node):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            return [node.id]
        if isinstance(node, ast.arg):
            return [node.arg]
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            return [node.name]
        return []

    def resolve(self, node):
        """What a name or attribute stands for, None where that is not known before the code runs."""
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            return owner and getattr(owner, node.attr)
        return self.known.get(node.id) if isinstance(node, ast.Name) else None

    def run(self):
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                self.resolve(node)
            elif isinstance(node, ast.Name):
                exists = hasattr(builtins, node.id)
                assert exists or node.id in self.known or node.id in self.stored, (
                    node.id
                )
            elif isinstance(node, ast.Call):
                self.check_call(node)

    def check_call(self, call):
        function = self.resolve(call.func)
        if function is None or function is functools.partial:  # has no signature
            return
        keywords = {
            keyword.arg: keyword.value for keyword in call.keywords if keyword.arg
        }
        inspect.signature(function).bind_partial(*call.args, **keywords)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder in which the pages' programs run, with what they take from the repository."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("examples", "hf_talking_points"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "photos").mkdir()
    photo = Image.fromarray(pytest.importorskip("skimage.data").chelsea())
    for name in ("cat.jpg", "photos/cat.png"):
        photo.save(folder / name)
    return folder


@dataclass
class RunPage:
    """The names that a page's programs left, and what they printed."""

    names: dict
    printed: str


def run_block(page, block, names):
    # the embedded pair as it is on a Hub
    code = block.code.replace(
        '"someone/talking-points-', f'"{PRETRAINED}/talking-points-'
    )
    if block.language == "bash" and page in SHORT_TRAINING:
        for command in commands_in(code):
            start_shortened(page, command)
    elif block.language == "python" and block.needs:
        NameCheck(code, names).run()
    elif block.language == "python":
        exec(compile(code, page, "exec"), names)


@pytest.fixture(scope="module")
def run(clone):
    """Function page -> [`RunPage`] after its Python blocks, and its commands that can be made short, ran in order."""

    @functools.cache
    def run(page):
        if page in AFTER:
            run(AFTER[page])
        names = {}
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.chdir(clone)
            for block in blocks_of(page):
                run_block(page, block, names)
        return RunPage(names, printed.getvalue())

    return run


@pytest.mark.parametrize("page", PAGES)
def test_programs_run(run, page):
    pytest.importorskip("skimage")
    printed = run(page).printed
    stated = []
    for block in blocks_of(page):
        stated += re.findall(r"^ *print\(.*\)  # (.*)", block.code, re.MULTILINE)
    assert [line for line in printed.splitlines() if line in stated] == stated


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_a_kind_that_is_tested(page):
    for block in blocks_of(page):
        assert block.needs in (None, *NEEDS)
        assert block.language in LANGUAGES
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.code), dict)


class Parsed(Exception):
    """The command line fits; what would come next is the program's work."""


def stop(**kwargs):
    raise Parsed


def parse(command, monkeypatch):
    """Raises SystemExit where a program does not know what the command gives it, KeyError or OSError where there is no
    such program."""
    monkeypatch.chdir(ROOT)
    for word in command:
        if word.startswith("examples/"):
            Path(word).stat()
    is_program = [PROGRAM.fullmatch(word) is not None for word in command]
    number = is_program.index(True)
    program = command[number]
    arguments = command[number + 1 :]
    if program == "talking-points":
        command = get_command(app).commands[arguments[0]]
        command.callback = stop
        with pytest.raises(Parsed):
            command(arguments[1:])
    elif "Parser(" in (ROOT / program).read_text():  # others hand their arguments on
        parse_options(program, arguments, monkeypatch)


def parse_options(program, arguments, monkeypatch):
    parse_known_args = ArgumentParser.parse_known_args

    def parse_and_stop(parser, args=None, namespace=None):
        _, unknown = parse_known_args(parser, args, namespace)
        if unknown:
            parser.error(f"unknown: {unknown}")
        raise Parsed

    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setattr(ArgumentParser, "parse_known_args", parse_and_stop)
    with pytest.raises(Parsed):
        runpy.run_path(program, run_name="__main__")


@pytest.mark.parametrize(
    "page, command",
    [(page, command) for page in PAGES for command in commands_of(page)],
)
def test_commands_parse(page, command, monkeypatch):
    parse(command, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "talking-points evaluate --datasets a --output b",
        "talking-points judge --output b",
        "python examples/train_localizer.py --config examples/train_localizer.yaml --data_dir a "
        "--heads mlp",
        "python examples/train_localizer.py --config examples/train_localizer.yaml",
        "python examples/train_localisers.py --data_dir a --output_dir b",
        "python examples/demo.py --picture a",
        "accelerate launch --config_file examples/accelerate.yaml examples/demo.py",
    ],
)
def test_wrong_commands_are_noticed(command, monkeypatch):
    with pytest.raises((SystemExit, OSError, KeyError)):
        parse(command.split(), monkeypatch)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", (ROOT / page).read_text()):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_pictures_are_small():
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size <= 300 * 1024, picture


def test_first_program_prints_a_line_for_each_point(run):
    assert re.match(r"\(172.*\n\(266.*\n", run("README.md").printed)


@pytest.mark.parametrize(
    "page",
    [
        "docs/evaluation.md",
        "hf_talking_points/evaluation/localization_distance/README.md",
    ],
)
def test_metric_finds_what_is_described(run, page):
    scores = run(page).names["scores"]
    assert scores["n"] == 2
    assert scores["mpck"] >= 50


def test_documented_interval_and_localizer_are_such(run):
    page = run("docs/evaluation.md")
    low, high = ast.literal_eval(page.printed.splitlines()[-1])
    assert 0 < low < high < 100
    localizer = page.names["CenterLocalizer"]()
    found = localizer(Image.new("RGB", (40, 20)), ["a", "b"])
    assert found.tolist() == [[20, 10], [20, 10]]


def test_documented_lines_of_the_command_line(run, clone):
    [row] = run("docs/command_line.md").names["rows"]
    text = (ROOT / "docs/command_line.md").read_text()
    [line] = re.findall(r"^    (\{.*\})$", text, re.MULTILINE)
    assert list(row) == list(json.loads(line))
    assert Image.open(clone / "compared.png").width == 1280


def test_documented_trainer_takes_a_step(run, tmp_path):
    trainer = run("docs/grpo.md").names["trainer"]
    trainer.args.output_dir = str(tmp_path)
    trainer.args.max_steps = 1
    trainer.args.save_strategy = "no"
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("kind", ["localizer", "descriptor"])
def test_full_size_recipes_run_on_tiny_models(run, clone, tmp_path, monkeypatch, kind):
    run("docs/training.md")  # writes the photos
    monkeypatch.chdir(clone)
    tokenizer = tiny_tokenizer()
    tiny_vision_tower("swin").save_pretrained(tmp_path / "vision")
    ViTImageProcessorPil(image_mean=[0.1, 0.2, 0.3]).save_pretrained(
        tmp_path / "vision"
    )
    tiny_language_model("qwen", tokenizer).save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")

    script = f"examples/train_{kind}.py"
    [command] = [
        words for words in commands_of("docs/full_size.md") if words[1] == script
    ]
    options = f"--data_dir my_photos --vision {tmp_path}/vision --text {tmp_path}/text "
    options += f"--output_dir {tmp_path}/run --image_size 64 --views_per_photo 1 --max_steps 2 "
    options += "--eval_steps 2 --max_eval_photos 2 --use_cpu true --report_to none"
    if kind == "descriptor":
        options += f" --localizer {MINI_LOCALIZER}"
    start([*command, *options.split()])

    config = AutoModel.from_pretrained(tmp_path / "run").config
    assert config.text_config.model_type == "qwen3"
    processor = AutoProcessor.from_pretrained(tmp_path / "run")
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]


def constants_in(file):
    """The string literals of a source file."""
    constants = []
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            constants.append(node.value)
    return constants


def patterns_in(file):
    """Regular expressions that the f-strings of a source file match."""
    patterns = []
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if not isinstance(node, ast.JoinedStr):
            continue
        parts = []
        for part in node.values:
            is_text = isinstance(part, ast.Constant)
            parts.append(re.escape(part.value) if is_text else ".*")
        patterns.append("".join(parts))
    # with fewer letters it would match almost anything
    return [pattern for pattern in patterns if len(re.findall("[a-z]", pattern)) >= 4]


def test_quoted_errors_are_raised_somewhere():
    """A row of the FAQ quotes a whole message with examples in its gaps, or, between dots, a fixed part of one."""
    text = (ROOT / "docs" / "faq.md").read_text()
    quoted = re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)
    assert len(quoted) > 50
    sources = [
        *(ROOT / "hf_talking_points").rglob("*.py"),
        configuration_auto.__file__,
        pipelines_base.__file__,
        grpo_config.__file__,
    ]
    constants = []
    patterns = []
    for source in sources:
        constants += constants_in(source)
        patterns += patterns_in(source)
    for message in quoted:
        if message.startswith("…"):
            fixed_part = message.strip("… ")
            assert any(fixed_part in constant for constant in constants), message
        else:
            is_raised = any(re.fullmatch(pattern, message) for pattern in patterns)
            assert is_raised or message in constants, message


def test_right_names_are_taken():
    NameCheck("from pathlib import Path\nfolder = Path('a').absolute()", {}).run()


@pytest.mark.parametrize(
    "code",
    [
        "from hf_talking_points import PointDescriber",
        "import hf_talking_points\nhf_talking_points.PointDescriber",
        "from pathlib import Path\nPath.working_directory()",
        "import hf_talking_points\nhf_talking_points.LocalizerReward(shapes='mse')",
        "describe(image)",
    ],
)
def test_wrong_names_are_noticed(code):
    """The check of blocks that cannot run here fails where it should."""
    with pytest.raises((ImportError, AttributeError, TypeError, AssertionError)):
        NameCheck(code, {}).run()
