"""Collects what each check of this folder finds; with `--write-page` it becomes docs/compatibility.md.

A section of the page is a module, by its docstring; a line is a test, by its docstring, in which parameters are
filled in; a column is a value of the parameter `kind`."""

import inspect
import platform
import re
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from peer_models import DESCRIPTOR, FIELDS, asked

WORKS = "works"
REFUSED = "refused"
NOT_APPLICABLE = "not applicable"
FAILS = "fails"
TEST_FOLDER = re.compile(r"\S*/pytest-of-[^/\s]+/pytest-\d+/")
LIBRARIES = ["transformers", "trl", "peft", "accelerate", "datasets", "torch"]
HEAD = """\
# Compatibility

What users do with other models of transformers, TRL, PEFT and accelerate, tried with the Point Descriptor and the
Point Localizer. Each line is a test in `tests/peers`, on tiny models; this page is what they found:

    make test-peers

- **works**: gives what the library promises, which the test compares.
- **refused**: an error says that it cannot work, and why; the message stands below the table.
- **not applicable**: nothing to try, for the reason below the table.
"""


@dataclass
class Finding:
    section: str
    check: str
    kind: str
    outcome: str
    reason: str


FINDINGS = pytest.StashKey[list[Finding]]()


def pytest_addoption(parser):
    parser.addoption("--write-page", help="file for the table of what was found")


def pytest_configure(config):
    config.stash[FINDINGS] = []


def one_line(text, length=240):
    """A text without line breaks and without the folder of the tests, cut at a word."""
    words = " ".join(TEST_FOLDER.sub("", str(text)).split())
    if len(words) <= length:
        return words
    return words[:length].rsplit(" ", 1)[0] + " …"


def first_line(docstring):
    return inspect.cleandoc(docstring).split("\n\n")[0].replace("\n", " ").rstrip(".")


def outcome_of(item, call, report):
    """-> (outcome, reason) of a test that has run."""
    properties = dict(item.user_properties)
    if report.skipped:
        return NOT_APPLICABLE, report.longrepr[2].removeprefix("Skipped: ")
    if report.failed:
        name = call.excinfo.typename
        return FAILS, f"`{name}: {one_line(call.excinfo.value)}`"
    if REFUSED in properties:
        return REFUSED, properties[REFUSED]
    return WORKS, ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    is_result = report.when == "call" or not report.passed
    if is_result and FINDINGS in item.config.stash and item.function.__doc__:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        outcome, reason = outcome_of(item, call, report)
        finding = Finding(
            section=first_line(item.module.__doc__),
            check=first_line(item.function.__doc__).format(**parameters),
            kind=parameters.get("kind", ""),
            outcome=outcome,
            reason=reason,
        )
        item.config.stash[FINDINGS].append(finding)
    return report


def in_order(values):
    """Each value once, in the order of appearance."""
    return list(dict.fromkeys(values))


def table(findings):
    """Lines of a section's table: a row for each check, a column for each kind."""
    kinds = in_order(finding.kind for finding in findings)
    outcomes = {}
    for finding in findings:
        outcomes[finding.check, finding.kind] = finding.outcome
    lines = [
        " | ".join(["", "check", *(kind or "outcome" for kind in kinds), ""]),
        "|---" * (len(kinds) + 1) + "|",
    ]
    for check in in_order(finding.check for finding in findings):
        cells = [outcomes.get((check, kind), "") for kind in kinds]
        lines.append(" | ".join(["", check, *cells, ""]))
    return [line.strip() for line in lines]


def reasons(findings):
    """Lines that say why something does not work: for each check and reason the kinds that have it."""
    kinds_of_reason = {}
    for finding in findings:
        if finding.outcome != WORKS:
            entry = (finding.check, finding.outcome, finding.reason)
            kinds_of_reason.setdefault(entry, []).append(finding.kind)
    lines = []
    for (check, outcome, reason), kinds in kinds_of_reason.items():
        named = [kind for kind in kinds if kind]
        of_kinds = f" ({'; '.join(named)})" if named else ""
        lines.append(f"- {check}{of_kinds}, {outcome}: {reason}")
    return lines


def page(findings):
    versions = [f"{library} {version(library)}" for library in LIBRARIES]
    python = f"Python {platform.python_version()}"
    accelerator = "an accelerator" if torch.accelerator.is_available() else "a CPU"
    counts = []
    for outcome in (WORKS, REFUSED, NOT_APPLICABLE, FAILS):
        count = sum(finding.outcome == outcome for finding in findings)
        counts.append(f"{count} {outcome}")
    lines = [
        HEAD,
        f"Found on {accelerator} with {python}, {', '.join(versions)}: {', '.join(counts)}.",
    ]
    for section in in_order(finding.section for finding in findings):
        of_section = [finding for finding in findings if finding.section == section]
        lines += ["", f"## {section}", "", *table(of_section)]
        explained = reasons(of_section)
        if explained:
            lines += ["", *explained]
    return "\n".join(lines) + "\n"


def pytest_sessionfinish(session):
    path = session.config.getoption("--write-page")
    if path is not None:
        Path(path).write_text(page(session.config.stash[FINDINGS]))


@pytest.fixture
def refused(record_property):
    """Context manager: what it holds must raise this error, whose message the page shows."""

    @contextmanager
    def expect(error, match):
        with pytest.raises(error, match=match) as caught:
            yield
        name = caught.typename
        record_property(REFUSED, f"`{name}: {one_line(caught.value)}`")

    return expect


@pytest.fixture(scope="session")
def make_pair(make_descriptor, make_localizer):
    """Makes a tiny model of a kind, in eval mode, and its processor."""

    def make(kind, **fields):
        build = make_descriptor if kind == DESCRIPTOR else make_localizer
        return build(**FIELDS[kind], **fields)

    return make


@pytest.fixture(scope="session")
def make_inputs(random_image):
    """Makes inputs of one image for a processor of a kind."""

    def make(kind, processor, count=2, seed=0, **options):
        image = random_image(seed)
        return processor(images=image, **asked(kind, count), **options)

    return make


@pytest.fixture
def model_and_inputs(make_pair, make_inputs):
    """Makes a tiny model of a kind and inputs of one image for it."""

    def make(kind, count=2, **fields):
        model, processor = make_pair(kind, **fields)
        return model, make_inputs(kind, processor, count)

    return make


@pytest.fixture
def checkpoint(make_pair, tmp_path):
    """Saves a tiny model of a kind and its processor; -> the folder as a string."""

    def save(kind, **fields):
        model, processor = make_pair(kind, **fields)
        folder = tmp_path / "checkpoint"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return str(folder)

    return save
