"""Puts what is outside docs/ into the site: README.md is its first page, and each file that a page links to has a page.

The pages link to files of the repository by their relative paths, so the links work in the repository, too. In the
site such a link leads to the page ``files/PATH`` with the file's text. A link to a file that does not exist stays as it
is, and ends a strict build.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""The files of the repository's first folder that are pages of the site."""
LINK = re.compile(r"(?<=\]\()([^)#\s]+)")
LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".yml": "yaml", "": "bash"}
FENCE = "~" * 10


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add ``PAGES``, and a page for each file outside docs/ that a page links to."""
    texts = {page: from_docs((ROOT / name).read_text(encoding="utf-8")) for name, page in PAGES.items()}
    written = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for page, text in [*written.items(), *texts.items()]:
        for path in filter(None, (outside(page, link) for link in LINK.findall(text))):
            if path not in PAGES:
                texts[page_of(path)] = as_page(path)
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs passes them by name
    """Let the links to files outside docs/ lead to their pages."""
    name = page.file.src_uri
    if name.startswith("files/"):
        return markdown

    def target(match: re.Match[str]) -> str:
        path = outside(name, match[1])
        return match[1] if path is None else relpath(PAGES.get(path) or page_of(path), PurePosixPath(name).parent)

    return LINK.sub(target, markdown)


def from_docs(text: str) -> str:
    """The text of a file of the first folder as if the file were in docs/."""
    linked = re.sub(r"\]\((?!docs/|https?:|#)", "](../", text)
    return re.sub(r'(?<=["(])docs/', "", linked)


def outside(page: str, link: str) -> str | None:
    """The path of the file outside docs/ that a page links to; ``None`` if the link leads elsewhere."""
    path = normpath(f"docs/{PurePosixPath(page).parent}/{link}")
    return path if not path.startswith(("docs/", "..")) and (ROOT / path).is_file() else None


def page_of(path: str) -> str:
    """The page that shows a file."""
    return f"files/{path.lstrip('.')}.md"


def as_page(path: str) -> str:
    """A file as a page, which the search leaves out."""
    language = LANGUAGES.get(PurePosixPath(path).suffix, "text")
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"---\nsearch: {{exclude: true}}\nhide: [toc]\n---\n\n# `{path}`\n\n{FENCE}{language}\n{text}\n{FENCE}\n"
