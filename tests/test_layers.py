"""How the package is built: imports point downward, light parts stay light, and what exists once exists once."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_talking_points"
FILES = sorted(PACKAGE.rglob("*.py"))
# from below to above; a file imports from its own layer and from those below it
LAYERS = [
    {"models", "_version"},
    {
        "",
        "checkpoints",
        "files",
        "localization",
        "metrics",
        "offline",
        "options",
        "processes",
        "prompts",
        "visualization",
    },
    {"data", "words"},
    {"evaluation", "rewards"},
    {"cards", "hub"},
    {"training"},
    {"answering", "cli", "space"},
]


def module_name(file):
    """`hf_talking_points.data.rows`; of an `__init__.py`, its package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    )


MODULES = {module_name(file): file for file in FILES}


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(node):
    """All nodes below one, without what is there for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            for alternative in child.orelse:
                yield alternative
                yield from statements(alternative)
        else:
            yield child
            yield from statements(child)


@cache
def tree_of(file):
    return ast.parse(file.read_text())


def source_of_import(file, node):
    """The module that a `from … import` names, without leading dots."""
    if node.level == 0:
        return node.module
    package = file.parent.relative_to(ROOT).parts
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *filter(None, [node.module])])


@cache
def imports_of(file):
    """Names of all modules that a file imports, inside its functions too."""
    modules = set()
    for node in statements(tree_of(file)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = source_of_import(file, node)
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                modules.add(submodule if submodule in MODULES else source)
    return modules


def package_imports(file):
    """Those of the modules that belong to the package."""
    return imports_of(file) & set(MODULES)


def layer_of(module):
    """Number of a module's layer."""
    part = [*module.split("."), ""][1]
    for number, layer in enumerate(LAYERS):
        if part in layer:
            return number
    raise AssertionError(f"{module} is in no layer: add it to LAYERS")


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module):
    upward = []
    for imported in package_imports(MODULES[module]):
        if layer_of(imported) > layer_of(module):
            upward.append(imported)
    assert upward == []


