"""README and documentation: programs run, or name things that exist where they cannot run here; commands parse; links lead somewhere.

A block that needs more than a CPU and the packaged data has a comment on the line before it, such as `<!-- needs: gpu -->`.
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
PAGES = [
    str(page.relative_to(ROOT))
    for pattern in (
        "README.md",
        "docs/**/*.md",
        "model_cards/*.md",
        "hf_talking_points/**/README.md",
    )
    for page in sorted(ROOT.glob(pattern))
]
PRETRAINED = ROOT / "hf_talking_points" / "pretrained"
NEEDS = ("gpu", "network", "cluster")
# options that make a page's trainings and its evaluation short
SHORT = {
    "docs/training.md": (
        "--max_steps 2 --eval_steps 2 --per_device_train_batch_size 2 --views_per_photo 1 --max_eval_photos 2",
        "--max-photos 2",
    ),
    "docs/command_line.md": ("", ""),
}
AFTER = {"docs/datasets.md": "docs/training.md"}  # reads the dataset that the other page builds
FENCED = re.compile(
    r"(?:<!-- needs: (?P<needs>.*?) -->\n)?^```(?P<language>.*)\n(?P<code>(?:.*\n)*?)^```$",
    re.MULTILINE,
)
PROGRAM = re.compile(r"talking-points|[\w/]+\.py")


def blocks(page):
    """(language, what it needs or None, code) of the page's fenced blocks."""
    return [
        (found["language"], found["needs"], found["code"])
        for found in FENCED.finditer((ROOT / page).read_text())
    ]


def commands_in(code):
    """Lines that start a program of the repository, as lists of words."""
    words = [
        shlex.split(line, comments=True)
        for line in code.replace("\\\n", " ").splitlines()
        if PROGRAM.search(line)
    ]
    return [line for line in words if any(map(PROGRAM.fullmatch, line))]


def commands(page):
    """The page's commands, from its indented lines and bash blocks."""
    indented = [
        line
        for line in FENCED.sub("", (ROOT / page).read_text()).splitlines()
        if line.startswith("    ")
    ]
    return commands_in(
        "\n".join([*indented, *(code for language, _, code in blocks(page) if language == "bash")])
    )


def start(command):
    """Runs a command of a page in this process."""
    with pytest.MonkeyPatch.context() as patch:
        if command[0] == "talking-points":
            patch.setattr(sys, "excepthook", sys.excepthook)
            assert not get_command(app)(command[1:], standalone_mode=False)
        else:
            patch.setattr(sys, "argv", command[1:])
            runpy.run_path(command[1], run_name="__main__")


def check_names(code, names):
    """Raises for an import, attribute, keyword or name that does not exist; `names` are those of the page's earlier blocks."""
    tree = ast.parse(code)
    nodes = list(ast.walk(tree))
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    known = dict(names)
    exec(compile(ast.Module(imports, []), "imports", "exec"), known)
    stored = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    stored |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    stored |= {
        node.name
        for node in nodes
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler))
    }
    known = {name: value for name, value in known.items() if name not in stored}

    def resolve(node):
        if isinstance(node, ast.Attribute):
            owner = resolve(node.value)
            return owner and getattr(owner, node.attr)
        return known.get(node.id) if isinstance(node, ast.Name) else None

    for node in nodes:
        if isinstance(node, ast.Attribute):
            resolve(node)
        elif isinstance(node, ast.Name):
            assert node.id in known or node.id in stored or hasattr(builtins, node.id), node.id
        elif (
            isinstance(node, ast.Call)
            and (function := resolve(node.func))
            and function is not functools.partial
        ):  # has no signature
            inspect.signature(function).bind_partial(
                *node.args, **{k.arg: k.value for k in node.keywords if k.arg}
            )


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


@pytest.fixture(scope="module")
def run(clone):
    """Function page -> (names, output) after its Python blocks, and those of its commands that `SHORT` has options for, ran in order."""

    @functools.cache
    def run(page):
        if page in AFTER:
            run(AFTER[page])
        names, printed = {}, io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.chdir(clone)
            for language, needs, code in blocks(page):
                code = code.replace(
                    '"someone/talking-points-', f'"{PRETRAINED}/talking-points-'
                )  # the embedded pair as it is on a Hub
                if language == "bash" and page in SHORT:
                    for command in commands_in(code):
                        start([*command, *SHORT[page][command[0] == "talking-points"].split()])
                elif language == "python" and needs:
                    check_names(code, names)
                elif language == "python":
                    exec(compile(code, page, "exec"), names)
        return names, printed.getvalue()

    return run


@pytest.mark.parametrize("page", PAGES)
def test_programs_run(run, page):
    pytest.importorskip("skimage")
    _, printed = run(page)
    stated = [
        line
        for _, _, code in blocks(page)
        for line in re.findall(r"^ *print\(.*\)  # (.*)", code, re.MULTILINE)
    ]
    assert [line for line in printed.splitlines() if line in stated] == stated


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_a_kind_that_is_tested(page):
    for language, needs, code in blocks(page):
        assert needs in (None, *NEEDS)
        assert language in ("python", "bash", "yaml", "bibtex")
        if language == "yaml":
            assert isinstance(yaml.safe_load(code), dict)


class Parsed(Exception):
    """The command line fits; what would come next is the program's work."""


