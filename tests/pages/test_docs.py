"""What the documents say is what there is."""

import re
import shlex

import pytest
from conftest import ROOT
from documents import COMMANDS

from kerasgreedy.data.named import FORMS, NAMED
from kerasgreedy.spec.load import load_recipe, load_spec, shipped_files
from kerasgreedy.spec.reference import pages

DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]


@pytest.mark.parametrize("name", pages())
def test_reference_pages_are_those_of_the_schema(name):
    assert (ROOT / "docs" / name).read_text() == pages()[name], "run `make docs`"


def test_every_command_and_option_is_documented():
    text = "\n".join((ROOT / "docs" / name).read_text() for name in ("commands.md", "analyses.md"))
    for name, command in COMMANDS.items():
        _, *found = re.split(rf"## `kerasgreedy {re.escape(name)}[ `]", text)
        assert found, name
        section = found[0].split("\n## ")[0]
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}`" in section or option == "--help", f"{name} {option}"


@pytest.mark.parametrize("page", ["data.md", "recipe.md"])
def test_every_data_set_is_documented_with_its_size(page):
    rows = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| `")]
    for name, entry in NAMED.items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        total = f"{entry.train + entry.test:,}" if name == "digits" else f"{entry.train:,} + {entry.test:,}"
        assert total in row, name
        assert page == "recipe.md" or entry.licence.replace("as mnist", "MNIST") in row, name
    assert all(any(f"`{form}`" in row.split("|")[1] for row in rows) for form in FORMS)


def test_commands_in_the_documents_exist():
    used = 0
    for path in DOCUMENTS:
        text = path.read_text().replace("\\\n", " ")  # a command may go on in the next line
        for line in re.findall(r"^(?:\.venv/bin/)?kerasgreedy .+$", text, re.M):
            words = shlex.split(line, comments=True)
            while words[1] == "--plugin":  # the one option with a value that stands before the command
                words = [words[0], *words[3:]]
            command = COMMANDS.get(words[1]) or COMMANDS[" ".join(words[1:3])]
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            for word in words[2:]:
                assert not word.startswith("-") or word in known, f"{path.name}: {line}"
            used += 1
    assert used > 10


def test_links_between_the_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).stat().st_size, f"{path.name} -> {target}"


@pytest.mark.parametrize("kind", ["spec", "recipe"])
def test_shipped_documents_are_listed_and_say_where_their_figures_come_from(kind):
    readme = (ROOT / "docs/shipped.md").read_text()
    for name, path in shipped_files(kind).items():
        text = path.read_text()
        assert f"`{name}`" in readme
        assert (load_spec(name) if kind == "spec" else load_recipe(name)).value.name == name
        header = text.split("name:")[0]
        assert header.startswith("# ")
        needed = ("20",) if kind == "spec" else ("Command:", "Hardware:", "Expected:")
        assert all(word in header for word in needed), name