def test_no_files_import_each_other_in_a_circle():
    remaining = {}
    for module, file in MODULES.items():
        remaining[module] = package_imports(file)
    while remaining:
        imported = set.union(*remaining.values())
        # a file that no other imports is in no circle
        free = set(remaining) - imported
        assert free, f"a circle lies in {sorted(remaining)}"
        for module in free:
            del remaining[module]


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "models").glob("*.py")), ids=lambda f: f.name
)
def test_models_import_their_neighbors_as_pulled_code_must(file):
    for node in statements(tree_of(file)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, ast.unparse(node)
            assert node.module, ast.unparse(node)
            assert "." not in node.module, ast.unparse(node)
    assert not any(module.startswith(PACKAGE.name) for module in absolute_imports(file))


def absolute_imports(file):
    """Modules that a file imports by their full names."""
    modules = set()
    for node in statements(tree_of(file)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module)
    return modules


@cache
def loaded_modules(program):
    """The package's modules that a fresh process has loaded after a program."""
    program += f"""
import json, sys
print(json.dumps([name for name in sys.modules if name.split(".")[0] == {PACKAGE.name!r}]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return set(json.loads(ran.stdout.splitlines()[-1]))


HTTP_CLIENTS = {"httpx", "httpx2", "requests"}


def top_level_packages(file):
    """Third-party packages that a file loads when it is imported, so not those that its functions import."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    packages = set()
    waiting = [tree_of(file)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, functions):
            continue
        if isinstance(node, ast.Import):
            packages.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add(node.module.split(".")[0])
        waiting.extend(
            child for child in ast.iter_child_nodes(node) if not is_type_checking(child)
        )
    return packages


def test_trainers_load_no_uploader_and_no_teachers():
    names = "PointGRPOTrainer, PointLocalizerTrainer"
    loaded = loaded_modules(f"from {PACKAGE.name} import {names}")
    assert f"{PACKAGE.name}.training.hub_trainer" in loaded
    for part in ("hub", "answering", "cli", "space", "data.teachers", "data.endpoint"):
        assert f"{PACKAGE.name}.{part}" not in loaded
    for module in loaded:
        assert not top_level_packages(MODULES[module]) & HTTP_CLIENTS, module


def test_trainers_of_rewards_load_no_evaluation():
    loaded = loaded_modules(f"from {PACKAGE.name} import PointGRPOTrainer")
    evaluation = f"{PACKAGE.name}.evaluation"
    assert [module for module in loaded if module.startswith(evaluation)] == []


def test_the_package_alone_loads_the_models_alone():
    loaded = loaded_modules(f"import {PACKAGE.name}")
    for module in loaded:
        assert layer_of(module) <= layer_of(PACKAGE.name), module
        assert not top_level_packages(MODULES[module]) & HTTP_CLIENTS, module


# --- what exists once


def places(found):
    """Files of the package, relative to it, in which `found` holds for some node."""
    files = set()
    for file in FILES:
        if any(found(node) for node in ast.walk(tree_of(file))):
            files.add(str(file.relative_to(PACKAGE)))
    return files


def opens_an_image(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")


def reads_the_orientation(node):
    return isinstance(node, ast.Attribute) and node.attr in (
        "exif_transpose",
        "getexif",
    )


OPEN_IMAGES = {
    "models/images.py": "the one way to open an image",
    "data/photos.py": "opens a photo's stored bytes, which to_rgb then turns",
    "data/part_label_maps.py": "reads indices of parts, no colors",
    "data/photo_files.py": "reads format and metadata of a file that is stored as it is",
    "data/dataset_card.py": "opens stored bytes, which to_rgb then turns",
    "evaluation/localization_distance/localization_distance.py": "as data/dataset_card.py",
    "training/point_rows.py": "reads the size alone, before any image is decoded",
    "visualization.py": "reads a plot that it has just drawn",
    "space/app.py": "refuses formats and sizes before a file of a visitor is decoded",
}


def test_images_are_opened_in_one_way():
    assert places(opens_an_image) <= set(OPEN_IMAGES)


def test_only_one_file_knows_of_orientations():
    assert places(reads_the_orientation) == {"models/images.py"}


def asks_a_localizer(node):
    """Whether a node is a request of the pipeline "point-localization", or a call of it."""
    if isinstance(node, ast.Dict):
        keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        return {"image", "text"} <= keys
    if isinstance(node, ast.Call):
        return any(keyword.arg == "text" for keyword in node.keywords)
    return False


def test_points_are_located_by_one_engine():
    # the app shows why a text was refused, which the engine answers with a point of NaN
    assert places(asks_a_localizer) == {"localization.py", "space/app.py"}


def declares_points(node):
    """Whether a node is the feature of a column of points: lists of two numbers."""
    if not isinstance(node, ast.Call):
        return False
    lengths = [keyword.value for keyword in node.keywords if keyword.arg == "length"]
    return ast.unparse(node.func).endswith("List") and any(
        isinstance(length, ast.Constant) and length.value == 2 for length in lengths
    )


def test_rows_of_points_have_one_format():
    metric = "evaluation/localization_distance/localization_distance.py"
    assert places(declares_points) == {"data/rows.py", metric}


ONCE = {
    "to_rgb": "models/images.py",
    "content_key": "models/images.py",
    "locate_texts": "localization.py",
    "distances_with_misses": "metrics.py",
    "point_features": "data/rows.py",
    "names_it": "data/names.py",
    "normalize_category": "data/names.py",
    "normalize_part": "data/names.py",
    "model_version": "checkpoints.py",
    "push_checkpoint": "hub.py",
}


@pytest.mark.parametrize("name, file", ONCE.items())
def test_functions_that_many_files_need_are_defined_once(name, file):
    definitions = []
    for candidate in FILES:
        for node in tree_of(candidate).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                definitions.append(str(candidate.relative_to(PACKAGE)))
    assert definitions == [file]