def stop(**kwargs):
    raise Parsed


def parse(command, monkeypatch):
    """Raises SystemExit where a program does not know what the command gives it, KeyError or OSError where there is no such program."""
    monkeypatch.chdir(ROOT)
    for word in command:
        if word.startswith("examples/"):
            Path(word).stat()
    number = next(i for i, word in enumerate(command) if PROGRAM.fullmatch(word))
    program, arguments = command[number], command[number + 1 :]
    if program == "talking-points":
        command = get_command(app).commands[arguments[0]]
        command.callback = stop
        with pytest.raises(Parsed):
            command(arguments[1:])
        return
    source = (ROOT / program).read_text()
    if "Parser(" not in source:  # hands its arguments on
        return
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
    "page, command", [(page, command) for page in PAGES for command in commands(page)]
)
def test_commands_parse(page, command, monkeypatch):
    parse(command, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "talking-points evaluate --datasets a --output b",
        "talking-points judge --output b",
        "python examples/train_localizer.py --config examples/train_localizer.yaml --data_dir a --heads mlp",
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
    assert re.match(r"\(172.*\n\(266.*\n", run("README.md")[1])


@pytest.mark.parametrize(
    "page", ["docs/evaluation.md", "hf_talking_points/evaluation/localization_distance/README.md"]
)
def test_metric_finds_what_is_described(run, page):
    scores = run(page)[0]["scores"]
    assert scores["n"] == 2 and scores["mpck"] >= 50


def test_documented_interval_and_localizer_are_such(run):
    names, printed = run("docs/evaluation.md")
    low, high = ast.literal_eval(printed.splitlines()[-1])
    assert 0 < low < high < 100
    localizer = names["CentreLocalizer"]()
    assert localizer(Image.new("RGB", (40, 20)), ["a", "b"]).tolist() == [[20, 10]] * 2


def test_documented_lines_of_the_command_line(run, clone):
    rows = run("docs/command_line.md")[0]["rows"]
    [line] = re.findall(
        r"^    (\{.*\})$", (ROOT / "docs/command_line.md").read_text(), re.MULTILINE
    )
    assert [list(row) for row in rows] == [list(json.loads(line))]
    assert Image.open(clone / "compared.png").width == 1280


def test_documented_trainer_takes_a_step(run, tmp_path):
    trainer = run("docs/grpo.md")[0]["trainer"]
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
    for name, part in (
        ("vision", tiny_vision_tower("swin")),
        ("text", tiny_language_model("qwen", tokenizer)),
        ("text", tokenizer),
    ):
        part.save_pretrained(tmp_path / name)
    ViTImageProcessorPil(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "vision")
    [command] = [
        words
        for words in commands("docs/full_size.md")
        if words[:2] == ["python", f"examples/train_{kind}.py"]
    ]
    options = f"--data_dir my_photos --vision {tmp_path}/vision --text {tmp_path}/text --image_size 64 --output_dir {tmp_path}/run"
    options += " --views_per_photo 1 --max_steps 2 --eval_steps 2 --max_eval_photos 2 --use_cpu true --report_to none"
    options += " --localizer " + MINI_LOCALIZER if kind == "descriptor" else ""
    start([*command, *options.split()])
    assert AutoModel.from_pretrained(tmp_path / "run").config.text_config.model_type == "qwen3"
    assert list(AutoProcessor.from_pretrained(tmp_path / "run").image_processor.image_mean) == [
        0.1,
        0.2,
        0.3,
    ]


def strings(file):
    """(constants, patterns) of a source file: its string literals, and regular expressions that its f-strings match."""
    nodes = list(ast.walk(ast.parse(Path(file).read_text())))
    constants = [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    formatted = [
        [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        for node in nodes
        if isinstance(node, ast.JoinedStr)
    ]
    patterns = [
        "".join(".*" if part is None else re.escape(part) for part in parts)
        for parts in formatted
        if any(parts)
    ]
    return constants, patterns


def test_quoted_errors_are_raised_somewhere():
    """A row of the FAQ quotes a whole message with examples in its gaps, or, between dots, a fixed part of one."""
    quoted = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE)
    sources = [
        *(ROOT / "hf_talking_points").rglob("*.py"),
        configuration_auto.__file__,
        pipelines_base.__file__,
        grpo_config.__file__,
    ]
    constants, patterns = (sum(found, []) for found in zip(*map(strings, sources)))
    patterns = [pattern for pattern in patterns if len(re.findall("[a-z]", pattern)) >= 4]
    assert len(quoted) > 50
    for message in quoted:
        if message.startswith("…"):
            assert any(message.strip("… ") in constant for constant in constants), message
        else:
            assert message in constants or any(
                re.fullmatch(pattern, message) for pattern in patterns
            ), message


def test_wrong_names_are_noticed():
    """The check of blocks that cannot run here fails where it should."""
    check_names("from pathlib import Path\nfolder = Path('a').absolute()", {})
    for wrong in (
        "from hf_talking_points import PointDescriber",
        "import hf_talking_points\nhf_talking_points.PointDescriber",
        "from pathlib import Path\nPath.working_directory()",
        "import hf_talking_points\nhf_talking_points.LocalizerReward(shapes='mse')",
        "describe(image)",
    ):
        with pytest.raises((ImportError, AttributeError, TypeError, AssertionError)):
            check_names(wrong, {})
