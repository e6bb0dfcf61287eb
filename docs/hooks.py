"""What MkDocs needs beside docs/*.md: README and others as pages, a page a target, links that stay inside the site."""

import ast
import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
REFERENCES = {
    "satkeras": "satkeras/__init__.py",
    "quantizers": "satkeras/quantizers/__init__.py",
    "callbacks": "satkeras/callbacks.py",
    "tflite_export": "tflite_export/__init__.py",
}
_LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!https?://|#)([^)#\s]*)(#[^)]*)?\)")


def on_config(config):
    """Places in the navigation: targets' pages, those of results, and pages that mkdocs.yml does not name."""
    sections = {title: pages for entry in config.nav for title, pages in entry.items()}
    sections["Targets"] += [f"targets/{name}.md" for name in target_pages()]
    sections["Measured"] += sorted(
        str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs/results").rglob("*.md")
    )
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    config.nav += [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in named]
    return config


def on_files(files, config):
    """Adds the pages that have their source elsewhere."""
    pages = {page: (ROOT / source).read_text() for source, page in PAGES.items()}
    pages |= {f"targets/{name}.md": text for name, text in target_pages().items()}
    pages |= {f"reference/{name}.md": reference(name, source) for name, source in REFERENCES.items()}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as they are right on GitHub become links within the site; what is no page becomes plain text."""
    place = page.file.src_uri
    sources = {page: source for source, page in PAGES.items()}
    folder = posixpath.dirname(sources.get(place) or posixpath.join("docs", place))

    def moved(match):
        image, text, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        found = PAGES.get(path) or posixpath.relpath(path, "docs")
        if files.get_file_from_path(found) is None:
            return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"
        return f"{image}[{text}]({posixpath.relpath(found, posixpath.dirname(place) or '.')}{anchor or ''})"

    return _LINK.sub(moved, markdown) if not place.startswith(("targets/", "reference/")) else markdown


def target_pages() -> dict[str, str]:
    """The sections of docs/targets.md, each with its row of the table, by name."""
    text = (ROOT / "docs/targets.md").read_text()
    heads, _, *rows = re.findall(r"^\|.*\|$", text.split("\n## ")[0], re.MULTILINE)
    cells = {row[0].strip("`"): row for row in map(_cells, rows)}
    pages = {}
    for section in text.split("\n## ")[1:]:
        name, _, rest = section.partition("\n")
        table = [f"| {head} | {cell} |" for head, cell in zip(_cells(heads)[1:], cells[name][1:], strict=True)]
        call = f'```python\nreport = tflite_export.export_tflite(q, "model.tflite", target="{name}")\n```'
        shown = (
            ["", f"A program that runs such files: `examples/{name}`."] if (ROOT / "examples" / name).is_dir() else []
        )
        heading = [f"# {name}", "", call, "", f"| target | `{name}` |", "|---|---|"]
        pages[name] = "\n".join([*heading, *table, rest.rstrip(), *shown, ""])
    return pages


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def reference(name: str, source: str) -> str:
    """A page with every public name of a package, as its `__init__.py` or module lists them."""
    module = source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    tree = ast.parse((ROOT / source).read_text())
    names = [
        element.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "__all__"
        for element in statement.value.elts
    ]
    return "\n".join(
        [f"# {module}", "", ast.get_docstring(tree) or "", "", *(f"::: {module}.{one}\n" for one in names)]
    )
