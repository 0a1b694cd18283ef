"""Pages of the site that lie outside docs/: README.md, which is the home page, and every file that a page links to.

Links are written for the repository, where they work without the site. On the site, docs/ is the root, and a file from
elsewhere has its path in the repository.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
HOME = "README.md"
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the home page, and every file of the repository that a page links to."""
    waiting = [HOME, *(f"docs/{page.src_uri}" for page in files.documentation_pages())]
    while waiting:
        path = waiting.pop()
        if _on_site(path) not in files.src_uris:
            files.append(File.generated(config, _on_site(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            text = (ROOT / path).read_text(encoding="utf-8")
            targets = {_target(path, link) for link in LINK.findall(text)}
            waiting += [each for each in targets if _on_site(each) not in files.src_uris and (ROOT / each).is_file()]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to the places of their targets on the site."""
    folder = posixpath.dirname(page.file.src_uri)
    path = HOME if page.file.src_uri == "index.md" else _in_repository(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        target = _target(path, match[1])
        return posixpath.relpath(_on_site(target), folder) if (ROOT / target).is_file() else match[1]

    return LINK.sub(moved, markdown)


def _target(page: str, link: str) -> str:
    """Return the path of a link's target in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _on_site(path: str) -> str:
    """Return the path on the site of a path in the repository."""
    return "index.md" if path == HOME else path.removeprefix("docs/")


def _in_repository(uri: str) -> str:
    """Return the path in the repository of a page of the site."""
    return f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri
