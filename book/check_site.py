"""Checks a built site, without any network: ``python book/check_site.py _build/html``.

Prints one sentence per fault, and ends with 1 if there is any. What Sphinx itself refuses in a
strict build (unknown references, missing pictures) is not checked again here, unless raw HTML, a
stored output or the theme could bring it in behind Sphinx's back.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

# What a browser fetches by itself; an <a href> may lead anywhere, the reader decides.
FETCHED = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}
# <link> that names another page instead of fetching something.
NAMES_A_PAGE = {"alternate", "author", "canonical", "index", "license", "next", "prev", "search"}
FETCHED_BY_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")


def check(site: Path) -> list[str]:
    """Return the faults of the site in the folder `site`, one sentence each; none if it is well."""
    if not (site / "index.html").is_file():
        return [f"There is no index.html in {site}: no site was built. Read the output above."]
    # Themes keep templates under _static; they are no pages.
    files = [f for f in sorted(site.rglob("*.html")) if "_static" not in f.relative_to(site).parts]
    pages = {f: BeautifulSoup(f.read_text(encoding="utf-8"), "html.parser") for f in files}
    anchors = {f: _anchors(page) for f, page in pages.items()}
    faults = []
    for file, page in pages.items():
        found = [*_structure(page), *_foreign(page), *_links(file, page, site, anchors)]
        name = file.relative_to(site).as_posix()
        faults += [f"{name}: {fault}" for fault in dict.fromkeys(found)]
    for file in sorted(site.rglob("*.css")):
        for url in FETCHED_BY_STYLE.findall(file.read_text(encoding="utf-8")):
            faults.append(f"{file.relative_to(site).as_posix()}: fetches {url}. Keep a copy here.")
    return faults


def _structure(page: BeautifulSoup) -> Iterator[str]:
    root = page.find("html")
    if not isinstance(root, Tag) or not root.get("lang"):
        yield "the page does not say its language. Set `language` in _config.yml."
    headings = len(page.select("h1:not(.onlyprint h1)"))  # the theme repeats the title for paper
    if headings != 1:
        yield f"the page has {headings} headings of the first level. Give it exactly one."
    for image in page.find_all("img"):
        # A picture without words gets its own address as alt from docutils.
        if "alt" not in image.attrs or (image["alt"] and image["alt"] == image.get("src")):
            yield (
                f"the picture {str(image.get('src'))[:60]} has no text for who cannot see it. "
                "Give it an alt text (in a notebook: cell metadata mystnb.image.alt)."
            )
    for left in page.find_all(string=re.compile(r"\{\{.*\}\}")):
        if not left.find_parent(["pre", "script", "style"]) and not left.find_parent(class_="cell"):
            yield f"{left.strip()} was not filled in. Nothing is substituted inside backticks."


def _foreign(page: BeautifulSoup) -> Iterator[str]:
    for name, attribute in FETCHED.items():
        for tag in page.find_all(name):
            url = str(tag.get(attribute) or "")
            if name == "link" and NAMES_A_PAGE.intersection(tag.get_attribute_list("rel")):
                continue
            if urlsplit(url).netloc:
                yield f"<{name}> fetches {url} from another host. Keep a copy here."
    styles = [tag.get_text() for tag in page.find_all("style")]
    styles += [str(tag["style"]) for tag in page.find_all(style=True)]
    for url in FETCHED_BY_STYLE.findall("\n".join(styles)):
        yield f"a style fetches {url} from another host. Keep a copy here."


def _links(
    file: Path, page: BeautifulSoup, site: Path, anchors: dict[Path, set[str]]
) -> Iterator[str]:
    for tag in page.find_all(["a", *FETCHED]):
        url = str(tag.get(FETCHED.get(tag.name, "href")) or "")
        parts = urlsplit(url)
        if not url or parts.scheme or parts.netloc:
            continue
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
        if target.is_dir():
            target /= "index.html"
        if not target.is_relative_to(site.resolve()):
            yield f"the link {url} leaves the site's folder."
        elif not target.is_file():
            yield f"the link {url} leads to no file."
        else:
            known = anchors.get(site / target.relative_to(site.resolve()))
            fragment = unquote(parts.fragment)
            if fragment and known is not None and fragment not in known:
                yield f"the link {url} leads to no such place on that page."


def _anchors(page: BeautifulSoup) -> set[str]:
    by_id = {str(tag["id"]) for tag in page.find_all(id=True)}
    return by_id | {str(tag["name"]) for tag in page.find_all("a", attrs={"name": True})}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("Name the folder of the built site: python book/check_site.py _build/html")
        return 2
    faults = check(Path(arguments[0]))
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
